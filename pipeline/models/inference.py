"""Un-noised predictions for many images."""

import numpy as np
from nstudent.data.dataset import Ids, PixelStore
from nstudent.models.ensemble import Ensemble, Probabilities
from nstudent.progress import Task


def predict(
    ensemble: Ensemble, pixels: PixelStore, ids: Ids, batch_size: int, task: Task | None = None
) -> Probabilities:
    """Distributions per level, (images, outputs), in the order of ``ids``.

    Every batch has the same shape: the last one is filled up, so that an image's result does not depend on how many
    images there are.
    """
    outputs = tuple(np.empty((len(ids), size), dtype=np.float32) for size in ensemble.recipe.outputs)
    for first in range(0, len(ids), batch_size):
        batch = ids[first : first + batch_size]
        filled = np.concatenate([batch, np.repeat(batch[-1:], batch_size - len(batch))])
        for output, level in zip(outputs, ensemble.probabilities(pixels[filled]), strict=True):
            output[first : first + len(batch)] = level[: len(batch)]
        if task is not None:
            task.advance(len(batch))
    return outputs
