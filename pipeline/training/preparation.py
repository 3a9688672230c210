"""What a step needs before the network sees it. All of it is a function of the step, so it can be made ahead."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from nstudent.data.batches import Batch
from nstudent.models.device import Placement
from nstudent.training.mixing import Mixing, Targets
from torch import Tensor

BatchNoise = Callable[[Tensor, int], Tensor]
"""(images uint8 (b, side, side, 3), step) -> the same, noised."""

T = TypeVar("T")


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

    def each(self, batches: Iterator[Batch], first: int) -> Generator[Prepared, None, None]:
        """The batches of the steps from ``first`` on."""
        for step, batch in enumerate(batches, first):
            yield self._prepare(batch.to(self._placement.device), step)

    def _prepare(self, batch: Batch, step: int) -> Prepared:
        pixels = batch.images if self._noise is None else self._noise(batch.images, step)
        images, targets = self._mixing(
            self._placement.images(pixels), batch.targets, batch.num_labelled, step, step / self._steps
        )
        return Prepared(batch, images, targets)


def ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items, each made in a thread while the one before it is used.

    Work on arrays and tensors does not hold Python's lock, so that a second core takes it over; from a process every
    batch would have to be sent.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="prepare") as beside:
        waiting = beside.submit(next, items, end)
        while (item := waiting.result()) is not end:
            waiting = beside.submit(next, items, end)
            yield item  # type: ignore[misc]
