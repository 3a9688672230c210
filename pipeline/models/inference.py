"""Un-noised predictions for many images."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from nstudent.data.dataset import Ids, PixelStore
from nstudent.data.decode import Pixels
from nstudent.models.ensemble import Ensemble, Probabilities
from nstudent.progress import Task
from torch import Tensor

_PIXELS = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Of a batch to begin with. On a CPU what lies between two layers then stays in its cache: 256 images of 32 px, or 8 of
224 (1.1 to 2 times faster than 64). A GPU is to be kept busy: 1,024 images of 256 px."""
_FEWEST_AND_MOST = {"cpu": (8, 256), "cuda": (256, 4096)}


class BatchSize:
    """How many images are looked at together: what was found to fit is remembered for all that comes later."""

    def __init__(self, images: int) -> None:
        self.images = images

    @classmethod
    def starting(cls, limit: int | None, ensemble: Ensemble) -> BatchSize:
        """``limit``, or where there is none a size that keeps the device busy."""
        if limit is not None:
            return cls(limit)
        kind = "cpu" if ensemble.device.type == "cpu" else "cuda"
        fewest, most = _FEWEST_AND_MOST[kind]
        fitting: int = _PIXELS[kind] // ensemble.recipe.image_size**2
        return cls(min(most, max(fewest, 1 << max(0, fitting.bit_length() - 1))))


def batches(ensemble: Ensemble, pixels: PixelStore, ids: Ids, size: BatchSize) -> Iterator[Probabilities]:
    """Distributions per level, (images, outputs), of one batch after the other, in the order of ``ids``.

    Every batch has the same shape: the last one is filled up, so that an image's result does not depend on how many
    images there are. Where the device runs out of memory the batch is halved, down to one image. The pixels of the next
    batch are fetched from disk, and on a CPU made ready, while the networks work on this one.
    """
    on_cpu = ensemble.device.type == "cpu"

    def fetch(first: int, images: int) -> Pixels | Tensor:
        found = _fetch(pixels, ids, first, images)
        return ensemble.images(found) if on_cpu else found

    with ThreadPoolExecutor(1, thread_name_prefix="pixels") as beside:
        first, images = 0, size.images
        waiting = beside.submit(fetch, first, images)
        while first < len(ids):
            fetched, images = waiting.result(), size.images
            ahead = beside.submit(fetch, first + images, images)
            try:
                levels = ensemble.vote(fetched) if isinstance(fetched, Tensor) else ensemble.probabilities(fetched)
            except torch.OutOfMemoryError:
                if images == 1:
                    raise
                size.images = images // 2
                waiting = beside.submit(fetch, first, size.images)
                continue
            count = min(images, len(ids) - first)
            yield tuple(level[:count] for level in levels)
            first, waiting = first + count, ahead


def _fetch(pixels: PixelStore, ids: Ids, first: int, images: int) -> Pixels:
    """Pixels of a batch, filled up with its last image; empty behind the end."""
    found = pixels[ids[first : first + images]]
    missing = images - len(found) if len(found) else 0
    return np.concatenate([found, np.repeat(found[-1:], missing, axis=0)]) if missing else found


def predict(
    ensemble: Ensemble, pixels: PixelStore, ids: Ids, batch_size: BatchSize | int | None, task: Task | None = None
) -> Probabilities:
    """Distributions per level, (images, outputs), in the order of ``ids``: all of them in memory."""
    size = batch_size if isinstance(batch_size, BatchSize) else BatchSize.starting(batch_size, ensemble)
    outputs = tuple(np.empty((len(ids), outputs), dtype=np.float32) for outputs in ensemble.recipe.outputs)
    first = 0
    for levels in batches(ensemble, pixels, ids, size):
        for output, level in zip(outputs, levels, strict=True):
            output[first : first + len(level)] = level
        first += len(levels[0])
        if task is not None:
            task.advance(len(levels[0]))
    return outputs
