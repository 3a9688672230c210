"""Packed images: encoded bytes end to end in one data set, with offsets, names, labels and splits beside them.

jpeg    uint8 (bytes,)          encoded images end to end (any format that decode() reads)
offset  int64 (images + 1,)     image i is jpeg[offset[i]:offset[i + 1]]
label   int   (images, levels)  class index per level; -1 absent, -2 unknown
split   int8  (images,)         0 train, 1 validation, 2 test, 3 unlabelled
name    bytes (images,)         optional
attribute meta                  JSON: {"levels": [[class names of the coarsest level], ...]}
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from nstudent.config.schema import DataConfig
from nstudent.data.sources.seen import Seen, seen_files
from nstudent.data.sources.source import SPLITS, Catalogue, Label, Record, existing, levels_of, printable
from nstudent.errors import ArtifactError, DataError
from nstudent.storage.hdf5 import Array, attributes, mapped
from nstudent.taxonomy.reading import ABSENT_ENTRY, UNKNOWN_ENTRY, is_name
from nstudent.taxonomy.spelling import spelled
from nstudent.taxonomy.tree import ABSENT, UNKNOWN

Row = tuple[int, ...]
"""Class index per level; -1 absent, -2 unknown."""
_LAYOUT = {"jpeg": ("u", 1), "offset": ("iu", 1), "label": ("i", 2), "split": ("iu", 1), "name": ("S", 1)}
"""Kind of number (numpy's letter) and dimensions of each data set; only ``name`` may be missing."""


class Packed:
    """Images in one HDF5 file."""

    encoded = True

    def __init__(self, path: Path, levels: tuple[str, ...] | None) -> None:
        self._path = path
        self._levels = levels
        self._arrays: dict[str, Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Another process opens its own map: pickling one would copy the whole file.
        return self.__dict__ | {"_arrays": {}}

    def seen(self) -> Seen:
        """Name, size and time of change of the file."""
        return seen_files((self._path.parent, [self._path.name]))

    def catalogue(self) -> Catalogue:
        """Every image, with its label spelled in class names.

        Raises:
            DataError: The file holds something else than its layout says, or names a class twice.
        """
        classes = self._class_names()
        self._arrays = mapped(self._path)
        self._check(classes)
        label, split = self._arrays["label"].tolist(), self._arrays["split"].tolist()
        names = [f"image-{i:07d}" for i in range(len(label))]
        if "name" in self._arrays:
            names = [name.decode("utf-8", "replace") for name in self._arrays["name"].tolist()]
        entries = self._spelled_rows(label, classes)
        records = [
            Record(name, entries[tuple(row)], SPLITS[part]) for name, row, part in zip(names, label, split, strict=True)
        ]
        levels = levels_of(self._levels, len(classes), f"the attribute 'meta' of {self._path}")
        return Catalogue(records, levels)

    def may_have_heap(self) -> bool:
        """Whether the split of an image says so, or it has no class at any level."""
        with suppress(ArtifactError, KeyError, ValueError, TypeError):
            arrays = mapped(self._path)
            heap = arrays["split"] == SPLITS.index("unlabelled")
            return bool(heap.any() or (arrays["label"] == UNKNOWN).all(axis=1).any())
        return True

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
        if self._levels is not None and len(levels) != len(self._levels):
            raise DataError(f"{self._path} has {len(levels)} levels, data.levels names {len(self._levels)}")
        for level, names in enumerate(levels):
            nameless = next((number for number, name in enumerate(names) if not is_name(spelled(name))), None)
            if nameless is not None:
                raise DataError(
                    f"{self._path}: class {nameless} of level {level} is called '{printable(names[nameless])}', which "
                    "means absent or unknown: give it a name"
                )
        return [list(names) for names in levels]

    def _spelled_rows(self, label: list[list[int]], classes: list[list[str]]) -> dict[Row, Label]:
        """Each row of numbers as names. Two rows of the same names would make one class of two.

        A name may stand twice in the list of a level, for classes with different parents.
        """
        rows = dict.fromkeys(map(tuple, label))
        first: dict[Label, Row] = {}
        for row in rows:
            names = tuple(map(spelled, _entries(row, classes)))
            for depth in range(1, len(row) + 1):
                before = first.setdefault(names[:depth], row[:depth])
                if before != row[:depth]:
                    raise DataError(
                        f"{self._path}: classes {before[-1]} and {row[depth - 1]} of level {depth - 1} are both called "
                        f"'{printable(names[depth - 1])}' below the same parents: give each a name of its own"
                    )
        return {row: _entries(row, classes) for row in rows}

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


def _entries(row: Row, names: list[list[str]]) -> tuple[str, ...]:
    special = {ABSENT: ABSENT_ENTRY, UNKNOWN: UNKNOWN_ENTRY}
    return tuple(special[c] if c < 0 else level[c] for c, level in zip(row, names, strict=True))


def open_source(config: DataConfig) -> Packed:
    """Check that the file is there."""
    return Packed(existing(config.root, "data.root"), config.levels)
