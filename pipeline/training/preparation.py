"""What a step needs before the network sees it. All of it is a function of the step, so it can be made ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch
from nstudent.data.batches import Batch
from nstudent.errors import TrainingError, summary
from nstudent.models.device import Placement
from nstudent.training.mixing import Mixing, Targets
from torch import Tensor

BatchNoise = Callable[[Tensor, Sequence[int]], Tensor]
"""(images uint8 (k * b, side, side, 3) of k batches end to end, their steps) -> the same, noised."""

T = TypeVar("T")

_MOST_TOGETHER = 16
_PIXELS_TOGETHER = 1 << 22
"""Number of pixels that are noised at once: eight batches of 512 images of 32 px, and never two of 64 at 300 px."""

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
    meanwhile: Callable[[], None] = lambda: None
    """For who learns from it to call before a backward pass, which leaves Python's lock to others: the next batch is
    begun then."""


class Preparation:
    """Brings batches to the device, does there what noise is still to be done, and mixes them."""

    def __init__(self, placement: Placement, mixing: Mixing, noise: BatchNoise | None, steps: int) -> None:
        self._placement = placement
        self._mixing = mixing
        self._noise = noise
        self._steps = steps
        self._num_together = 1

    @property
    def depth(self) -> int:
        """How many batches are to be made ahead: a GPU's come several at a time, and then none for a while."""
        return 2 * self._num_together if self._placement.device.type == "cuda" else 1

    def each(self, batches: Generator[Batch, None, None], first: int) -> Generator[Prepared, None, None]:
        """The batches of the steps from ``first`` on. What they come from is closed with it."""
        with closing(batches):
            step = first
            while block := [batch.to(self._placement.device) for batch in islice(batches, self._num_together)]:
                noised = self._noised(block, range(step, step + len(block)))
                self._num_together = self._most_together(block[0].images)
                for batch, images in zip(block, noised, strict=True):
                    yield self._mixed(batch, images, step)
                    step += 1

    def _most_together(self, images: Tensor) -> int:
        """How many batches of such images are noised at once.

        To tell a GPU what to do takes the host longer than a GPU takes to noise one batch of small images.
        """
        if self._noise is None or self._placement.device.type != "cuda":
            return 1
        return max(1, min(_MOST_TOGETHER, _PIXELS_TOGETHER // images[..., 0].numel()))

    def _noised(self, block: Sequence[Batch], steps: Sequence[int]) -> Sequence[Tensor]:
        """Images of some batches, uint8 each, with their noise."""
        if self._noise is None:
            return [batch.images for batch in block]
        with _explained_memory(len(block[0].images)):
            if len(block) == 1:
                return [self._noise(block[0].images, steps)]
            images = torch.cat([batch.images for batch in block])
            return torch.split(self._noise(images, steps), [len(batch.images) for batch in block])

    def _mixed(self, batch: Batch, pixels: Tensor, step: int) -> Prepared:
        with _explained_memory(len(pixels)):
            images, targets = self._mixing(
                self._placement.images(pixels), batch.targets, batch.num_labelled, step, step / self._steps
            )
        return Prepared(batch, images, targets)


@contextmanager
def _explained_memory(images: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"no memory to noise a batch of {images} images beside the training "
            f"({summary(error)}): lower batch_size, or set augment=image"
        ) from None


class Ahead(Iterator[T]):
    """The same items, each made in a thread while the one before it is used.

    Most of the work, on arrays and tensors, does not hold Python's lock, and a second core takes it over; from a
    process every batch would have to be sent. But drawing noise holds it, and the thread that trains has to wait: two
    milliseconds of a step that takes sixty. So the next item begins where its user says that it will not need the lock
    for a while; if it then comes too late again and again, at once.
    """

    def __init__(self, items: Generator[T, None, None], depth: Callable[[], int] = lambda: 1) -> None:
        """``depth`` says how many items there may be ahead; where it is more than one, they are made as fast as can be.

        That is for a thread whose user mostly waits for a GPU.
        """
        self._items = items
        self._depth = depth
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._coming: deque[Future[Any]] = deque()
        self._closed = False
        # The first one is always late.
        self._late = -1
        self._end = object()

    def begin(self) -> None:
        """Begin with the next item, or as many as there may be ahead, where that has not happened yet."""
        while len(self._coming) < self._depth() and not self._closed:
            self._coming.append(self._beside.submit(next, self._items, self._end))

    def __next__(self) -> T:
        if self._closed:
            raise StopIteration
        if self._late < _TOO_LATE:
            self._late = 0 if self._coming and self._coming[0].done() else self._late + 1
        self.begin()
        try:
            item = self._coming.popleft().result()
        except BaseException:
            self.close()
            raise
        if item is self._end:
            self.close()
            raise StopIteration
        if self._late >= _TOO_LATE or self._depth() > 1:
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
