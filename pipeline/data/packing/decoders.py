"""Processes that read and decode images: what a damaged image does to a codec, it does there, and it is found out.

A codec that crashes costs one image. One that does not end, or asks for more memory than any picture needs, is bounded
by what only the image decides: processor time and bytes, never the time on a clock.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from threading import Lock
from types import TracebackType
from typing import Any, Generic, Self

from nstudent.data.decode import formats
from nstudent.data.packing.reader import Decoded, Item, Reader
from nstudent.machine import available_cores, available_memory, limit_memory, processes_that_end_with_this, serve_parent

CRASHED = "its decoder crashed"
"""Why an image is left out that ended the process which decoded it."""
_CHUNK = 16
"""Images a message between processes."""
_CHUNKS_AHEAD = 4
"""Chunks that wait for each process, so that none waits for the next message."""
_WAIT_SECONDS = 0.5
"""While no image is ready, whoever waits is asked so often whether to go on."""
IMAGE_CPU_SECONDS = 300.0
"""Processor time after which the decoder of one image is taken to be in an endless loop. What an image may cost by
``data.image_cost`` takes a slow core a few seconds."""
_USUAL_BYTES_PER_PIXEL = 20
"""Memory of the decoder of a photo at its peak, by which the number of processes is chosen."""
_MOST_BYTES_PER_PIXEL = 48
"""Memory that a decoder is given at most; 16-bit images take the most of what is read."""
_BYTES_BESIDE = 1 << 30
"""Memory of a decoder for what does not grow with the pixels: files of up to half that size are read."""
_FORKS = sys.platform == "linux"
_PATIENCE_SECONDS = 5.0
"""How long the processes may take to end the image that they are at when nobody wants it any more."""


ENDLESS = f"its decoder has not ended after {IMAGE_CPU_SECONDS:,.0f} s of processor time"
"""Why there is no image, where that is no reason to end (``Reader.endless_is_unreadable``)."""


class EndlessImageError(Exception):
    """The decoder of an image has not ended: the run has to, for the next attempt would wait as long."""

    def __init__(self, image: Any) -> None:
        super().__init__(f"image {image}")
        self.image = image


Read = Callable[[Iterable[Item]], Iterator[list[Decoded]]]
"""Images by id, in this order, some at a time; an empty list where none was ready for half a second."""


@contextmanager
def reading(reader: Reader[Item], most: int | None = None, *, spawn: bool = True) -> Iterator[Read[Item]]:
    """A reader for the time of a ``with``: in a process a core, where there is something to decode.

    Also in a worker of a pool: no image is ever decoded without the limits of these processes.

    Args:
        reader: What they read with.
        most: Number of images that are read, if they are known to be few.
        spawn: ``False``: no process is started that would run the program of a caller from its beginning, as those are
            that cannot be forked; elsewhere than on Linux images are then decoded in threads of this process.
    """
    if not reader.source.encoded:
        yield lambda ids: (reader(chunk) for chunk in _chunks(ids))
        return
    if not (spawn or may_fork()):
        yield partial(in_threads, reader)
        return
    processes = _processes(reader.max_pixels)
    if most is not None:
        processes = max(1, min(processes, -(-most // _CHUNK)))
    with processes_that_end_with_this(), Decoders(reader, processes) as read:
        yield read


def may_fork() -> bool:
    """Whether a process can be started that does not run the program of a caller from its beginning."""
    return _FORKS


def _processes(max_pixels: int) -> int:
    """A process a core, but no more than there is memory for, should each of them meet the largest image."""
    memory = available_memory()
    fitting = available_cores() if memory is None else memory // (_USUAL_BYTES_PER_PIXEL * max_pixels)
    return max(1, min(available_cores(), fitting))


def in_threads(reader: Reader[Item], ids: Iterable[Item]) -> Iterator[list[Decoded]]:
    """Images by id, decoded in threads of this process some chunks ahead."""
    threads = available_cores()
    waiting: deque[Future[list[Decoded]]] = deque()
    chunks = _chunks(ids)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            while True:
                while len(waiting) < threads * _CHUNKS_AHEAD and (chunk := next(chunks, None)):
                    waiting.append(pool.submit(reader, chunk))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _chunks(ids: Iterable[Item]) -> Iterator[Sequence[Item]]:
    left = iter(ids)
    while chunk := list(islice(left, _CHUNK)):
        yield chunk


class Decoders(Generic[Item]):
    """Some processes with a reader each, which begin with the first image.

    Use it in a ``with`` statement, which they do not outlive, or close it. Several threads may ask at once.
    """

    def __init__(self, reader: Reader[Item], processes: int) -> None:
        self._reader = reader
        self._processes = processes
        self._context: BaseContext = get_context("fork" if _FORKS else "spawn")
        # Shared memory without a lock, which a process that is killed could not let go of.
        self._ended: Any = self._context.RawArray("b", 1)
        self._renewing = Lock()
        # Here, once, and not in every process: it takes longer than an image.
        formats()
        self._pool = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the processes: each after the image that it is at, or it is made to."""
        self._ended[0] = 1
        # Its own alone: another thread may have some, too. Python forgets them when it is told to shut down.
        ours = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + _PATIENCE_SECONDS
        for process in ours:
            process.join(max(0.0, until - time.monotonic()))
            process.kill()
            process.join()

    def __call__(self, ids: Iterable[Item]) -> Iterator[list[Decoded]]:
        """Images by id, in this order, some at a time; an empty list where none was ready for half a second.

        One that ends its process is told apart from those that merely were near it.

        Raises:
            EndlessImageError: The decoder of an image has not ended.
        """
        chunks = _chunks(ids)
        waiting: deque[tuple[Sequence[Item], ProcessPoolExecutor, Future[list[Decoded]]]] = deque()
        while True:
            while len(waiting) < self._processes * _CHUNKS_AHEAD and (chunk := next(chunks, None)):
                waiting.append((chunk, *self._submit(chunk)))
            if not waiting:
                return
            chunk, pool, future = waiting[0]
            if not wait([future], _WAIT_SECONDS).done:
                yield []
                continue
            waiting.popleft()
            try:
                yield future.result()
            except BrokenProcessPool:
                # Whatever ended one of the processes has taken what the others were at with it.
                again = [chunk, *(other for other, _, _ in waiting)]
                waiting.clear()
                self._renew(pool)
                for image in (image for each in again for image in each):
                    yield from self._alone(image)

    def _submit(self, chunk: Sequence[Item]) -> tuple[ProcessPoolExecutor, Future[list[Decoded]]]:
        pool = self._pool
        try:
            return pool, pool.submit(_read, chunk)
        except BrokenProcessPool as error:
            failed: Future[list[Decoded]] = Future()
            failed.set_exception(error)
            return pool, failed

    def _renew(self, broken: ProcessPoolExecutor) -> None:
        """Start others in place of those that have ended, once, however many threads have noticed."""
        with self._renewing:
            if self._pool is broken:
                broken.shutdown()
                self._pool = self._start()

    def _alone(self, image: Item) -> Iterator[list[Decoded]]:
        """An image in a process of its own, whose end says what it has come to."""
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_read_alone, args=(theirs, self._reader, image))  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        try:
            while not ours.poll(_WAIT_SECONDS):
                yield []
            found = ours.recv()
        except EOFError:
            found = Decoded(None, reason=CRASHED)
        finally:
            process.kill()
            process.join()
            ours.close()
        if process.exitcode == -_OUT_OF_TIME:
            if not self._reader.endless_is_unreadable:
                raise EndlessImageError(image)
            found = Decoded(None, reason=ENDLESS)
        if isinstance(found, BaseException):
            raise found
        yield [found]

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._processes, self._context, _begin, (self._reader, self._ended))


_OUT_OF_TIME = int(getattr(signal, "SIGPROF", 0)) or -1
"""The signal by which the system ends a process that has used up its processor time; -1 where there is none."""
_reader: Reader[Any]
"""What this process reads with; set once, when it begins."""
_ended: Any
"""Whether what this process reads is no longer wanted."""


def _begin(reader: Reader[Any], ended: Any) -> None:
    global _reader, _ended
    serve_parent()
    limit_memory(_MOST_BYTES_PER_PIXEL * reader.max_pixels + _BYTES_BESIDE)
    _reader, _ended = reader, ended


def _read(ids: Sequence[Any]) -> list[Decoded]:
    return [_timed(_reader, image) for image in ids if not _ended[0]]


def _read_alone(connection: Connection, reader: Reader[Any], image: Any) -> None:
    serve_parent()
    limit_memory(_MOST_BYTES_PER_PIXEL * reader.max_pixels + _BYTES_BESIDE)
    try:
        connection.send(_timed(reader, image))
    except Exception as error:
        connection.send(error)


def _timed(reader: Reader[Any], image: Any) -> Decoded:
    """One image; the system ends this process where its decoder takes more than it can."""
    if hasattr(signal, "ITIMER_PROF"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, IMAGE_CPU_SECONDS)
    (found,) = reader([image])
    if hasattr(signal, "ITIMER_PROF"):
        signal.setitimer(signal.ITIMER_PROF, 0)
    return found
