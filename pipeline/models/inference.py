"""Un-noised predictions for many images."""

import numpy as np
import torch
from nstudent.data.dataset import Ids, PixelStore
from nstudent.models.ensemble import Ensemble, Probabilities
from nstudent.progress import Task


def predict(
    ensemble: Ensemble, pixels: PixelStore, ids: Ids, batch_size: int, task: Task | None = None
) -> Probabilities:
    """Distributions per level, (images, outputs), in the order of ``ids``.

    Every batch has the same shape: the last one is filled up, so that an image's result does not depend on how many
    images there are. Where the device runs out of memory the batch is halved, down to one image.
    """
    outputs = tuple(np.empty((len(ids), size), dtype=np.float32) for size in ensemble.recipe.outputs)
    first = 0
    while first < len(ids):
        batch = ids[first : first + batch_size]
        filled = np.concatenate([batch, np.repeat(batch[-1:], batch_size - len(batch))])
        try:
            levels = ensemble.probabilities(pixels[filled])
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size //= 2
            continue
        for output, level in zip(outputs, levels, strict=True):
            output[first : first + len(batch)] = level[: len(batch)]
        first += len(batch)
        if task is not None:
            task.advance(len(batch))
    return outputs
