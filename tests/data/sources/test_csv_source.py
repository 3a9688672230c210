"""A table of paths and labels, as people and spreadsheets write them."""

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from nstudent.config.schema import DataConfig
from nstudent.data.sources import open_source, source_stamp
from nstudent.data.sources.source import Source
from nstudent.errors import DataError

HEADER = "path,coarse,mid,fine"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    for name in ("1.jpg", "2.jpg", "3.jpg", "a, b.jpg", "고양이.jpg"):
        (folder / name).write_bytes(name.encode())
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    return folder


def opened(root: Path, text: bytes | str, **options: Any) -> Source:
    content = text if isinstance(text, bytes) else text.encode()
    (root / "t.csv").write_bytes(content)
    return open_source(DataConfig(source="csv", root=str(root), table="t.csv", **options))


def found(root: Path, *lines: str, **options: Any) -> list[tuple[str, tuple[str, ...], str | None]]:
    return [(r.name, r.label, r.split) for r in opened(root, "\n".join(lines) + "\n", **options).catalogue().records]


def refused(root: Path, *lines: str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        found(root, *lines, **options)
    return str(caught.value)


def test_a_dash_is_absent_and_an_empty_cell_unknown(root: Path) -> None:
    assert found(root, HEADER, "1.jpg,a,b,c", "2.jpg,a,-,-", "3.jpg,a,,") == [
        ("1.jpg", ("a", "b", "c"), None),
        ("2.jpg", ("a", "-", "-"), None),
        ("3.jpg", ("a", "", ""), None),
    ]


def test_columns_may_stand_in_any_order_beside_others(root: Path) -> None:
    lines = ["fine,note,split,path,mid,coarse", "c,hello,test,1.jpg,b,a", "c,,,2.jpg,b,a"]

    assert found(root, *lines) == [("1.jpg", ("a", "b", "c"), "test"), ("2.jpg", ("a", "b", "c"), None)]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_tables_of_spreadsheets_are_read(root: Path, start: bytes, end: str) -> None:
    content = start + end.join([HEADER, '"a, b.jpg", a ,"b ""x""",c', "", "고양이.jpg,a,b,c", ""]).encode()

    records = opened(root, content).catalogue().records

    assert [record.name for record in records] == ["a, b.jpg", "고양이.jpg"]
    assert records[0].label == ("a", 'b "x"', "c")


def test_reading_gives_the_bytes_of_that_row(root: Path, tmp_path: Path) -> None:
    heap = tmp_path / "heap"
    heap.mkdir()
    (heap / "9.jpg").write_bytes(b"nine")
    source = opened(root, f"{HEADER}\n2.jpg,a,b,c\n1.jpg,a,b,c\n", unlabelled_root=str(heap))

    records = source.catalogue().records

    assert [source.read(i) for i in range(3)] == [b"2.jpg", b"1.jpg", b"nine"]
    assert (records[2].name, records[2].label, records[2].split) == ("unlabelled:9.jpg", ("", "", ""), "unlabelled")


@pytest.mark.parametrize("row", ["2.jpg,a,b", "2.jpg,a,b,c,d"], ids=["short", "long"])
def test_a_row_of_another_length_names_its_line(root: Path, row: str) -> None:
    message = refused(root, HEADER, "1.jpg,a,b,c", row)

    assert "t.csv line 3" in message
    assert "the header has 4" in message


def test_a_missing_column_is_named(root: Path) -> None:
    message = refused(root, "path,coarse,fine", "1.jpg,a,c", levels=("coarse", "mid", "fine"))

    assert "no column mid" in message


def test_a_path_given_twice_names_both_rows(root: Path) -> None:
    message = refused(root, HEADER, "1.jpg,a,b,c", "2.jpg,a,b,c", "1.jpg,a,b,d")

    assert "line 4" in message
    assert "line 2, labelled a/b/c there and a/b/d here" in message


def test_an_unknown_split_is_named(root: Path) -> None:
    message = refused(root, f"{HEADER},split", "1.jpg,a,b,c,tset")

    assert "line 2" in message
    assert "'tset'" in message


def test_a_missing_image_names_its_line(root: Path) -> None:
    assert "line 2" in refused(root, HEADER, "gone.jpg,a,b,c")


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "{outside}", "sub/../../secret.jpg", "folder/secret.jpg", "..", "../gone.jpg"]
)
def test_a_path_out_of_the_root_is_refused(root: Path, tmp_path: Path, name: str) -> None:
    (root / "folder").symlink_to(tmp_path)
    name = name.format(outside=tmp_path / "secret.jpg")

    message = refused(root, HEADER, f"{name},a,b,c")

    assert "line 2" in message
    assert "leads out of" in message


@pytest.mark.parametrize("name", ["", " ", "a\0b.jpg", "."])
def test_what_is_no_path_is_refused(root: Path, name: str) -> None:
    assert "line 2" in refused(root, HEADER, f"{name},a,b,c")


@pytest.mark.parametrize(
    "content",
    [HEADER.encode() + b"\n\xff\xfe.jpg,a,b,c\n", HEADER.encode() + b'\n"1.jpg,a,b,c\n', b"\x89PNG\r\n\x1a\n\0\0"],
    ids=["not UTF-8", "open quote", "an image"],
)
def test_what_is_no_table_is_refused(root: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"t\.csv"):
        opened(root, content).catalogue()


@pytest.mark.parametrize("content", ["", HEADER, f"{HEADER}\n\n\n"])
def test_a_table_without_a_row_is_refused(root: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"t\.csv"):
        opened(root, content).catalogue()


def test_a_missing_table_names_the_key(root: Path) -> None:
    with pytest.raises(DataError, match=r"data\.table"):
        open_source(DataConfig(source="csv", root=str(root), table="gone.csv"))


def test_a_folder_is_no_table(root: Path) -> None:
    with pytest.raises(DataError):
        open_source(DataConfig(source="csv", root=str(root), table=".")).catalogue()


def test_the_stamp_changes_with_the_table_and_the_images(root: Path) -> None:
    config = DataConfig(source="csv", root=str(root), table="t.csv")
    stamps = set()
    for text in (f"{HEADER}\n1.jpg,a,b,c\n", f"{HEADER}\n1.jpg,a,b,cc\n"):
        opened(root, text)
        stamps.add(source_stamp(config))
    (root / "1.jpg").write_bytes(b"another image")

    assert len(stamps | {source_stamp(config)}) == 3


# --- what people's programs write -------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["nan", "NaN", "<NA>", "#N/A", "N/A", "null", "NULL", "None"])
def test_a_program_s_word_for_nothing_is_no_class(root: Path, word: str) -> None:
    message = refused(root, HEADER, "1.jpg,a,b,c", f"2.jpg,a,b,{word}")

    assert f"t.csv line 3: '{word}' in column fine is no class" in message
    assert "data.taxonomy" in message


def test_a_class_of_such_a_name_can_be_given_in_the_taxonomy(root: Path) -> None:
    tree = {"a": {"b": ["null", "one"]}}

    assert found(root, HEADER, "1.jpg,a,b,null", taxonomy=tree) == [("1.jpg", ("a", "b", "null"), None)]


def test_a_number_keeps_its_spelling(root: Path) -> None:
    assert found(root, HEADER, "1.jpg,1,2.0,03") == [("1.jpg", ("1", "2.0", "03"), None)]


def test_blank_cells_are_unknown(root: Path) -> None:
    assert found(root, HEADER, "1.jpg,a,  ,\u00a0") == [("1.jpg", ("a", "", ""), None)]


@pytest.mark.parametrize(("separator", "word"), [("\t", "tabs"), (";", "semicolons")])
def test_other_separators_are_named(root: Path, separator: str, word: str) -> None:
    message = refused(root, HEADER.replace(",", separator), "1.jpg,a,b,c".replace(",", separator))

    assert message.endswith(f"t.csv separates its columns by {word}: save it with commas")


def test_a_header_in_another_case_is_named(root: Path) -> None:
    message = refused(root, "Path,Coarse,Mid,Fine", "1.jpg,a,b,c")

    assert "Write 'Path' as 'path'" in message


def test_a_column_that_stands_twice_is_named(root: Path) -> None:
    assert "the column 'fine' twice" in refused(root, f"{HEADER},fine", "1.jpg,a,b,c,d")


def test_a_very_wide_header_or_row_is_refused(root: Path) -> None:
    wide = ",".join(map(str, range(200_000)))

    assert "no column path" in refused(root, wide, "1.jpg,a,b,c")
    assert "200000 fields, the header has 4" in refused(root, HEADER, wide)


def test_a_very_long_cell_is_refused(root: Path) -> None:
    assert "not a readable CSV table" in refused(root, HEADER, f"{'x' * 200_000},a,b,c")


@pytest.mark.parametrize("name", ["./1.jpg", "sub/../1.jpg", "sub//../1.jpg", "../root/1.jpg"])
def test_a_path_spelled_in_two_ways_is_one_image(root: Path, name: str) -> None:
    (root / "sub").mkdir()

    message = refused(root, HEADER, "1.jpg,a,b,c", f"{name},a,b,c")

    assert "line 3" in message
    assert "already stands in line 2: keep one" in message


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_a_name_is_found_however_its_accents_are_spelled(root: Path, on_disk: str, in_table: str) -> None:
    """A table that was written on a Mac, and files that were copied from one."""
    on_disk, in_table = (unicodedata.normalize(form, "é고양이.jpg") for form in (on_disk, in_table))
    (root / on_disk).write_bytes(b"found")

    source = opened(root, f"{HEADER}\n{in_table},a,b,c\n")

    assert [record.name for record in source.catalogue().records] == [in_table]
    assert source.read(0) == b"found"


def test_two_names_that_differ_in_the_spelling_of_accents_are_two_images(root: Path) -> None:
    names = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    for name in names:
        (root / name).write_bytes(name.encode())

    source = opened(root, "\n".join([HEADER, *(f"{name},a,b,c" for name in names)]))

    assert [record.name for record in source.catalogue().records] == names
    assert [source.read(i) for i in range(2)] == [name.encode() for name in names]


def test_a_link_inside_the_root_is_followed(root: Path) -> None:
    (root / "link.jpg").symlink_to("1.jpg")

    source = opened(root, f"{HEADER}\nlink.jpg,a,b,c\n")

    assert [source.read(i) for i in range(len(source.catalogue().records))] == [b"1.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="there are no such files")
def test_neither_a_pipe_nor_a_link_in_a_circle_is_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe.jpg")
    (root / "loop.jpg").symlink_to("loop.jpg")

    assert "line 2: pipe.jpg is not a file" in refused(root, HEADER, "pipe.jpg,a,b,c")
    assert "line 2: loop.jpg is not a file" in refused(root, HEADER, "loop.jpg,a,b,c")


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "x/" * 3000 + "1.jpg", "~/1.jpg", "https://example.org/1.jpg"])
def test_what_names_no_file_here_is_refused_with_its_line(root: Path, name: str) -> None:
    assert "line 2: there is no file" in refused(root, HEADER, f"{name},a,b,c")


def test_control_characters_of_a_table_do_not_reach_the_terminal(root: Path) -> None:
    message = refused(root, HEADER, "\x1b[31mred.jpg,a,b,c")

    assert "\x1b" not in message
    assert "\\x1b[31mred.jpg" in message


def test_a_linked_folder_in_the_heap_is_named(root: Path, tmp_path: Path) -> None:
    heap = tmp_path / "heap"
    (heap / "a").mkdir(parents=True)
    (heap / "a" / "again").symlink_to(heap)

    with pytest.raises(DataError, match="again is a link to a folder"):
        found(root, HEADER, "1.jpg,a,b,c", unlabelled_root=str(heap))


def test_many_rows_keep_their_order_and_their_files(root: Path) -> None:
    lines = []
    for i in range(300):
        folder = root / f"{i % 7}"
        folder.mkdir(exist_ok=True)
        (folder / f"{i}.jpg").touch()
        lines.append(f"{i % 7}/{i}.jpg,A{i % 3},B{i % 3},C{i}")

    records = found(root, HEADER, *lines)

    assert [name for name, _, _ in records] == [line.partition(",")[0] for line in lines]
    assert [label[2] for _, label, _ in records] == [f"C{i}" for i in range(300)]
