"""The MNIST family's files: ``train-images-idx3-ubyte`` and its three companions, plain or gzipped."""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nstudent.config.schema import DataConfig
from nstudent.data.sources.seen import Seen, seen_files
from nstudent.data.sources.source import Catalogue, Label, Record, Split, existing, levels_of, printable
from nstudent.errors import DataError
from nstudent.taxonomy.reading import ABSENT_ENTRY
from nstudent.taxonomy.spelling import spelled

_FILES: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("t10k", "test")}
"""How the names of the files of a split begin; the first is that of MNIST."""
_MAX_BYTES = 4 << 30


class Idx:
    """Images and integer classes in IDX files; the official test images are the test split."""

    encoded = False

    def __init__(self, root: Path, class_paths: tuple[str, ...], levels: tuple[str, ...]) -> None:
        self._root = root
        self._levels = levels
        self._labels = [_padded(path, len(levels)) for path in class_paths]
        self._images: list[npt.NDArray[np.uint8]] = []

    def seen(self) -> Seen:
        """Names, sizes and times of change of the four files."""
        files = [_find(self._root, split, kind) for split in _FILES for kind in ("images", "labels")]
        return seen_files((self._root, [path.name for path in files]))

    def catalogue(self) -> Catalogue:
        """Training images, then test images.

        Raises:
            DataError: A file is missing or damaged, the numbers of images and labels differ, or a class is not among
                ``data.class_paths``.
        """
        self._images = []
        records = []
        for split, (prefix, *_) in _FILES.items():
            images = _read(_find(self._root, split, "images"), dimensions=3)
            classes = _read(_find(self._root, split, "labels"), dimensions=1)
            if len(images) != len(classes):
                raise DataError(f"{self._root}: {len(images)} {prefix} images and {len(classes)} labels")
            if int(classes.max(initial=0)) >= len(self._labels):
                raise DataError(
                    f"{self._root}: class {classes.max()} is not among the {len(self._labels)} of data.class_paths"
                )
            self._images.extend(images)
            records += [Record(f"{split}-{i:06d}", self._labels[c], split) for i, c in enumerate(classes)]
        return Catalogue(records, self._levels, notes=self._merged())

    def may_have_heap(self) -> bool:
        """Never: each image has a number."""
        return False

    def _merged(self) -> tuple[str, ...]:
        numbers: dict[Label, list[str]] = {}
        for number, label in enumerate(self._labels):
            numbers.setdefault(label, []).append(str(number))
        several = [f"{', '.join(each)}" for each in numbers.values() if len(each) > 1]
        return (f"numbers that data.class_paths makes one class: {'; '.join(several)}",) if several else ()

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        """Pixels, (height, width)."""
        return self._images[index]


def number_of_classes(root: Path) -> int:
    """One more than the largest number among the labels of a folder of IDX files.

    Raises:
        DataError: A file of labels is missing or damaged.
    """
    return 1 + max(int(_read(_find(root, split, "labels"), dimensions=1).max(initial=0)) for split in _FILES)


def _padded(path: str, num_levels: int) -> tuple[str, ...]:
    names = tuple(map(spelled, path.split("/")))
    if len(names) > num_levels or not all(names):
        raise DataError(f"data.class_paths: '{path}' does not fit {num_levels} levels")
    return names + (ABSENT_ENTRY,) * (num_levels - len(names))


def _find(root: Path, split: Split, kind: str) -> Path:
    """The file of a split, also with a point for a hyphen, or with the name of a data set before it as in EMNIST."""
    words = "|".join(_FILES[split])
    name = re.compile(rf"(?:.*-)?(?:{words})-{kind}[-.]idx\d-ubyte(?:\.gz)?")
    found = sorted(path for path in root.iterdir() if name.fullmatch(path.name) and path.is_file())
    if not found:
        raise DataError(f"data.root: {printable(root)} holds no {_FILES[split][0]}-{kind}-idx*-ubyte[.gz]")
    several = {path.name.removesuffix(".gz") for path in found}
    if len(several) > 1:
        raise DataError(
            f"data.root: {printable(root)} holds several of {split} {kind} ({', '.join(sorted(several)[:3])}): "
            "keep those of one data set there"
        )
    return found[0]


def _read(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read(_MAX_BYTES)
        zero, kind, found = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{found}I", content[4 : 4 + 4 * found])
    except (OSError, struct.error, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a readable IDX file: {error}") from error
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * found)
    if (zero, kind, found) != (0, 8, dimensions) or values.size != math.prod(shape):
        raise DataError(f"{path} is not an IDX file of {dimensions} dimensions of bytes, or is cut off")
    return values.reshape(shape)


def open_source(config: DataConfig) -> Idx:
    """Check that the folder is there."""
    root = existing(config.root, "data.root", folder=True)
    assert config.class_paths is not None, "the configuration demands it"
    deepest = max((path.count("/") + 1 for path in config.class_paths), default=0)
    return Idx(root, config.class_paths, levels_of(config.levels, deepest, "the deepest of data.class_paths"))
