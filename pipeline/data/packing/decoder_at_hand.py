"""A process that decodes a few images and is kept for the next ones: to start one takes longer than a photo."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from multiprocessing.util import Finalize
from typing import Generic

from nstudent.data.packing.decoders import Decoders, in_threads, may_fork
from nstudent.data.packing.reader import Decoded, Item, Reader
from nstudent.machine import processes_that_end_with_this

_BEFORE_QUEUES = 100
"""Priority of what ends the process where a worker of ``multiprocessing`` ends. At 10 its queues are closed, by one of
which the process is told to end."""


class DecoderAtHand(Generic[Item]):
    """Images in one process with the limits of ``Decoders``. It begins with the first image and ends with this object.

    Several threads may ask at once. A process that is forked from this one starts a decoder of its own. Where none can
    be forked, images are decoded in threads of this process.
    """

    def __init__(self, reader: Reader[Item]) -> None:
        self._reader = reader
        self._decoders: dict[int, Decoders[Item]] = {}
        """By the process that started them. Those of a parent are kept, because to let go of them would reach it."""

    def __call__(self, ids: Iterable[Item]) -> Iterator[list[Decoded]]:
        """Images by id, as ``Decoders`` gives them."""
        if not may_fork():
            yield from in_threads(self._reader, ids)
            return
        with processes_that_end_with_this():
            yield from self._ours()(ids)

    def __reduce__(self) -> tuple[type[DecoderAtHand[Item]], tuple[Reader[Item]]]:
        return DecoderAtHand, (self._reader,)

    def _ours(self) -> Decoders[Item]:
        process = os.getpid()
        if process not in self._decoders:
            started = Decoders(self._reader, 1)
            # Of two threads one is first. The other one's has no process yet, and leaves nothing behind.
            if self._decoders.setdefault(process, started) is started:
                Finalize(self, started.close, exitpriority=_BEFORE_QUEUES)
        return self._decoders[process]
