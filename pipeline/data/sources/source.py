"""The interface between the data set and the places images come from."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from nstudent.errors import DataError

Split = Literal["train", "validation", "test", "unlabelled"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "unlabelled")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})


@dataclass(frozen=True)
class Record:
    """One image as its source knows it, before any of it is decoded."""

    name: str
    """Unique in the source; a path below the root where there is one."""
    label: tuple[str, ...]
    """One entry per level: a class name, ``-`` (absent) or empty (unknown)."""
    split: Split | None = None
    """``None`` where the source leaves the division to us."""


class Source(Protocol):
    """A finite, ordered collection of images."""

    def stamp(self) -> str:
        """A cheap identity of what lies on disk."""

    def records(self) -> list[Record]:
        """Every image, in an order that depends on nothing but the data."""

    def read(self, index: int) -> bytes | npt.NDArray[np.uint8]:
        """Encoded bytes of an image, or its pixels: (height, width) or (height, width, 3)."""


def stamp_files(root: Path, files: Iterable[Path]) -> str:
    """Hash of names, sizes and times of change: a stat a file, no content is read."""
    digest = hashlib.sha256()
    for path in sorted(files):
        stat = path.stat()
        line = f"{path.relative_to(root).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def images_below(root: Path) -> list[Path]:
    """Image files at any depth, sorted; hidden files and folders are left out."""
    found = [
        path
        for path in root.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    ]
    return sorted(found)


def existing(path: str | None, key: str, *, folder: bool = False) -> Path:
    """The path, checked to be there; ``key`` names the configuration key in the error."""
    found = Path(path or "")
    if path is None or not (found.is_dir() if folder else found.is_file()):
        raise DataError(
            f"{key}: there is no {'folder' if folder else 'file'} {path}: correct the path or mount the disk"
        )
    return found


def read_file(path: Path) -> bytes:
    """Content of one image file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
