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
from typing import Any

import numpy as np
from nstudent.config.schema import DataConfig
from nstudent.data.sources.source import SPLITS, Record, existing, stamp_files
from nstudent.errors import DataError
from nstudent.storage.hdf5 import Array, attributes, mapped
from nstudent.taxonomy.reading import ABSENT_ENTRY, UNKNOWN_ENTRY
from nstudent.taxonomy.tree import ABSENT, UNKNOWN

_LAYOUT = {"jpeg": ("u", 1), "offset": ("iu", 1), "label": ("i", 2), "split": ("iu", 1), "name": ("S", 1)}
"""Kind of number (numpy's letter) and dimensions of each data set; only ``name`` may be missing."""


class Packed:
    """Images in one HDF5 file."""

    encoded = True

    def __init__(self, path: Path, num_levels: int) -> None:
        self._path = path
        self._num_levels = num_levels
        self._arrays: dict[str, Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Another process opens its own map: pickling one would copy the whole file.
        return self.__dict__ | {"_arrays": {}}

    def stamp(self) -> str:
        """Name, size and time of change of the file."""
        return stamp_files(self._path.parent, [self._path])

    def records(self) -> list[Record]:
        """Every image, with its label spelled in class names."""
        classes = self._class_names()
        self._arrays = mapped(self._path)
        self._check(classes)
        label, split = self._arrays["label"].tolist(), self._arrays["split"].tolist()
        names = [f"image-{i:07d}" for i in range(len(label))]
        if "name" in self._arrays:
            names = [name.decode("utf-8", "replace") for name in self._arrays["name"].tolist()]
        return [
            Record(name, _entries(row, classes), SPLITS[part])
            for name, row, part in zip(names, label, split, strict=True)
        ]

    def read(self, index: int) -> bytes:
        """Encoded bytes."""
        self._arrays = self._arrays or mapped(self._path)
        start, stop = self._arrays["offset"][index : index + 2]
        content: bytes = self._arrays["jpeg"][start:stop].tobytes()
        return content

    def _class_names(self) -> list[list[str]]:
        try:
            levels: Any = json.loads(attributes(self._path)["meta"])["levels"]
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{self._path} has no class names in its attribute 'meta': see docs/DATA.md") from error
        well_formed = isinstance(levels, list) and all(
            isinstance(names, list) and all(isinstance(name, str) for name in names) for names in levels
        )
        if not well_formed:
            raise DataError(f"{self._path}: 'levels' in its attribute 'meta' is not one list of names a level")
        if len(levels) != self._num_levels:
            raise DataError(f"{self._path} has {len(levels)} levels, data.levels names {self._num_levels}")
        return [list(names) for names in levels]

    def _check(self, classes: list[list[str]]) -> None:
        for name, (kinds, dimensions) in _LAYOUT.items():
            array = self._arrays.get(name)
            if array is None and name != "name":
                raise DataError(f"{self._path} has no data set '{name}': see docs/DATA.md")
            if array is not None and (array.dtype.kind not in kinds or array.ndim != dimensions):
                raise DataError(f"{self._path}: '{name}' has the wrong type or shape: see docs/DATA.md")
        if self._arrays["jpeg"].dtype != np.uint8:
            raise DataError(f"{self._path}: 'jpeg' does not hold bytes (uint8): see docs/DATA.md")
        offset, label, split = (self._arrays[name] for name in ("offset", "label", "split"))
        num_images = len(offset) - 1
        if num_images < 1:
            raise DataError(f"{self._path} holds no image")
        names = self._arrays.get("name", split)
        if label.shape != (num_images, len(classes)) or len(split) != num_images or len(names) != num_images:
            raise DataError(f"{self._path}: offset, label, split and name tell different numbers of images or levels")
        if (offset[1:] < offset[:-1]).any() or offset[0] < 0 or offset[-1] > len(self._arrays["jpeg"]):
            raise DataError(f"{self._path}: offset points out of jpeg")
        too_large = label.max(axis=0) >= [len(level) for level in classes]
        if too_large.any() or label.min() < UNKNOWN or not np.isin(split, range(len(SPLITS))).all():
            raise DataError(f"{self._path}: label or split holds a number that names nothing")


def _entries(row: list[int], names: list[list[str]]) -> tuple[str, ...]:
    special = {ABSENT: ABSENT_ENTRY, UNKNOWN: UNKNOWN_ENTRY}
    return tuple(special[c] if c < 0 else level[c] for c, level in zip(row, names, strict=True))


def open_source(config: DataConfig) -> Packed:
    """Check that the file is there."""
    return Packed(existing(config.root, "data.root"), len(config.levels))
