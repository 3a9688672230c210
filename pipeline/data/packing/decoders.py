"""Processes that read and decode images: what a damaged image does to a codec, it does there, and it is found out."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from types import TracebackType
from typing import Self

from nstudent.data.decode import Pixels, decode, square
from nstudent.data.packing.jpeg_shards import encode
from nstudent.data.sources import Source
from nstudent.errors import ImageError
from nstudent.machine import available_cores, serve_parent

CRASHED = "its decoder crashed"
"""Why an image is left out that ended the process which decoded it."""
_NO_DIGEST = bytes(32)
"""Digest of an image that could not even be read, or not without ending its process."""
_CHUNK = 16
"""Images a message between processes."""


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
class Reader:
    """Reads images of one source as squares of one size."""

    source: Source
    size_px: int
    max_pixels: int
    bits: int | None = None
    """As ``data.bits``."""
    jpeg_quality: int | None = None
    """Squares are encoded with it; ``None``: they stay pixels."""
    keeps: bool = True
    """``False``: of a square that could be decoded no row is kept."""

    def __call__(self, ids: Sequence[int]) -> list[Decoded]:
        """Images by id."""
        return [self._read(image) for image in ids]

    def _read(self, image: int) -> Decoded:
        digest = _NO_DIGEST
        try:
            content = self.source.read(image)
            digest = hashlib.sha256(content if isinstance(content, bytes) else content.tobytes()).digest()
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


def reading(reader: Reader) -> AbstractContextManager[Callable[[Sequence[int]], list[Decoded]]]:
    """A reader for the time of a ``with``: in a process a core, where there is something to decode."""
    return Decoders(reader, available_cores()) if reader.source.encoded else nullcontext(reader)


class Decoders:
    """Some processes with a reader each. Use it in a ``with`` statement."""

    def __init__(self, reader: Reader, processes: int) -> None:
        self._reader = reader
        self._processes = processes

    def __enter__(self) -> Self:
        self._pool = self._start(self._processes)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def __call__(self, ids: Sequence[int]) -> list[Decoded]:
        """Images by id, in this order. One that ends its process is told apart from those that merely were near it."""
        chunks = [ids[first : first + _CHUNK] for first in range(0, len(ids), _CHUNK)]
        futures = [self._submit(chunk) for chunk in chunks]
        decoded: list[Decoded] = []
        broken = False
        for chunk, future in zip(chunks, futures, strict=True):
            try:
                decoded += future.result()
            except BrokenProcessPool:
                broken = True
                decoded += self._isolated(chunk)
        if broken:
            self._pool.shutdown()
            self._pool = self._start(self._processes)
        return decoded

    def _submit(self, chunk: Sequence[int]) -> Future[list[Decoded]]:
        try:
            return self._pool.submit(_read, chunk)
        except BrokenProcessPool as error:
            failed: Future[list[Decoded]] = Future()
            failed.set_exception(error)
            return failed

    def _isolated(self, chunk: Sequence[int]) -> list[Decoded]:
        """A chunk in a process of its own, and where that ends too, each half of it."""
        try:
            with self._start(1) as pool:
                return pool.submit(_read, chunk).result()
        except BrokenProcessPool:
            if len(chunk) == 1:
                return [Decoded(None, reason=CRASHED)]
            middle = len(chunk) // 2
            return self._isolated(chunk[:middle]) + self._isolated(chunk[middle:])

    def _start(self, processes: int) -> ProcessPoolExecutor:
        context = get_context("fork" if sys.platform == "linux" else "spawn")
        return ProcessPoolExecutor(processes, context, _begin, (self._reader,))


_reader: Reader
"""What this process reads with; set once, when it begins."""


def _begin(reader: Reader) -> None:
    global _reader
    serve_parent()
    _reader = reader


def _read(ids: Sequence[int]) -> list[Decoded]:
    return _reader(ids)
