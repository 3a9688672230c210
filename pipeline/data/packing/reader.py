"""One image of a source as a square, or why there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from nstudent.data.decode import TOO_MUCH_MEMORY, Pixels, decode, square
from nstudent.data.packing.jpeg_shards import encode
from nstudent.errors import ImageError

CHANGED = "its content has changed"
"""Why an image is not decoded that is not what it was."""
_NO_DIGEST = bytes(32)
"""Digest of an image that could not even be read, or not without ending its process."""

Item = TypeVar("Item")
"""What names an image: its number in a source, or an image that is yet to be read."""
Named = TypeVar("Named", contravariant=True)


class Readable(Protocol[Named]):
    """Where images are read from, such as a source."""

    @property
    def encoded(self) -> bool:
        """Whether images are files to decode, and not pixels."""

    def read(self, index: Named, /) -> bytes | npt.NDArray[np.uint8]:
        """As ``Source.read``."""


@dataclass(frozen=True)
class Decoded:
    """One image, or why there is none."""

    pixels: Pixels | None
    """uint8 (side, side, 3), or (0, side, 3) where nothing is kept of it; also ``None`` where it is encoded."""
    digest: bytes = _NO_DIGEST
    """sha256 of the content."""
    reason: str = ""
    jpeg: bytes = b""
    """The square as JPEG, where that was asked for."""

    @property
    def readable(self) -> bool:
        """Whether there is an image."""
        return self.pixels is not None or bool(self.jpeg)


@dataclass(frozen=True)
class Reader(Generic[Item]):
    """Reads images of one source as squares of one size."""

    source: Readable[Item]
    size_px: int
    max_pixels: int
    bits: int | None = None
    """As ``data.bits``."""
    jpeg_quality: int | None = None
    """Squares are encoded with it; ``None``: they stay pixels."""
    keeps: bool = True
    """``False``: of a square that could be decoded no row is kept."""
    known: Callable[[Item], bytes] | None = None
    """Digest of what an image has to hold: other content is not decoded. ``None``: whatever is there is."""
    endless_is_unreadable: bool = False
    """Whether an image whose decoder does not end is one that cannot be read. ``False``: it is an error, for a run
    without the image would be another one."""

    def __call__(self, ids: Iterable[Item]) -> list[Decoded]:
        """Images by id."""
        return [self._read(image) for image in ids]

    def _read(self, image: Item) -> Decoded:
        digest = _NO_DIGEST
        try:
            content = self.source.read(image)
            digest = hashlib.sha256(content if isinstance(content, bytes) else content.tobytes()).digest()
            if self.known is not None and digest != self.known(image):
                return Decoded(None, digest, CHANGED)
            if isinstance(content, bytes):
                pixels = decode(content, self.size_px, self.max_pixels, self.bits)
            else:
                pixels = square(content, self.size_px)
            if not self.keeps:
                return Decoded(pixels[:0].copy(), digest)
            if self.jpeg_quality is None:
                return Decoded(pixels, digest)
            # Here, and not where it is written: this is done by several processes.
            return Decoded(None, digest, jpeg=encode(pixels, self.jpeg_quality))
        except ImageError as error:
            return Decoded(None, digest, str(error))
        except MemoryError:
            return Decoded(None, digest, TOO_MUCH_MEMORY)
