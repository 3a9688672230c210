"""What a step needs before the network sees it. All of it is a function of the step, so it can be made ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

import torch
from nstudent.data.batches import Batch
from nstudent.errors import RefusedError, summary
from nstudent.models.device import Placement
from nstudent.noise.build import Noise
from nstudent.noise.steps import Prepared
from torch import Tensor

T = TypeVar("T")

_MOST_TOGETHER = 16
_PIXELS_TOGETHER = 1 << 22
"""Number of pixels that are noised at once: eight batches of 512 images of 32 px, and never two of 64 at 300 px."""

_TOO_LATE = 3
"""Number of consecutive late items after which the next one is always begun at once."""


class Preparation:
    """Brings batches to the device, and does there what noise is still to be done."""

    def __init__(self, placement: Placement, noise: Noise, views: Mapping[str, Noise] | None = None) -> None:
        """Prepare the batches of a training.

        Args:
            placement: The device.
            noise: The noise on the images.
            views: That on the further views of the images, by name.
        """
        self._placement = placement
        self._noise = noise
        self._views = dict(views or {})
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
                steps = range(step, step + len(block))
                noised = _noised([batch.images for batch in block], steps, self._noise)
                block = self._with_views(block, steps)
                self._num_together = self._most_together(block[0].images)
                for batch, images in zip(block, noised, strict=True):
                    yield self._prepared(batch, images, step)
                    step += 1

    def _most_together(self, images: Tensor) -> int:
        """How many batches of such images are noised at once.

        To tell a GPU what to do takes the host longer than a GPU takes to noise one batch of small images.
        """
        if not self._noise.pixels or self._placement.device.type != "cuda":
            return 1
        return max(1, min(_MOST_TOGETHER, _PIXELS_TOGETHER // images[..., 0].numel()))

    def _with_views(self, block: Sequence[Batch], steps: Sequence[int]) -> list[Batch]:
        """The batches, with the noise on their further views."""
        for name, noise in self._views.items():
            if noise.pixels:
                noised = _noised([batch.views[name] for batch in block], steps, noise)
                changed = zip(block, noised, strict=True)
                block = [replace(batch, views={**batch.views, name: images}) for batch, images in changed]
        return list(block)

    def _prepared(self, batch: Batch, pixels: Tensor, step: int) -> Prepared:
        with _explained_memory(len(pixels)):
            prepared = Prepared(batch, self._placement.images(pixels), batch.targets)
            for change in self._noise.batch:
                prepared = change(prepared, step)
            # Mixing moves mass between images of one kind: the sums that other processes know of stay right.
            return replace(prepared, whole_mass=batch.whole_mass or _summed(prepared.targets, batch.num_labelled))


def _summed(targets: Sequence[Tensor], num_labelled: int) -> tuple[Tensor, ...]:
    """Per level (2, classes): the mass of the labelled images, and of the others."""
    return tuple(torch.stack([level[:num_labelled].sum(dim=0), level[num_labelled:].sum(dim=0)]) for level in targets)


def _noised(images: Sequence[Tensor], steps: Sequence[int], noise: Noise) -> Sequence[Tensor]:
    """Images of some batches, uint8 each, with what noise is done to their pixels."""
    if not noise.pixels:
        return images
    with _explained_memory(len(images[0])):
        together = images[0] if len(images) == 1 else torch.cat(list(images))
        for change in noise.pixels:
            together = change(together, steps)
        return [together] if len(images) == 1 else torch.split(together, [len(each) for each in images])


@contextmanager
def _explained_memory(images: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RefusedError(
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
