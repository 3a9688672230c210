"""What a step needs before the network sees it. All of it is a function of the step, so it can be made ahead."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from nstudent.data.batches import Batch
from nstudent.errors import TrainingError
from nstudent.models.device import Placement
from nstudent.training.mixing import Mixing, Targets
from torch import Tensor

BatchNoise = Callable[[Tensor, int], Tensor]
"""(images uint8 (b, side, side, 3), step) -> the same, noised."""

T = TypeVar("T")

_TOO_LATE = 3
"""Number of consecutive late items after which the next one is always begun at once."""


@dataclass(frozen=True)
class Prepared:
    """A batch on the device, as the network is to see it."""

    batch: Batch
    images: Tensor
    """float32 (b, 3, side, side) in 0..1: noised and mixed."""
    targets: Targets
    """Per level (b, classes): what is to be learnt from them."""


class Preparation:
    """Brings batches to the device, does there what noise is still to be done, and mixes them."""

    def __init__(self, placement: Placement, mixing: Mixing, noise: BatchNoise | None, steps: int) -> None:
        self._placement = placement
        self._mixing = mixing
        self._noise = noise
        self._steps = steps

    def each(self, batches: Generator[Batch, None, None] | Ahead[Batch], first: int) -> Generator[Prepared, None, None]:
        """The batches of the steps from ``first`` on. What they come from is closed with it."""
        with closing(batches):
            for step, batch in enumerate(batches, first):
                yield self._prepare(batch.to(self._placement.device), step)

    def _prepare(self, batch: Batch, step: int) -> Prepared:
        try:
            pixels = batch.images if self._noise is None else self._noise(batch.images, step)
            images, targets = self._mixing(
                self._placement.images(pixels), batch.targets, batch.num_labelled, step, step / self._steps
            )
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"no memory to noise a batch of {len(batch.images)} images beside the training "
                f"({' '.join(str(error).split())[:200]}): lower batch_size, or set augment=image"
            ) from None
        return Prepared(batch, images, targets)


class Ahead(Iterator[T]):
    """The same items, each made in a thread while the one before it is used.

    Most of the work, on arrays and tensors, does not hold Python's lock, and a second core takes it over; from a
    process every batch would have to be sent. But drawing noise holds it, and the thread that trains has to wait: two
    milliseconds of a step that takes sixty. So the next item begins where its user says that it will not need the lock
    for a while; if it then comes too late again and again, at once.
    """

    def __init__(self, items: Generator[T, None, None]) -> None:
        self._items = items
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._coming: Future[Any] | None = None
        self._closed = False
        # The first one is always late.
        self._late = -1
        self._end = object()

    def begin(self) -> None:
        """Begin with the next item, where that has not happened yet."""
        if self._coming is None and not self._closed:
            self._coming = self._beside.submit(next, self._items, self._end)

    def __next__(self) -> T:
        if self._closed:
            raise StopIteration
        if self._late < _TOO_LATE:
            self._late = 0 if self._coming is not None and self._coming.done() else self._late + 1
        self.begin()
        assert self._coming is not None
        try:
            item = self._coming.result()
        except BaseException:
            self.close()
            raise
        if item is self._end:
            self.close()
            raise StopIteration
        self._coming = None
        if self._late >= _TOO_LATE:
            self.begin()
        made: T = item
        return made

    def close(self) -> None:
        """End the thread, and what the items come from."""
        self._closed = True
        self._beside.shutdown(cancel_futures=True)
        # A second Ctrl-C may have left the thread inside of it.
        with suppress(ValueError):
            self._items.close()
