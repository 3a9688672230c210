"""A table of paths and labels, as people and spreadsheets write them."""

import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from nstudent.config.schema import DataConfig
from nstudent.data.sources import open_source, source_seen
from nstudent.data.sources.class_names import spelled_alike
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
        stamps.add(source_seen(config).stamp)
    (root / "1.jpg").write_bytes(b"another image")

    assert len(stamps | {source_seen(config).stamp}) == 3


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


# --- other people's columns, quotes, encodings and paths --------------------------------------------------------------

TWO = "path,coarse,fine"


@pytest.mark.parametrize("column", ["Split", "SPLIT", "splits", "spilt", "Split\u00a0", "split_"])
def test_a_column_that_is_nearly_the_optional_one_is_refused_like_a_required_one(root: Path, column: str) -> None:
    message = refused(root, f"{TWO},{column}", "1.jpg,a,b,train", "2.jpg,a,b,validation")

    assert f"write it as 'split', set data.split_column={column.strip()}, or give it another name" in message


@pytest.mark.parametrize("column", [" split ", '"split"', ' "split"', "split\u200b", "'split'", "\u00a0split"])
def test_a_column_that_reads_split_is_the_split(root: Path, column: str) -> None:
    assert found(root, f"{TWO},{column}", "1.jpg,a,b,validation") == [("1.jpg", ("a", "b"), "validation")]


def test_a_level_may_be_called_split(root: Path) -> None:
    assert found(root, "path,split", "1.jpg,a", levels=("split",)) == [("1.jpg", ("a",), None)]


@pytest.mark.parametrize("column", ["is_valid", "isTest", "in train", "IS_VAL", "istest", "is_validation_set"])
def test_a_column_that_says_what_is_held_out_is_refused(root: Path, column: str) -> None:
    """Of numbers or booleans, as other libraries have it: its rows would be trained on."""
    message = refused(root, f"{TWO},{column}", "1.jpg,a,b,0", "2.jpg,a,b,1")
    assert f"has a column '{column}', which says what is held out: make of it a column 'split' of train" in message
    assert len(found(root, f"{TWO},{column},split", "1.jpg,a,b,0,train", "2.jpg,a,b,1,test")) == 2


@pytest.mark.parametrize("column", ["is_red", "island", "indoor", "is", "in", "training_hours", "isbn"])
def test_other_columns_may_begin_alike(root: Path, column: str) -> None:
    assert len(found(root, f"{TWO},{column}", "1.jpg,a,b,0", "2.jpg,a,b,1")) == 2


def test_a_column_of_splits_under_another_name_is_refused(root: Path) -> None:
    message = refused(root, f"{TWO},usage", "1.jpg,a,b,Train", "2.jpg,a,b,", "3.jpg,a,b,val")

    assert (
        "names of splits (train, validation) in the column 'usage': name it, data.split_column=usage, or remove it"
        in message
    )
    # It says no split for some, or the splits are in a column of their own.
    assert len(found(root, f"{TWO},usage", "1.jpg,a,b,train", "2.jpg,a,b,val", "3.jpg,a,b,hello")) == 3
    assert len(found(root, f"{TWO},usage", "1.jpg,a,b,train", "2.jpg,a,b,train")) == 2
    assert len(found(root, f"{TWO},usage,split", "1.jpg,a,b,train,test", "2.jpg,a,b,val,test")) == 2


@pytest.mark.parametrize(
    ("word", "split"),
    [("val", "validation"), ("Dev", "validation"), ("TRAINING", "train"), ("unlabeled", "unlabelled")],
)
def test_usual_words_for_splits_are_understood(root: Path, word: str, split: str) -> None:
    assert found(root, f"{TWO},split", f"1.jpg,a,b, {word}") == [("1.jpg", ("a", "b"), split)]


def test_a_word_that_says_a_split_and_not_which_is_refused_with_those_it_may_be(root: Path) -> None:
    assert "split 'eval' is none of" in refused(root, f"{TWO},split", "1.jpg,a,b,eval")
    assert "write validation or test" in refused(root, f"{TWO},split", "1.jpg,a,b,eval")


def test_columns_that_are_not_used_are_named_once(root: Path) -> None:
    notes = opened(root, f"{TWO},width,note\n1.jpg,a,b,3,x\n2.jpg,a,b,3,y\n").catalogue().notes

    assert "columns of the table that are not used: 'width', 'note'" in notes


@pytest.mark.parametrize(
    ("header", "levels"),
    [("path,class", ("class",)), (TWO, ("coarse", "fine")), (HEADER, ("coarse", "mid", "fine"))],
)
def test_levels_follow_from_the_columns(root: Path, header: str, levels: tuple[str, ...]) -> None:
    row = ",".join(["1.jpg", *"abc"[: len(levels)]])

    assert opened(root, f"{header}\n{row}\n").catalogue().levels == levels


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("path,label", r"name its levels, data\.levels=\[label\]"),
        ("path,Coarse,Fine", "write 'Coarse' as 'coarse', or name its levels"),
        ("path,class,Fine", "a column 'Fine': write it as 'fine', or give it another name"),
        ("path,class,coarse", r"has the columns coarse, class: say which are levels, data\.levels=\[\.\.\.\]"),
        ("filename,coarse,fine", "Write 'filename' as 'path'"),
    ],
)
def test_columns_that_could_be_levels_are_not_guessed(root: Path, header: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        found(root, header, ",".join(["1.jpg", *"ab"[: header.count(",")]]))


@pytest.mark.parametrize("cell", [' "b"', '\t"b"', '"b"', "'b'", "“b”", "\u00a0b", " b\u2003"])
def test_quotes_and_blanks_around_a_class_are_no_part_of_it(root: Path, cell: str) -> None:
    source = opened(
        root, f"path,class\n1.jpg,b\n2.jpg,{cell}\n" if cell != '"b" ' else "path,class\n1.jpg,b\n2.jpg,b\n"
    )

    assert {record.label for record in spelled_alike(source.catalogue(), allow_case=False).records} == {("b",)}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_of_spreadsheets_are_read(root: Path, encoding: str) -> None:
    records = opened(root, "path,class\n1.jpg,Äpfel\n고양이.jpg,Äpfel\n".encode(encoding)).catalogue().records

    assert [(record.name, record.label) for record in records] == [("1.jpg", ("Äpfel",)), ("고양이.jpg", ("Äpfel",))]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16-be", "mac-roman"])
def test_other_encodings_are_refused_with_how_to_save_it(root: Path, encoding: str) -> None:
    with pytest.raises(DataError, match="save it as UTF-8"):
        opened(root, "path,class\n1.jpg,Äpfel\n".encode(encoding)).catalogue()


def test_empty_columns_rows_and_the_line_for_excel_are_ignored(root: Path) -> None:
    rows = ["sep=,", f"{TWO},,", "1.jpg,a,b,,", ",,,,", "2.jpg,a,b", "   ", "3.jpg,a,b,,,,"]

    with pytest.raises(DataError, match="line 5: 3 fields, the header has 5"):
        found(root, *rows)
    assert len(found(root, *(row for row in rows if row != "2.jpg,a,b"))) == 2


def test_the_numbers_that_pandas_writes_before_each_row_are_no_column_of_ours(root: Path) -> None:
    assert found(root, f",{TWO}", "0,1.jpg,a,b", "1,2.jpg,a,b")[1] == ("2.jpg", ("a", "b"), None)


def test_backslashes_and_whole_paths_are_names_below_the_root(root: Path) -> None:
    (root / "sub").mkdir()
    (root / "sub/4.jpg").write_bytes(b"four")
    (root / "odd\\name.jpg").write_bytes(b"odd")
    source = opened(root, f"path,class\nsub\\4.jpg,a\n{root}/1.jpg,a\nodd\\name.jpg,a\n{root.resolve()}/2.jpg,a\n")

    records = source.catalogue().records

    assert [record.name for record in records] == ["sub/4.jpg", "1.jpg", "odd\\name.jpg", "2.jpg"]
    assert [source.read(i) for i in range(4)] == [b"four", b"1.jpg", b"odd", b"2.jpg"]


def test_one_image_by_a_whole_path_and_a_short_one_stands_twice(root: Path) -> None:
    assert "already stands in line 2" in refused(root, "path,class", "1.jpg,a", f"{root}/1.jpg,a")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("root/1.jpg", "Write '1.jpg': paths are relative to data.root"),
        ("C:\\data\\root\\1.jpg", "Write '1.jpg': paths are relative to data.root"),
        ("/data/of/another/machine/1.jpg", "Write '1.jpg': paths are relative to data.root"),
        ("1", "Did you mean '1.jpg'?"),
        ("1.JPG", "Did you mean '1.jpg'?"),
        ("1.png", "Did you mean '1.jpg'?"),
    ],
)
def test_a_file_that_may_be_meant_is_named(root: Path, name: str, said: str) -> None:
    assert said in refused(root, "path,class", f"{name},a")


def test_a_link_to_a_file_outside_is_read_as_it_is_in_a_folder(root: Path, tmp_path: Path) -> None:
    """Caches of data sets and DVC keep the files elsewhere, and lay links to them."""
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "dead.jpg").symlink_to(tmp_path / "gone.jpg")
    source = opened(root, "path,class\nlink.jpg,a\n")

    assert [source.read(i) for i in range(len(source.catalogue().records))] == [b"secret"]
    assert "dead.jpg is not a file" in refused(root, "path,class", "dead.jpg,a")


@pytest.mark.parametrize("name", ["1.jfif", "1", "sub/1.xyz"])
def test_the_stamp_is_of_the_files_of_the_rows_whatever_their_names(root: Path, name: str) -> None:
    (root / "sub").mkdir()
    (root / name).write_bytes(b"before")
    opened(root, f"path,class\n{name},a\n")
    config = DataConfig(source="csv", root=str(root), table="t.csv")
    before = source_seen(config).stamp

    (root / "other.jpg").write_bytes(b"no row names it")
    assert source_seen(config).stamp == before
    (root / name).write_bytes(b"and after")
    assert source_seen(config).stamp != before


@pytest.mark.parametrize(
    "content", [b"path,class\n1.jpg,a,b\n", b"\xff\xff", b"", b"path,class\ngone.jpg,a\n", b"x,y\n1,2\n"]
)
def test_a_table_that_cannot_be_read_has_a_stamp_all_the_same(root: Path, content: bytes) -> None:
    opened(root, content)

    assert source_seen(DataConfig(source="csv", root=str(root), table="t.csv")).stamp


def test_the_heap_may_be_the_folder_of_the_table(root: Path) -> None:
    source = opened(root, "path,class\n1.jpg,a\n2.jpg,b\n", unlabelled_root=str(root))

    catalogue = source.catalogue()

    assert [record.name for record in catalogue.records] == [
        *("1.jpg", "2.jpg", "unlabelled:3.jpg", "unlabelled:a, b.jpg", "unlabelled:고양이.jpg")
    ]
    assert not catalogue.passed_over
    assert [source.read(i) for i in (1, 2)] == [b"2.jpg", b"3.jpg"]


def test_what_of_the_heap_is_not_taken_is_counted(root: Path, tmp_path: Path) -> None:
    (tmp_path / "heap").mkdir()
    (tmp_path / "heap/notes.txt").write_bytes(b"hello")

    catalogue = opened(root, "path,class\n1.jpg,a\n", unlabelled_root=str(tmp_path / "heap")).catalogue()

    assert [(each.name, each.reason) for each in catalogue.passed_over] == [
        ("unlabelled:notes.txt", "not an image (.txt)")
    ]


def test_what_was_seen_is_the_same_where_the_folder_lies_elsewhere(root: Path, tmp_path: Path) -> None:
    opened(root, "path,class\n1.jpg,a\n./2.jpg,b\n")
    elsewhere = shutil.copytree(root, tmp_path / "elsewhere")

    before, after = (source_seen(DataConfig(source="csv", root=str(each), table="t.csv")) for each in (root, elsewhere))

    assert before == after
    assert set(before.files) == {"1.jpg", "2.jpg"}
