"""The interface between the data set and the places images come from."""

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from nstudent.errors import DataError, ImageError

Split = Literal["train", "validation", "test", "unlabelled"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "unlabelled")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})

_MAX_FILE_BYTES = 512 << 20
_PAUSES_SECONDS = (0.05, 0.1, 0.2)
"""A share that hiccups is waited for: so long before each further try to read a file."""


@dataclass(frozen=True, slots=True)
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

    encoded: bool
    """Whether images are files to decode, and not pixels."""

    def stamp(self) -> str:
        """A cheap identity of what lies on disk."""

    def records(self) -> list[Record]:
        """Every image, in an order that depends on nothing but the data."""

    def read(self, index: int) -> bytes | npt.NDArray[np.uint8]:
        """Encoded bytes of an image, or its pixels: (height, width) or (height, width, 3).

        Raises:
            ImageError: this image cannot be read; the others may be.
            DataError: the whole source is gone.
        """


def stamp_files(root: Path, files: Iterable[Path]) -> str:
    """Hash of names, sizes and times of change: a stat a file, no content is read."""
    digest = hashlib.sha256()
    for path in sorted(files):
        try:
            found = path.stat()
            seen = f"{found.st_size}\0{found.st_mtime_ns}"
        except OSError:
            seen = "a link to nothing"
        line = f"{path.relative_to(root).as_posix()}\0{seen}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def images_below(root: Path) -> list[Path]:
    """What is named like an image, at any depth, sorted. Hidden files and folders are left out.

    Whether it is one is seen when it is read: a pipe or a dead link of that name is quarantined, not passed over.

    Raises:
        DataError: a folder cannot be listed.
    """
    found = [Path(folder, name) for folder, _, names in _walk(root) for name in names]
    return sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != ".")


def refuse_linked_folders(root: Path) -> None:
    """Links to folders are not followed, for they can lead in a circle; what lies behind one would be lost in silence.

    Raises:
        DataError: there is one below ``root``.
    """
    for folder, names, _ in _walk(root):
        for name in names:
            link = Path(folder, name)
            if link.is_symlink():
                raise DataError(
                    f"{printable(link)} is a link to a folder, and not followed: put the folder itself there"
                )


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """(folder, names of its folders, names of all else), below a root. Links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot list the folder {printable(error.filename)}: {error.strerror}") from error

    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        yield folder, folders, files


def existing(path: str | None, key: str, *, folder: bool = False) -> Path:
    """The path, checked to be there; ``key`` names the configuration key in the error.

    Raises:
        DataError: There is no such file, or with ``folder`` no such folder.
    """
    found = Path(path or "")
    try:
        there = path is not None and (found.is_dir() if folder else found.is_file())
    except OSError:  # a name that is too long, or a folder that may not be entered
        there = False
    if not there:
        kind = "folder" if folder else "file"
        raise DataError(f"{key}: there is no {kind} {printable(path)}: correct the path or mount the disk")
    return found


def read_file(path: str | Path, root: Path) -> bytes:
    """Content of one image file; tried again where the disk stumbles.

    Raises:
        ImageError: it is gone, is no file, or cannot be read. The text holds no path: it goes into an artifact.
        DataError: ``root`` itself is gone, and with it all other files.
    """
    for pause in (*_PAUSES_SECONDS, None):
        try:
            return read_once(path)
        except OSError as error:
            if pause is None:
                _check_root(root)
                raise ImageError(f"cannot be read: {error.strerror}") from error
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def read_once(path: str | Path) -> bytes:
    """Content of one image file, at the first try.

    Raises:
        ImageError: it is a pipe or a device, or too large for an image.
        OSError: it cannot be read.
    """
    # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ImageError("not a file but a pipe or a device")
        if found.st_size > _MAX_FILE_BYTES:
            raise ImageError(f"{found.st_size:,} bytes are too many for an image")
        return file.read()


def _check_root(root: Path) -> None:
    """An unmounted share leaves nothing, or an empty folder."""
    try:
        with os.scandir(root) as entries:
            gone = next(entries, None) is None
    except OSError:
        gone = True
    if gone:
        raise DataError(f"{printable(root)} is gone or empty: mount it again, and run the same command")


def printable(name: object) -> str:
    """A name or path for a person's eyes: on one line, without control characters and in valid UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))
