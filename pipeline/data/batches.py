"""Batches as a pure function of the step.

Step 7,001 of a run holds the same images under the same noise whether the run came there in one go, was resumed at step
7,000, or loads its images in three processes: nothing is drawn from a generator that has a past.
"""

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from nstudent.data.dataset import Ids
from nstudent.data.decode import Pixels
from nstudent.data.loading import MOST_SECONDS, loaders_explained, room_in_shared_memory
from nstudent.machine import serve_parent
from nstudent.randomness import Key, generator
from torch import Tensor
from torch.utils.data import DataLoader

Rows = TypeVar("Rows", Ids, npt.NDArray[np.float32])

TargetsOf = Callable[[Ids], tuple[npt.NDArray[np.float32], ...]]
"""Rows of some examples -> per level, the mass on each class: (rows, classes of the level)."""


class Images(Protocol):
    """The images that a training reads."""

    def __getitem__(self, ids: Ids, /) -> Pixels | Tensor:
        """uint8 (rows, side, side, 3) of some image ids, on the host or already on a GPU."""


class NoiseOnImage(Protocol):
    """Noise on one image, where it is loaded."""

    def __call__(self, image: Pixels, key: Key, step: int) -> Pixels:
        """uint8 (height, width, 3) -> the same shape, as a function of the key and of how far the training is."""


@dataclass(frozen=True)
class Examples:
    """Images with something to learn from each."""

    ids: Ids
    """Image id of each row."""
    targets: TargetsOf
    copies: Ids | None = None
    """How often a row is shown each pass; ``None``: once."""

    def shown(self) -> Ids:
        """Rows of one pass, in order, with their copies."""
        rows = np.arange(len(self.ids))
        return rows if self.copies is None else np.repeat(rows, self.copies)


@dataclass(frozen=True)
class Batch:
    """What one step trains on. Labelled images come first."""

    images: Tensor
    """uint8 (batch, side, side, 3), noised where that is done one by one."""
    targets: tuple[Tensor, ...]
    """Per level, float32 (batch, classes): mass on each class; a row of zeros teaches nothing at that level."""
    num_labelled: int
    rows: Tensor
    """int64 (batch,): row of each image in its examples."""
    whole_images: tuple[int, int]
    """Number of labelled images in the whole batch, and of others: more than are here if several processes
    divide the batch."""
    views: Mapping[str, Tensor] = field(default_factory=dict)
    """Further views of the same images, by name, each like ``images``."""
    whole_mass: tuple[Tensor, ...] | None = None
    """Per level (2, classes): mass of all labelled images of the whole batch, and of all others; ``None`` if the whole
    batch is here."""

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device, copied without waiting where the memory is pinned."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The batch in memory that a GPU can copy from by itself; the loader asks for it by this name."""
        return self._each(lambda tensor: tensor if tensor.is_cuda else tensor.pin_memory())

    def shared(self) -> "Batch":
        """The batch in memory that other processes see.

        Raises:
            RuntimeError: There is no room in it.
        """
        return self._each(Tensor.share_memory_)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            images=change(self.images),
            targets=tuple(change(level) for level in self.targets),
            rows=change(self.rows),
            views={name: change(images) for name, images in self.views.items()},
            whole_mass=None if self.whole_mass is None else tuple(change(level) for level in self.whole_mass),
        )


class Stream:
    """An endless walk through rows, shuffled anew on every pass."""

    def __init__(self, rows: Ids, size: int, key: Key) -> None:
        """Walk through ``rows``, (number,), ``size`` of them a step, in an order that ``key`` decides."""
        self._rows = rows
        self._size = size
        self._key = key
        self._order: tuple[int, Ids] = (-1, rows)

    def at(self, step: int) -> tuple[Ids, Ids]:
        """(rows, draws) of one step: ``size`` rows, and the number of each draw since the start of training."""
        draws = np.arange(step * self._size, (step + 1) * self._size)
        passes, places = draws // len(self._rows), draws % len(self._rows)
        rows = np.empty(self._size, dtype=np.int64)
        for number in np.unique(passes):
            here = passes == number
            rows[here] = self._shuffled(int(number))[places[here]]
        return rows, draws

    def _shuffled(self, number: int) -> Ids:
        # One pair, read and replaced as one: a thread may prepare another step meanwhile.
        known, order = self._order
        if known != number:
            order = generator(*self._key, "order", number).permutation(self._rows)
            self._order = (number, order)
        return order


class Batches:
    """The batches of a training, by step."""

    def __init__(
        self,
        pixels: Images,
        parts: Sequence[tuple[Examples, int]],
        noise: NoiseOnImage | None,
        key: Key,
        *,
        views: Mapping[str, NoiseOnImage | None] | None = None,
        process: tuple[int, int] = (0, 1),
    ) -> None:
        """Make batches of some examples.

        Args:
            pixels: The images.
            parts: Examples, and how many of them a batch holds; the first part is the labelled one.
            noise: Noise for one image; ``None``: the images are noised later, a batch at a time.
            key: For order and noise.
            views: Further views to give of the same images, by name: their noise, or ``None`` for the images as they
                are.
            process: (number, of how many): load what this process works on of every batch. An image's noise does
                not depend on it.
        """
        self._pixels = pixels
        self._parts = [(examples, size) for examples, size in parts if size]
        self._streams = [
            Stream(examples.shown(), size, (*key, part)) for part, (examples, size) in enumerate(self._parts)
        ]
        self._noise = noise
        self._key = key
        self._views = dict(views or {})
        labelled, *others = [size for _, size in self._parts]
        self._whole_images = (labelled, sum(others))
        self._process = process

    def ids(self, step: int) -> Ids:
        """Image ids of a step's batch, or of what is loaded of it, in its order."""
        chosen = zip(self._parts, self._streams, strict=True)
        return np.concatenate([examples.ids[self._mine(stream.at(step)[0])] for (examples, _), stream in chosen])

    @property
    def num_bytes(self) -> int:
        """Bytes of the images of a batch, their views included."""
        images = self._pixels[self._parts[0][0].ids[:1]]
        return int(images.nbytes) * sum(size for _, size in self._parts) * (1 + len(self._views))

    def __getitem__(self, step: int) -> Batch:
        images: list[Pixels | Tensor] = []
        views: dict[str, list[Pixels | Tensor]] = {name: [] for name in self._views}
        targets, rows, masses = [], [], []
        for part, (examples, _) in enumerate(self._parts):
            whole, all_draws = self._streams[part].at(step)
            chosen, draws = self._mine(whole), self._mine(all_draws)
            raw = self._pixels[examples.ids[chosen]]
            keys = [(*self._key, part, int(draw)) for draw in draws]
            images.append(_noised(raw, self._noise, keys, step))
            for name, noise in self._views.items():
                views[name].append(_noised(raw, noise, [("view", name, *key) for key in keys], step))
            # Those of the others, too: a loss is divided by what the whole batch has to teach.
            taught = examples.targets(whole)
            targets.append([self._mine(level) for level in taught])
            masses.append([level.sum(axis=0) for level in taught] if self._process[1] > 1 else [])
            rows.append(chosen)
        return Batch(
            images=_joined(images),
            targets=tuple(torch.from_numpy(np.concatenate(level)) for level in zip(*targets, strict=True)),
            num_labelled=len(rows[0]),
            rows=torch.from_numpy(np.concatenate(rows)),
            whole_images=self._whole_images,
            views={name: _joined(each) for name, each in views.items()},
            whole_mass=_whole(masses) if self._process[1] > 1 else None,
        )

    def _mine(self, rows: Rows) -> Rows:
        return _rows_of(rows, self._process)

    def load(self, first: int, last: int, workers: int, *, pin_memory: bool = False) -> Generator[Batch, None, None]:
        """The batches of steps ``first`` to ``last - 1``, prepared by ``workers`` processes (0: this one)."""
        batches = _Shared(self) if workers else self
        loader: DataLoader[Batch] = DataLoader(
            batches,  # type: ignore[arg-type]  # a mapping from step to batch is all that is used
            batch_size=None,
            sampler=range(first, last),
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=serve_parent,
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            timeout=MOST_SECONDS if workers else 0,
        )
        iterator = iter(loader)
        try:
            with loaders_explained():
                yield from iterator
        finally:
            if workers:
                # An error that is kept keeps the iterator, and its processes would be missed only when Python ends.
                iterator._shutdown_workers()  # type: ignore[attr-defined]


class _Shared:
    """Batches in the shared memory of the processes that prepare them.

    torch would move them there in a thread, which ends where there is no room: the batch would be waited for in vain.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __getitem__(self, step: int) -> Batch:
        batch = self._batches[step]
        with room_in_shared_memory():
            return batch.shared()


def places_of(parts: Sequence[tuple[Examples, int]], process: tuple[int, int]) -> tuple[Ids, int]:
    """(places, size): the places of a whole batch that a process works on, and how many places there are.

    ``parts`` and ``process`` are those of ``Batches``.
    """
    ends = np.cumsum([0] + [size for _, size in parts])
    return np.concatenate([_rows_of(np.arange(*between), process) for between in pairwise(ends)]), int(ends[-1])


def _rows_of(rows: Rows, process: tuple[int, int]) -> Rows:
    number, count = process
    return rows[len(rows) * number // count : len(rows) * (number + 1) // count]


def _noised(raw: Pixels | Tensor, noise: NoiseOnImage | None, keys: Sequence[Key], step: int) -> Pixels | Tensor:
    """Images, each with the noise of its key."""
    if noise is None or not len(raw):
        return raw
    assert isinstance(raw, np.ndarray), "images are noised one by one before they are sent to a device"
    return np.stack([noise(image, key, step) for image, key in zip(raw, keys, strict=True)])


def _whole(masses: Sequence[Sequence[npt.NDArray[np.float32]]]) -> tuple[Tensor, ...]:
    """Per level (2, classes): what a whole batch's labelled and other images are to teach."""
    rest = masses[1] if len(masses) > 1 else [np.zeros_like(level) for level in masses[0]]
    return tuple(torch.from_numpy(np.stack(level)) for level in zip(masses[0], rest, strict=True))


def _joined(parts: Sequence[Pixels | Tensor]) -> Tensor:
    return torch.cat([part if isinstance(part, Tensor) else torch.from_numpy(part) for part in parts])
