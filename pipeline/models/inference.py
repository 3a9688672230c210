"""Un-noised predictions for many images, with the device never waiting for the host.

The pixels of the next batch are fetched in a thread while the networks work on this one, and a batch is handed out when
the next one is under way. On a CPU what is made of the predictions is made in a second thread. On a GPU pixels are
copied beside its work, it makes of the predictions what is wanted, and only that is copied back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from nstudent.data.dataset import Ids, PixelStore
from nstudent.models.ensemble import Ensemble, Probabilities
from nstudent.models.members import Levels
from nstudent.progress import Task
from torch import Tensor

_PIXELS = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Number of pixels in a batch to begin with. On a CPU what lies between two layers then stays in its cache: 256 images
of 32 px, or 8 of 224 (1.1 to 2 times faster than 64). A GPU is to be kept busy: 1,024 images of 256 px."""
_FEWEST_AND_MOST = {"cpu": (8, 256), "cuda": (256, 4096)}

Wanted = Callable[[Levels], Mapping[str, Tensor]]
"""What is to be made of a batch's distributions per level: named tensors with a row an image, on the same device."""
Found = dict[str, npt.NDArray[Any]]
"""The same on the host."""


class BatchSize:
    """How many images are looked at together: what was found to fit is remembered for all that comes later."""

    def __init__(self, images: int) -> None:
        """Begin with a number of images."""
        self.images = images

    def halve(self) -> None:
        """Look at half as many images together from now on: so many did not fit."""
        self.images //= 2

    @classmethod
    def starting(cls, limit: int | None, ensemble: Ensemble) -> BatchSize:
        """``limit``, or where there is none a size that keeps the device busy."""
        if limit is not None:
            return cls(limit)
        kind = "cpu" if ensemble.device.type == "cpu" else "cuda"
        fewest, most = _FEWEST_AND_MOST[kind]
        fitting: int = _PIXELS[kind] // ensemble.recipe.image_size**2
        return cls(min(most, max(fewest, 1 << max(0, fitting.bit_length() - 1))))


def batches(
    ensemble: Ensemble, pixels: PixelStore, ids: Ids, size: BatchSize, wanted: Wanted
) -> Generator[Found, None, None]:
    """What ``wanted`` makes of one batch after the other, in the order of ``ids``.

    Every batch has the same shape: the last one is filled up, so that an image's result does not depend on how many
    images there are. Where the device runs out of memory the batch is halved, down to one image.

    Raises:
        torch.OutOfMemoryError: a single image does not fit.
    """
    if not len(ids):
        empty = wanted(tuple(torch.empty(0, outputs) for outputs in ensemble.recipe.outputs.sizes))
        yield {name: tensor.numpy() for name, tensor in empty.items()}
        return
    make = _OnGpu if ensemble.device.type == "cuda" else _OnHost
    with ThreadPoolExecutor(1, thread_name_prefix="pixels") as beside, closing(make(ensemble, wanted)) as work:

        def fetch(first: int, images: int) -> Tensor:
            # Behind the end there is nothing to fetch.
            these = ids[first : first + images]
            buffer = work.buffer((images if len(these) else 0, side, side, 3))
            pixels.read_into(these, buffer[: len(these)].numpy())
            # Filled up with the last image.
            buffer[len(these) :] = buffer[len(these) - 1 : len(these)]
            return work.brought(buffer)

        side, first = ensemble.recipe.image_size, 0
        under_way: Callable[[], Found] | None = None
        waiting = beside.submit(fetch, first, size.images)
        while first < len(ids):
            images = size.images
            begun: Callable[[], Found] | None = None
            try:
                brought = work.ready(waiting.result())
                waiting = beside.submit(fetch, first + images, images)
                begun = work.begin(brought, min(images, len(ids) - first))
                first += images
            except torch.OutOfMemoryError:
                if images == 1:
                    raise
            if under_way is not None:
                yield under_way()
            under_way = begun
            if begun is None:
                # What was fetched behind this batch is fetched again, in other parts.
                size.halve()
                waiting = beside.submit(fetch, first, size.images)
        if under_way is not None:
            yield under_way()


class _Work(Protocol):
    """How a device takes a batch, and gives what was made of it."""

    def buffer(self, shape: tuple[int, ...]) -> Tensor:
        """Memory of the host, uint8, for the images of a batch; called in a thread."""

    def brought(self, images: Tensor) -> Tensor:
        """What was put into such memory, on its way to the device; called in a thread."""

    def ready(self, images: Tensor) -> Tensor:
        """The same images, to be used from now on."""

    def begin(self, images: Tensor, count: int) -> Callable[[], Found]:
        """Begin with a batch, of which ``count`` images are wanted; returns what waits for its results."""

    def close(self) -> None:
        """End what was begun."""


class _OnHost:
    """The CPU, or a GPU that shares its memory: the networks run here, what is made of their predictions beside."""

    def __init__(self, ensemble: Ensemble, wanted: Wanted) -> None:
        self._ensemble = ensemble
        self._wanted = wanted
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="labels")

    def buffer(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=torch.uint8)

    def brought(self, images: Tensor) -> Tensor:
        return self._ensemble.images(images) if self._ensemble.device.type == "cpu" else images

    def ready(self, images: Tensor) -> Tensor:
        return images if images.is_floating_point() else self._ensemble.images(images)

    def begin(self, images: Tensor, count: int) -> Callable[[], Found]:
        pooled = tuple(level[:count].cpu() for level in self._ensemble.pooled(images))
        turning: Future[Found] = self._beside.submit(self._turned, pooled)
        return turning.result

    @torch.inference_mode()
    def _turned(self, pooled: Levels) -> Found:
        levels = self._ensemble.calibrate(pooled)
        return {name: tensor.numpy() for name, tensor in self._wanted(levels).items()}

    def close(self) -> None:
        self._beside.shutdown()


class _OnGpu:
    """A CUDA device: told what to do, and asked for it when the next batch is under way."""

    def __init__(self, ensemble: Ensemble, wanted: Wanted) -> None:
        self._ensemble = ensemble
        self._wanted = wanted
        self._copies = torch.cuda.Stream(ensemble.device)  # type: ignore[no-untyped-call]

    def buffer(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True)

    def brought(self, images: Tensor) -> Tensor:
        with torch.cuda.stream(self._copies):
            return images.to(self._ensemble.device, non_blocking=True)

    def ready(self, images: Tensor) -> Tensor:
        works = torch.cuda.current_stream(self._ensemble.device)
        works.wait_stream(self._copies)
        # Its memory belongs to the other stream, which is not to use it again before this one is done.
        images.record_stream(works)
        return self._ensemble.images(images)

    @torch.inference_mode()
    def begin(self, images: Tensor, count: int) -> Callable[[], Found]:
        levels = tuple(level[:count] for level in self._ensemble.vote(images))
        here = {name: tensor.to("cpu", non_blocking=True) for name, tensor in self._wanted(levels).items()}
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()

        def found() -> Found:
            arrived.synchronize()
            return {name: tensor.numpy() for name, tensor in here.items()}

        return found

    def close(self) -> None:
        """Nothing was begun that does not end by itself."""


Walk = Callable[[Ensemble, PixelStore, Ids, BatchSize, Wanted], Generator[Found, None, None]]
"""A walk through images: ``batches``, or one that gives the same and keeps it (``models.kept_walks``)."""


def told(walk: Walk, task: Task) -> Walk:
    """The same walk, which tells a piece of work how many images it has come through."""

    def walking(
        ensemble: Ensemble, pixels: PixelStore, ids: Ids, size: BatchSize, wanted: Wanted
    ) -> Generator[Found, None, None]:
        with closing(walk(ensemble, pixels, ids, size, wanted)) as parts:
            for found in parts:
                yield found
                task.advance(len(next(iter(found.values()))))

    return walking


def predict(
    ensemble: Ensemble,
    pixels: PixelStore,
    ids: Ids,
    batch_size: BatchSize | int | None,
    walk: Walk = batches,
) -> Probabilities:
    """Distributions per level, (images, outputs), in the order of ``ids``: all of them in memory."""
    size = batch_size if isinstance(batch_size, BatchSize) else BatchSize.starting(batch_size, ensemble)
    outputs = tuple(np.empty((len(ids), outputs), dtype=np.float32) for outputs in ensemble.recipe.outputs.sizes)
    first = 0
    with closing(walk(ensemble, pixels, ids, size, _whole)) as parts:
        for found in parts:
            for output, level in zip(outputs, found.values(), strict=True):
                output[first : first + len(level)] = level
            first += len(level)
    return outputs


def _whole(levels: Levels) -> Mapping[str, Tensor]:
    return {f"level {number}": level for number, level in enumerate(levels)}
