"""Packed images: encoded bytes end to end in one data set, with offsets, names, labels and splits beside them.

jpeg    uint8 (bytes,)          encoded images end to end (any format that decode() reads)
offset  int64 (images + 1,)     image i is jpeg[offset[i]:offset[i + 1]]
label   int   (images, levels)  class index per level; -1 absent, -2 unknown
split   int8  (images,)         0 train, 1 validation, 2 test, 3 unlabelled
name    bytes (images,)         optional
attribute meta                  JSON: {"levels": [[class names of the coarsest level], ...]}
"""

import json
from pathlib import Path

import numpy as np
from nstudent.config import DataConfig
from nstudent.data.sources.source import SPLITS, Record, existing, stamp_files
from nstudent.errors import DataError
from nstudent.hdf5 import Array, attributes, mapped
from nstudent.taxonomy import ABSENT, ABSENT_ENTRY, UNKNOWN, UNKNOWN_ENTRY


class Packed:
    """Images in one HDF5 file."""

    def __init__(self, path: Path, num_levels: int) -> None:
        self._path = path
        self._num_levels = num_levels
        self._arrays: dict[str, Array] = {}

    def stamp(self) -> str:
        """Name, size and time of change of the file."""
        return stamp_files(self._path.parent, [self._path])

    def records(self) -> list[Record]:
        """Every image, with its label spelled in class names."""
        names_by_level = self._class_names()
        self._arrays = mapped(self._path)
        missing = {"jpeg", "offset", "label", "split"} - self._arrays.keys()
        if missing:
            raise DataError(f"{self._path} has no data set {', '.join(sorted(missing))}: see docs/DATA.md")
        label, split = self._arrays["label"], self._arrays["split"]
        self._check(label, split, names_by_level)
        names = self._arrays.get("name", np.array([f"image-{i:07d}".encode() for i in range(len(label))]))
        return [
            Record(name.decode("utf-8", "replace"), _entries(row, names_by_level), SPLITS[part])
            for name, row, part in zip(names.tolist(), label.tolist(), split.tolist(), strict=True)
        ]

    def read(self, index: int) -> bytes:
        """Encoded bytes."""
        start, stop = self._arrays["offset"][index : index + 2]
        content: bytes = self._arrays["jpeg"][start:stop].tobytes()
        return content

    def _class_names(self) -> list[list[str]]:
        try:
            levels: list[list[str]] = json.loads(attributes(self._path)["meta"])["levels"]
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{self._path} has no class names in its attribute 'meta': see docs/DATA.md") from error
        if len(levels) != self._num_levels:
            raise DataError(f"{self._path} has {len(levels)} levels, data.levels names {self._num_levels}")
        return levels

    def _check(self, label: Array, split: Array, names: list[list[str]]) -> None:
        offset = self._arrays["offset"]
        num_images = len(offset) - 1
        if label.shape != (num_images, len(names)) or split.shape != (num_images,):
            raise DataError(f"{self._path}: offset, label and split tell different numbers of images or levels")
        if (np.diff(offset) < 0).any() or offset[0] < 0 or offset[-1] > len(self._arrays["jpeg"]):
            raise DataError(f"{self._path}: offset points out of jpeg")
        too_large = label.max(axis=0) >= [len(level) for level in names]
        if too_large.any() or label.min() < UNKNOWN or not np.isin(split, range(len(SPLITS))).all():
            raise DataError(f"{self._path}: label or split holds a number that names nothing")


def _entries(row: list[int], names: list[list[str]]) -> tuple[str, ...]:
    special = {ABSENT: ABSENT_ENTRY, UNKNOWN: UNKNOWN_ENTRY}
    return tuple(special[c] if c < 0 else level[c] for c, level in zip(row, names, strict=True))


def open_source(config: DataConfig) -> Packed:
    """Check that the file is there."""
    return Packed(existing(config.root, "data.root"), len(config.levels))
