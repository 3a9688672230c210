"""Temperatures that make confidence mean what it says (Guo et al., arXiv 1706.04599), one a level."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from nstudent.models.temperature import apply_temperature
from nstudent.taxonomy.outputs import SILENT, Outputs
from nstudent.taxonomy.tree import LabelArray
from scipy.optimize import minimize_scalar

_LOG_RANGE = (-1.1, 1.1)
"""Temperatures of a third to three: a few hundred images that are all right would ask for ever more confidence."""
_SMALLEST = 1e-12
_FEWEST_IMAGES = 10
"""Fewer labels at a level fit noise: its temperature stays 1."""

_CELLS_TO_FIT = 1 << 25
_FEWEST_TO_FIT = 2_000
"""One number a level is known to a percent or two from so many images; more would only fill the memory."""
_CELLS_AT_ONCE = 1 << 20

Distribution = npt.NDArray[np.float32]


def images_to_fit(ids: npt.NDArray[np.int64], outputs: Outputs) -> npt.NDArray[np.int64]:
    """Ids of the images that temperatures are fitted on: all of ``ids``, (images,), or some for many classes."""
    most = max(_FEWEST_TO_FIT, _CELLS_TO_FIT // sum(outputs.sizes))
    return ids if len(ids) <= most else ids[np.linspace(0, len(ids) - 1, most).astype(np.int64)]


def fit_temperatures(probabilities: Sequence[Distribution], labels: LabelArray, outputs: Outputs) -> tuple[float, ...]:
    """The temperature of each level that makes the labels most likely.

    Args:
        probabilities: Per level, (images, outputs).
        labels: (images, levels).
        outputs: Outputs of the model that predicted.
    """
    right = outputs.indices(labels)
    return tuple(_fit(level, right[:, i]) for i, level in enumerate(probabilities))


def _fit(probabilities: Distribution, target: npt.NDArray[np.int32]) -> float:
    known = np.flatnonzero(target != SILENT)
    if len(known) < _FEWEST_IMAGES:
        return 1.0
    shown, wanted = probabilities[known], target[known]
    rows = max(1, _CELLS_AT_ONCE // shown.shape[1])

    def negative_log_likelihood(log_temperature: float) -> float:
        temperature = float(np.exp(log_temperature))
        right = np.empty(len(wanted), dtype=np.float32)
        for first in range(0, len(wanted), rows):
            part = slice(first, first + rows)
            calibrated = apply_temperature(torch.from_numpy(shown[part]), temperature).numpy()
            right[part] = calibrated[np.arange(len(calibrated)), wanted[part]]
        return float(-np.log(right + _SMALLEST).mean())

    found = minimize_scalar(negative_log_likelihood, bounds=_LOG_RANGE, method="bounded")
    return round(float(np.exp(found.x)), 6)
