"""Packed images in one HDF5 file, which may come from anybody: what it claims is checked before it is believed."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from nstudent.config.schema import DataConfig
from nstudent.data.sources import open_source
from nstudent.data.sources.source import Source
from nstudent.errors import NstudentError

BLOBS = [b"first", b"second image", b"", b"fourth"]
LEVELS = [["cat", "dog"], ["husky", "poodle", "siamese"]]


def packed(path: Path, **changed: Any) -> Path:
    """A valid file, but for what is ``changed`` (``None``: left out)."""
    content = {
        "jpeg": np.frombuffer(b"".join(BLOBS), np.uint8),
        "offset": np.cumsum([0, *map(len, BLOBS)]),
        "label": np.array([[0, 2], [1, 0], [1, -1], [-2, -2]], dtype=np.int16),
        "split": np.array([0, 1, 2, 3], dtype=np.int8),
        "name": np.array([b"one", "고양이".encode(), b"bad\xff", b"four"]),
    } | changed
    meta = content.pop("meta", json.dumps({"levels": LEVELS}))
    with h5py.File(path, "w") as file:
        for name, array in content.items():
            if array is not None:
                file[name] = array
        if meta is not None:
            file.attrs["meta"] = meta
    return path


def opened(path: Path, levels: tuple[str, ...] = ("coarse", "fine")) -> Source:
    return open_source(DataConfig(source="hdf5", root=str(path), levels=levels))


def test_a_valid_file_is_read(tmp_path: Path) -> None:
    source = opened(packed(tmp_path / "data.h5"))

    assert [(r.name, r.label, r.split) for r in source.catalogue().records] == [
        ("one", ("cat", "siamese"), "train"),
        ("고양이", ("dog", "husky"), "validation"),
        ("bad\ufffd", ("dog", "-"), "test"),
        ("four", ("", ""), "unlabelled"),
    ]
    assert [source.read(i) for i in range(4)] == BLOBS


def test_names_are_made_where_there_are_none(tmp_path: Path) -> None:
    records = opened(packed(tmp_path / "data.h5", name=None)).catalogue().records

    assert [record.name for record in records] == [f"image-000000{i}" for i in range(4)]


def test_the_stamp_changes_with_the_file(tmp_path: Path) -> None:
    before = opened(packed(tmp_path / "data.h5")).seen().stamp
    packed(tmp_path / "data.h5", split=np.zeros(4, np.int8), more=np.zeros(1000))

    assert opened(tmp_path / "data.h5").seen().stamp != before


BROKEN = {
    "offset beyond the data": {"offset": np.array([0, 5, 17, 17, 10_000])},
    "negative offset": {"offset": np.array([-1, 5, 17, 17, 23])},
    "falling offset": {"offset": np.array([0, 17, 5, 17, 23])},
    "falling unsigned offset": {"offset": np.array([0, 17, 5, 17, 23], dtype=np.uint64)},
    "too few offsets": {"offset": np.array([0, 5, 17])},
    "no offset": {"offset": np.array([], dtype=np.int64)},
    "offset of fractions": {"offset": np.array([0, 5.5, 17, 17, 23])},
    "offset of two dimensions": {"offset": np.zeros((5, 1), np.int64)},
    "class without a name": {"label": np.array([[0, 3], [1, 0], [1, -1], [-2, -2]])},
    "label below unknown": {"label": np.array([[0, -3], [1, 0], [1, -1], [-2, -2]])},
    "label of fractions": {"label": np.full((4, 2), 0.5)},
    "label of one level": {"label": np.zeros((4, 1), np.int64)},
    "split without a name": {"split": np.array([0, 1, 2, 4])},
    "too few splits": {"split": np.zeros(3, np.int8)},
    "too few names": {"name": np.array([b"one"])},
    "names that are numbers": {"name": np.arange(4)},
    "jpeg of words": {"jpeg": np.zeros(23, np.uint16)},
    "no data set jpeg": {"jpeg": None},
    "no data set label": {"label": None},
    "no attribute meta": {"meta": None},
    "meta is no JSON": {"meta": "{levels"},
    "meta is a number": {"meta": 3},
    "levels are a number": {"meta": '{"levels": 2}'},
    "levels are numbers": {"meta": '{"levels": [2, 3]}'},
    "class names are numbers": {"meta": '{"levels": [[1, 2], [3, 4, 5]]}'},
    "another number of levels": {"meta": json.dumps({"levels": LEVELS[:1]})},
    "no image": {
        "jpeg": np.zeros(0, np.uint8),
        "offset": np.zeros(1, np.int64),
        "label": np.zeros((0, 2), np.int64),
        "split": np.zeros(0, np.int8),
        "name": None,
    },
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / "data.h5", **BROKEN[name])

    with pytest.raises(NstudentError, match=r"data\.h5"):
        opened(path).catalogue()


def test_the_configuration_must_name_as_many_levels(tmp_path: Path) -> None:
    with pytest.raises(NstudentError, match=r"2 levels, data\.levels names 3"):
        opened(packed(tmp_path / "data.h5"), levels=("a", "b", "c")).catalogue()


def test_a_missing_file_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(NstudentError, match=r"data\.root"):
        opened(tmp_path / "gone.h5")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NstudentError):
        opened(tmp_path).catalogue()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x89HDF\r\n\x1a\n" + b"\0" * 100])
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.h5").write_bytes(content)

    with pytest.raises(NstudentError, match=r"data\.h5"):
        opened(tmp_path / "data.h5").catalogue()


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    content = packed(tmp_path / "data.h5").read_bytes()
    (tmp_path / "data.h5").write_bytes(content[: len(content) // 2])

    with pytest.raises(NstudentError, match=r"data\.h5"):
        opened(tmp_path / "data.h5").catalogue()


# --- levels and names of classes --------------------------------------------------------------------------------------


def test_levels_follow_from_the_lists_of_classes(tmp_path: Path) -> None:
    source = open_source(DataConfig(source="hdf5", root=str(packed(tmp_path / "data.h5"))))

    assert source.catalogue().levels == ("coarse", "fine")


@pytest.mark.parametrize("name", ["", " ", "-", "–", "\u200b"])
def test_a_class_without_a_name_is_refused(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / "data.h5", meta=json.dumps({"levels": [["cat", "dog"], ["husky", name, "siamese"]]}))

    with pytest.raises(NstudentError, match=r"class 1 of level 1 is called .* absent or unknown: give it a name"):
        opened(path).catalogue()


@pytest.mark.parametrize("twin", ["cat", " cat", "cat\u00a0", '"cat"'])
def test_two_classes_of_one_name_are_not_made_one(tmp_path: Path, twin: str) -> None:
    meta = json.dumps({"levels": [["cat", twin], LEVELS[1]]})

    with pytest.raises(NstudentError, match="classes 0 and 1 of level 0 are both called 'cat' below the same parents"):
        opened(packed(tmp_path / "data.h5", meta=meta)).catalogue()


def test_two_classes_of_one_name_below_one_parent_are_not_made_one(tmp_path: Path) -> None:
    meta = json.dumps({"levels": [["cat", "dog"], ["husky", "poodle", "poodle"]]})
    label = np.array([[1, 1], [1, 2], [0, -1], [-2, -2]], dtype=np.int16)

    with pytest.raises(NstudentError, match="classes 1 and 2 of level 1 are both called 'poodle'"):
        opened(packed(tmp_path / "data.h5", meta=meta, label=label)).catalogue()


def test_one_name_below_two_parents_is_two_classes(tmp_path: Path) -> None:
    meta = json.dumps({"levels": [["cat", "dog"], ["other", "other", "siamese"]]})
    label = np.array([[0, 0], [1, 1], [0, 2], [-2, -2]], dtype=np.int16)

    records = opened(packed(tmp_path / "data.h5", meta=meta, label=label)).catalogue().records

    assert [record.label for record in records[:2]] == [("cat", "other"), ("dog", "other")]
