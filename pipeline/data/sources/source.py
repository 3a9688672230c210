"""The interface between the data set and the places images come from."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from nstudent.config.data import USUAL_LEVELS
from nstudent.data.sources.listing import PassedOver
from nstudent.data.sources.seen import Seen
from nstudent.errors import DataError, ImageError, LevelsError

Split = Literal["train", "validation", "test", "unlabelled"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "unlabelled")
Label = tuple[str, ...]
"""One entry per level: a class name, ``-`` (absent) or empty (unknown)."""

MAX_IMAGE_BYTES = 512 << 20
"""A larger file is no image, and read by nobody: a sparse one of any size costs whoever sends it nothing."""
_PAUSES_SECONDS = (0.05, 0.1, 0.2)
"""A share that hiccups is waited for: so long before each further try to read a file."""


@dataclass(frozen=True, slots=True)
class Record:
    """One image as its source knows it, before any of it is decoded."""

    name: str
    """Unique in the source; a path below the root where there is one."""
    label: Label
    split: Split | None = None
    """``None`` where the source leaves the division to us."""


@dataclass(frozen=True)
class Catalogue:
    """Every image of a source with its label, and what the source did not take."""

    records: list[Record]
    """In an order that depends on nothing but the data."""
    levels: tuple[str, ...]
    """Names of the levels, coarse first: those of the configuration, or as they follow from the data."""
    passed_over: tuple[PassedOver, ...] = ()
    """Files below the folders of the source that are none of its images."""
    notes: tuple[str, ...] = ()
    """What a person should know of how the source was understood, a line each."""


class Source(Protocol):
    """A finite, ordered collection of images."""

    encoded: bool
    """Whether images are files to decode, and not pixels."""

    def seen(self) -> Seen:
        """What it looks like on disk: exactly the files that it reads, none of them opened but small tables."""

    def catalogue(self) -> Catalogue:
        """What it holds, with labels as they are written there."""

    def read(self, index: int) -> bytes | npt.NDArray[np.uint8]:
        """Encoded bytes of an image, or its pixels: (height, width) or (height, width, 3).

        Raises:
            ImageError: this image cannot be read; the others may be.
            DataError: the whole source is gone.
        """


@runtime_checkable
class KnowsHeap(Protocol):
    """A source that knows without listing itself whether any of its images may be unlabelled."""

    def may_have_heap(self) -> bool:
        """Whether that can be; ``False`` is certain. What cannot be read is for ``catalogue`` to say: ``True``."""


def levels_of(named: tuple[str, ...] | None, depth: int, what: str) -> tuple[str, ...]:
    """Names of the levels of a source: those that the configuration gives, or the usual ones of their number.

    Args:
        named: ``data.levels``.
        depth: Number of levels that the data has.
        what: What has so many levels, for the error.

    Raises:
        LevelsError: There are more levels than have usual names, or none.
    """
    if named is not None:
        return named
    if not 1 <= depth <= len(USUAL_LEVELS):
        raise LevelsError(f"{what} has {depth} levels: name them, coarse first, data.levels=[...]", depth)
    return USUAL_LEVELS[depth - 1]


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
        # A shell writes out what it stands for, but not behind a key with a dot.
        mend = "write out what ~ stands for" if str(path).startswith("~") else "correct the path or mount the disk"
        raise DataError(f"{key}: there is no {kind} {printable(path)}: {mend}")
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
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_IMAGE_BYTES:
            raise ImageError(f"{size:,} bytes are too many for an image")
        # No more than its size says: files of the system, to which a link may lead, have none and give bytes for ever.
        return file.read(size)


@contextmanager
def open_file(path: str | Path) -> Iterator[BufferedReader]:
    """Open a file to read it, and nothing that only looks like one.

    Raises:
        ImageError: it is a pipe or a device.
        OSError: it cannot be opened.
    """
    # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ImageError("not a file but a pipe or a device")
        yield file


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
