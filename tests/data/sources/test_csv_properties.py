"""Any table at all: the right records, or one line that says what is wrong. Never a wrong label or a foreign file."""

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nstudent.config.schema import DataConfig
from nstudent.data.sources import open_source
from nstudent.data.sources.source import SPLITS, Record
from nstudent.errors import NstudentError

NAMES = ["1.jpg", "2.jpg", "a, b.jpg", "sub/3.jpg", 'q"uote.jpg', "é.jpg"]
HEADER = ("path", "coarse", "mid", "fine", "split")
WORDS = st.sampled_from(["a", "b", "-", "", " ", 'x "y"', "é", "3.0", "a,b", "=1+1", "two\nlines"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table") / "root"
    (folder / "sub").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_bytes(name.encode())
    (folder.parent / "secret.jpg").write_bytes(b"secret")
    (folder / "out").symlink_to(folder.parent)
    (folder / "out.jpg").symlink_to(folder.parent / "secret.jpg")
    (folder / "in.jpg").symlink_to("sub/3.jpg")
    (folder / "round").symlink_to(folder)
    (folder / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(folder / "pipe.jpg")
    return folder


def records(root: Path, content: bytes) -> tuple[list[Record], list[bytes]]:
    (root / "t.csv").write_bytes(content)
    source = open_source(DataConfig(source="csv", root=str(root), table="t.csv"))
    found = source.catalogue().records
    return found, [source.read(i) for i in range(len(found))]


def records_or_refusal(root: Path, content: bytes) -> tuple[list[Record], list[bytes], str]:
    """(records, their images, "") or (nothing, nothing, the refusal)."""
    try:
        return *records(root, content), ""
    except NstudentError as error:
        return [], [], str(error)


def written(rows: list[tuple[str, ...]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([HEADER, *rows])
    return buffer.getvalue().encode()


ROWS = st.lists(
    st.tuples(st.sampled_from(NAMES), WORDS, WORDS, WORDS, st.sampled_from(["", *SPLITS])),
    min_size=1,
    max_size=6,
    unique_by=lambda row: row[0],
)


@given(ROWS)
def test_a_written_table_is_read_as_it_was_meant(root: Path, rows: list[tuple[str, ...]]) -> None:
    found, contents = records(root, written(rows))

    assert [(r.name, r.label, r.split) for r in found] == [
        (name, tuple(entry.strip() for entry in label), split or None) for name, *label, split in rows
    ]
    assert contents == [name.encode() for name, *_ in rows]


@given(ROWS, st.data())
def test_a_damaged_table_gives_records_of_its_own_cells_or_an_error(
    root: Path, rows: list[tuple[str, ...]], data: st.DataObject
) -> None:
    content = bytearray(written(rows))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        piece = data.draw(st.one_of(st.binary(max_size=3), st.sampled_from([b'"', b",", b"\n", b"\r", b"\0", b"../"])))
        content[at : at + data.draw(st.integers(0, 3))] = piece
    found, contents, refusal = records_or_refusal(root, bytes(content))

    assert bool(found) != bool(refusal)
    assert "\n" not in refusal
    # Quotes aside: a damaged cell may keep those that were to enclose it or to double another.
    plain = content.decode("utf-8-sig", "replace").replace('"', "")
    for record, image in zip(found, contents, strict=True):
        assert image in {name.encode() for name in NAMES}
        assert len(record.label) == 3
        assert all(entry.replace('"', "") in plain for entry in record.label)


OUTSIDE = "..", "~", "out", "out.jpg", "secret.jpg", "http:", "file:", "C:", "\\", "dev", "zero"
ODD = ".", "", "loop.jpg", "pipe.jpg", "\0", "x" * 300, "\u0301", "\ufeff"
PARTS = st.sampled_from(["sub", "round", "1.jpg", "3.jpg", "in.jpg", *OUTSIDE, *ODD])


@given(st.lists(PARTS, min_size=1, max_size=5).map("/".join))
@example("/dev/zero")
@example("sub/../../secret.jpg")
@example("round/round/out/secret.jpg")
@example("/".join(["round"] * 60) + "/1.jpg")
@example("x/" * 3000 + "1.jpg")
@example("file:///etc/passwd")
@example("~/1.jpg")
@example("out.jpg")
@example("sub/../out.jpg")
@example("out/secret.jpg")
def test_a_path_names_a_file_below_the_root_or_is_refused_with_its_line(root: Path, path: str) -> None:
    found, contents, refusal = records_or_refusal(root, written([(path, "a", "b", "c", "")]))

    if refusal:
        assert "t.csv line 2: " in refusal
        assert "\n" not in refusal
        return
    # Every folder on the way is below the root; the file itself may be a link, as in the folder of a data-set cache.
    where = os.path.realpath((root / path.strip()).parent)
    assert f"{where}{os.sep}".startswith(f"{os.path.realpath(root)}{os.sep}")
    assert [record.name for record in found] == [path.strip()]
    assert contents[0] in {*(name.encode() for name in NAMES), b"secret"}
    assert (contents[0] == b"secret") == (os.path.basename(path.strip()) == "out.jpg")
