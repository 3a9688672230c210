"""What a labeller and a self-ensemble together say of an image: a pool of both whose weights are fitted on validation.

SELF keeps a label where the self-ensemble's most probable class is the label's. Where the ensemble is weaker than what
made the labels, that vote drops more right labels than wrong ones. Here both are evidence: at each level

    log q(c) = a log p(c) + b log m(c) + constant

with p the labeller's distribution, m the mean of the self-ensemble's predictions, and a, b >= 0 such that held-out
labels are most likely. A self-ensemble that knows nothing gets b = 0, and q is what the labeller says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nstudent.taxonomy.outputs import SILENT, Outputs
from nstudent.taxonomy.tree import LabelArray
from scipy.optimize import minimize

Distribution = npt.NDArray[np.float32]
"""One level: (images, outputs)."""

_SMALLEST = 1e-6
"""Probability below which nobody is believed: half precision ends there."""
_FEWEST_IMAGES = 10
"""Fewer labels at a level fit noise."""
_LARGEST = 5.0
_LEAST_GAIN = 1.0
"""Log-likelihood of all held-out labels that a second voice has to add, or it is not heard (Akaike's criterion)."""
_CELLS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Weights:
    """How much each voice counts at one level."""

    labeller: float
    ensemble: float


LABELLER_ALONE = Weights(1.0, 0.0)


@dataclass(frozen=True)
class Heard:
    """Both voices on held-out images, and the labels of these images."""

    labeller: Sequence[Distribution]
    """Per level; a row sums to less than one where a path may have ended above the level."""
    ensemble: Sequence[Distribution]
    """Per level; each row sums to one."""
    labels: LabelArray
    """(images, levels)."""
    outputs: Outputs

    def weights(self) -> tuple[Weights, ...]:
        """The weights of each level that make the labels most likely, with a prior of unit variance at (1, 0).

        The prior decides where the images do not: a voice that says the same of every class gets no weight.
        """
        return tuple(_fit_both(*level) for level in self._known())

    def ensemble_alone(self) -> tuple[Weights, ...]:
        """The weight of the ensemble at each level, if nobody else is heard: it makes its probabilities true."""
        return tuple(_fit_ensemble(*level) for level in self._known())

    def log_likelihood(self, weights: Sequence[Weights]) -> float:
        """Mean over the known entries of all labels of the logarithm of their probability."""
        loss, entries = 0.0, 0
        for (labeller, ensemble, wanted), level in zip(self._known(), weights, strict=True):
            right = pooled(labeller, ensemble, level)[np.arange(len(wanted)), wanted]
            loss -= float(np.log(right + _SMALLEST).sum())
            entries += len(wanted)
        return -loss / max(1, entries)

    def _known(self) -> Iterator[tuple[Distribution, Distribution, npt.NDArray[np.int32]]]:
        """For each level what is said of the images with a label there, given that there is one, and their labels."""
        right = self.outputs.indices(self.labels)
        for level, (labeller, ensemble) in enumerate(zip(self.labeller, self.ensemble, strict=True)):
            known = np.flatnonzero(right[:, level] != SILENT)
            said = labeller[known]
            said = said / np.maximum(said.sum(axis=1, keepdims=True), _SMALLEST)
            yield said, ensemble[known], right[known, level]


def pooled(labeller: Distribution, ensemble: Distribution, weights: Weights) -> Distribution:
    """What both say of one level: (images, outputs).

    A row sums to what the labeller's does: the ensemble does not say whether a path goes on to the level.
    """
    if weights == LABELLER_ALONE:
        return labeller
    exists = labeller.sum(axis=1, keepdims=True)
    logs = weights.labeller * _log(labeller / np.maximum(exists, _SMALLEST)) + weights.ensemble * _log(ensemble)
    odds = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(exists * odds / odds.sum(axis=1, keepdims=True), dtype=np.float32)


def in_parts(images: int, outputs: int) -> list[slice]:
    """Parts of so many images that are looked at together, so that memory is bounded also where classes are many."""
    rows = max(1, _CELLS_AT_ONCE // outputs)
    return [slice(first, first + rows) for first in range(0, images, rows)]


def _log(distribution: Distribution) -> Distribution:
    return np.log(np.maximum(distribution, np.float32(_SMALLEST)))


_Loss = Callable[[npt.NDArray[np.float64]], tuple[float, npt.NDArray[np.float64]]]


def _fit_both(labeller: Distribution, ensemble: Distribution, wanted: npt.NDArray[np.int32]) -> Weights:
    if len(wanted) < _FEWEST_IMAGES:
        return LABELLER_ALONE
    loss = _penalised((labeller, ensemble), wanted, towards=(1.0, 0.0))
    both, found = _minimum(loss, [(0.0, _LARGEST), (0.0, _LARGEST)])
    alone, _ = _minimum(loss, [(0.0, _LARGEST), (0.0, 0.0)])
    if alone - both < _LEAST_GAIN:
        return LABELLER_ALONE
    return Weights(*found)


def _fit_ensemble(labeller: Distribution, ensemble: Distribution, wanted: npt.NDArray[np.int32]) -> Weights:
    if len(wanted) < _FEWEST_IMAGES:
        return Weights(0.0, 1.0)
    _, (weight,) = _minimum(_penalised((ensemble,), wanted, towards=(1.0,)), [(0.0, _LARGEST)])
    return Weights(0.0, weight)


def _minimum(loss: _Loss, bounds: Sequence[tuple[float, float]]) -> tuple[float, list[float]]:
    """The least loss between some bounds, and where it is. The loss is convex: there is one."""
    first = np.array([1.0, *[0.0] * (len(bounds) - 1)])
    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds)
    return float(found.fun), [round(float(each), 6) for each in found.x]


def _penalised(voices: Sequence[Distribution], wanted: npt.NDArray[np.int32], towards: Sequence[float]) -> _Loss:
    """Negative log-likelihood of the labels under the pool of some voices, and its gradient, as a function of weights.

    Half the squared distance of the weights from ``towards`` is added to it.
    """
    parts = in_parts(len(wanted), voices[0].shape[1])

    def loss(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        away = weights - np.asarray(towards)
        total, gradient = 0.5 * float(away @ away), away.copy()
        for part in parts:
            logs = [_log(voice[part]).astype(np.float64) for voice in voices]
            each = np.arange(len(logs[0]))
            score = sum((weight * log for weight, log in zip(weights, logs, strict=True)), np.zeros_like(logs[0]))
            score -= score.max(axis=1, keepdims=True)
            odds = np.exp(score)
            sums = odds.sum(axis=1)
            total += float((np.log(sums) - score[each, wanted[part]]).sum())
            odds /= sums[:, None]
            for number, log in enumerate(logs):
                gradient[number] += float(((odds * log).sum(axis=1) - log[each, wanted[part]]).sum())
        return total, gradient

    return loss
