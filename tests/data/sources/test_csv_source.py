"""A table of paths and labels, as people and spreadsheets write them."""

import pytest
from nstudent.config import DataConfig
from nstudent.data.sources import open_source, source_stamp
from nstudent.errors import DataError

HEADER = "path,coarse,mid,fine"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    for name in ("1.jpg", "2.jpg", "3.jpg", "a, b.jpg", "고양이.jpg"):
        (folder / name).write_bytes(name.encode())
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    return folder


def opened(root, text, **options):
    content = text if isinstance(text, bytes) else text.encode()
    (root / "t.csv").write_bytes(content)
    return open_source(DataConfig(source="csv", root=str(root), table="t.csv", **options))


def found(root, *lines, **options):
    return [(r.name, r.label, r.split) for r in opened(root, "\n".join(lines) + "\n", **options).records()]


def refused(root, *lines):
    with pytest.raises(DataError) as caught:
        found(root, *lines)
    return str(caught.value)


def test_a_dash_is_absent_and_an_empty_cell_unknown(root):
    assert found(root, HEADER, "1.jpg,a,b,c", "2.jpg,a,-,-", "3.jpg,a,,") == [
        ("1.jpg", ("a", "b", "c"), None),
        ("2.jpg", ("a", "-", "-"), None),
        ("3.jpg", ("a", "", ""), None),
    ]


def test_columns_may_stand_in_any_order_beside_others(root):
    lines = ["fine,note,split,path,mid,coarse", "c,hello,test,1.jpg,b,a", "c,,,2.jpg,b,a"]

    assert found(root, *lines) == [("1.jpg", ("a", "b", "c"), "test"), ("2.jpg", ("a", "b", "c"), None)]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_tables_of_spreadsheets_are_read(root, start, end):
    content = start + end.join([HEADER, '"a, b.jpg", a ,"b ""x""",c', "", "고양이.jpg,a,b,c", ""]).encode()

    records = opened(root, content).records()

    assert [record.name for record in records] == ["a, b.jpg", "고양이.jpg"]
    assert records[0].label == ("a", 'b "x"', "c")


def test_reading_gives_the_bytes_of_that_row(root, tmp_path):
    heap = tmp_path / "heap"
    heap.mkdir()
    (heap / "9.jpg").write_bytes(b"nine")
    source = opened(root, f"{HEADER}\n2.jpg,a,b,c\n1.jpg,a,b,c\n", unlabelled_root=str(heap))

    records = source.records()

    assert [source.read(i) for i in range(3)] == [b"2.jpg", b"1.jpg", b"nine"]
    assert (records[2].name, records[2].label, records[2].split) == ("unlabelled:9.jpg", ("", "", ""), "unlabelled")


@pytest.mark.parametrize("row", ["2.jpg,a,b", "2.jpg,a,b,c,d"], ids=["short", "long"])
def test_a_row_of_another_length_names_its_line(root, row):
    message = refused(root, HEADER, "1.jpg,a,b,c", row)

    assert "t.csv line 3" in message
    assert "the header has 4" in message


def test_a_missing_column_is_named(root):
    message = refused(root, "path,coarse,fine", "1.jpg,a,c")

    assert "no column mid" in message


def test_a_path_given_twice_names_both_rows(root):
    message = refused(root, HEADER, "1.jpg,a,b,c", "2.jpg,a,b,c", "1.jpg,a,b,d")

    assert "line 4" in message
    assert "line 2, labelled a/b/c there and a/b/d here" in message


def test_an_unknown_split_is_named(root):
    message = refused(root, f"{HEADER},split", "1.jpg,a,b,c,tset")

    assert "line 2" in message
    assert "'tset'" in message


def test_a_missing_image_names_its_line(root):
    assert "line 2" in refused(root, HEADER, "gone.jpg,a,b,c")


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "{outside}", "link.jpg", "sub/../../secret.jpg", "folder/secret.jpg"]
)
def test_a_path_out_of_the_root_is_refused(root, tmp_path, name):
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "folder").symlink_to(tmp_path)
    name = name.format(outside=tmp_path / "secret.jpg")

    message = refused(root, HEADER, f"{name},a,b,c")

    assert "line 2" in message
    assert "leads out of" in message


@pytest.mark.parametrize("name", ["", " ", "a\0b.jpg", "."])
def test_what_is_no_path_is_refused(root, name):
    assert "line 2" in refused(root, HEADER, f"{name},a,b,c")


@pytest.mark.parametrize(
    "content",
    [HEADER.encode() + b"\n\xff\xfe.jpg,a,b,c\n", HEADER.encode() + b'\n"1.jpg,a,b,c\n', b"\x89PNG\r\n\x1a\n\0\0"],
    ids=["not UTF-8", "open quote", "an image"],
)
def test_what_is_no_table_is_refused(root, content):
    with pytest.raises(DataError, match=r"t\.csv"):
        opened(root, content).records()


@pytest.mark.parametrize("content", ["", HEADER, f"{HEADER}\n\n\n"])
def test_a_table_without_a_row_is_refused(root, content):
    with pytest.raises(DataError, match=r"t\.csv"):
        opened(root, content).records()


def test_a_missing_table_names_the_key(root):
    with pytest.raises(DataError, match=r"data\.table"):
        open_source(DataConfig(source="csv", root=str(root), table="gone.csv"))


def test_a_folder_is_no_table(root):
    with pytest.raises(DataError):
        open_source(DataConfig(source="csv", root=str(root), table=".")).records()


def test_the_stamp_changes_with_the_table_and_the_images(root):
    config = DataConfig(source="csv", root=str(root), table="t.csv")
    stamps = set()
    for text in (f"{HEADER}\n1.jpg,a,b,c\n", f"{HEADER}\n1.jpg,a,b,cc\n"):
        opened(root, text)
        stamps.add(source_stamp(config))
    (root / "1.jpg").write_bytes(b"another image")

    assert len(stamps | {source_stamp(config)}) == 3
