"""What makes a classifier's probabilities mean what they say, fitted on held-out images, and how well they do.

Temperatures are those of Guo et al. (arXiv 1706.04599), one a level; with the ends they are fitted together, as those
of one distribution over paths (``labels.path_posterior``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from nstudent.evaluation.scores import ReliabilityBin
from nstudent.labels.path_posterior import Calibration, path_masses, path_scale
from nstudent.labels.path_tree import PathTree, logarithms
from nstudent.randomness import generator
from nstudent.taxonomy.outputs import SILENT, Outputs
from nstudent.taxonomy.tree import ABSENT, LabelArray
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor

_MOST_WEIGHT, _LEAST_WEIGHT = 3.0, 0.02
"""Bounds on 1 / temperature. A few hundred images that are all right would ask for ever more confidence; a level that
adds nothing to the others may fall nearly silent."""
_LEAST_TEMPERED = 1 / 3
"""The same for a level by itself, which cannot leave its say to others."""
_MOST_END = 10.0
_WEIGHT_DEVIATION, _END_DEVIATION = 1.0, 1.0
"""Standard deviations of the prior of a weight, around 1 / levels, and of an end, around 0: worth a few images."""
_FEWEST_IMAGES = 10
"""Fewer labels fit noise: the calibration stays that of the prior."""

_CELLS_TO_FIT = 1 << 25
_FEWEST_TO_FIT = 2_000
"""A few numbers are known to a percent or two from so many images; more would only fill the memory."""
_CELLS_AT_ONCE = 1 << 20

_BINS = 15
_SIMULATIONS = 200

Distribution = npt.NDArray[np.float32]


def images_to_fit(ids: npt.NDArray[np.int64], outputs: Outputs) -> npt.NDArray[np.int64]:
    """Ids of the images that a calibration is fitted on: all of ``ids``, (images,), or some for many classes."""
    most = max(_FEWEST_TO_FIT, _CELLS_TO_FIT // sum(outputs.sizes))
    return ids if len(ids) <= most else ids[np.linspace(0, len(ids) - 1, most).astype(np.int64)]


def fit_temperatures(raw: Sequence[Distribution], labels: LabelArray, outputs: Outputs) -> tuple[float, ...]:
    """The temperature of each level, by itself, that makes the labels most likely; 1 where few are known.

    Args:
        raw: Distributions per level, (images, outputs).
        labels: (images, levels).
        outputs: Outputs of the model that predicted.
    """
    right = outputs.indices(labels)
    return tuple(_fit_temperature(level, right[:, number]) for number, level in enumerate(raw))


def _fit_temperature(distribution: Distribution, right: npt.NDArray[np.int32]) -> float:
    known = np.flatnonzero(right != SILENT)
    if len(known) < _FEWEST_IMAGES:
        return 1.0
    logs, wanted = logarithms(torch.from_numpy(distribution[known]).double()), torch.from_numpy(right[known]).long()

    def loss(weight: float) -> float:
        # The prior is that of a weight in the posterior, around 1.
        away = (weight - 1) / _WEIGHT_DEVIATION
        return float(torch.nn.functional.cross_entropy(logs * weight, wanted)) + away**2 / (2 * len(known))

    found = minimize_scalar(loss, bounds=(_LEAST_TEMPERED, _MOST_WEIGHT), method="bounded").x
    return round(float(1 / found), 6)


def fit_calibration(raw: Sequence[Distribution], labels: LabelArray, outputs: Outputs) -> Calibration:
    """The temperatures and ends that make the labels most likely, under a weak prior.

    Of each label counts the deepest class that is known: its probability is that of all paths through it. Of a label
    that ends, and for whose end the model has an output, it is that of its path.

    Args:
        raw: Pooled distributions per level, (images, outputs), before any calibration.
        labels: (images, levels).
        outputs: Outputs of the model that predicted.
    """
    fit = _Fit(raw, labels, outputs)
    found = minimize(fit.loss, fit.start, jac=True, method="L-BFGS-B", bounds=fit.bounds).x if fit.enough else fit.start
    num_levels = len(raw)
    weights, ends = found[:num_levels], [*found[num_levels:], 0.0]
    return Calibration(tuple(round(float(1 / w), 6) for w in weights), tuple(round(float(e), 6) for e in ends))


class _Fit:
    """The loss of a calibration on some images, and what bounds it.

    What is sought are the weights (1 / temperature) of the levels and then the ends of all depths but the last, float64
    (2 levels - 1,). In these the posterior is log-linear.
    """

    def __init__(self, raw: Sequence[Distribution], labels: LabelArray, outputs: Outputs) -> None:
        num_levels = len(raw)
        known = np.flatnonzero((labels >= 0).any(axis=1))
        self._raw, self._labels = [level[known] for level in raw], labels[known]
        self._tree = PathTree.of(outputs)
        self._table, self._column = _events(self._tree, self._labels, outputs)
        self.enough = len(known) >= _FEWEST_IMAGES
        self.start = np.array([1 / num_levels] * num_levels + [0.0] * (num_levels - 1))
        self._deviation = np.array([_WEIGHT_DEVIATION] * num_levels + [_END_DEVIATION] * (num_levels - 1))
        self.bounds = [(_LEAST_WEIGHT, _MOST_WEIGHT)] * num_levels + [(-_MOST_END, _MOST_END)] * (num_levels - 1)

    def loss(self, sought: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        """Negative log-posterior an image, and its gradient."""
        x = torch.tensor(sought, requires_grad=True)
        rows = max(1, _CELLS_AT_ONCE // len(self._tree.terminals))
        num_images, total, gradient = len(self._labels), 0.0, np.zeros_like(sought)
        for first in range(0, num_images, rows):
            part = -self._log_likelihood(slice(first, first + rows), x).sum() / num_images
            gradient += torch.autograd.grad(part, x)[0].numpy()
            total += part.item()
        away = (sought - self.start) / self._deviation
        return total + float(away @ away) / (2 * num_images), gradient + away / self._deviation / num_images

    def _log_likelihood(self, rows: slice, x: Tensor) -> Tensor:
        """Log-likelihood of the labels of some images, float64 (images,)."""
        num_levels = len(self._raw)
        weights, ends = x[:num_levels], torch.cat([x[num_levels:], x.new_zeros(1)])
        raw = (torch.from_numpy(level[rows]) for level in self._raw)
        logs = [logarithms(level.double()) * weight for level, weight in zip(raw, weights, strict=True)]
        paths = path_masses(self._tree, logs, path_scale(self._tree, weights), ends[self._tree.depths - 1])
        table, column = self._table[rows], self._column[rows]
        found = torch.zeros(len(table), dtype=torch.float64)
        for number, masses in enumerate((*self._tree.marginals(paths), paths)):
            here = np.flatnonzero(table == number)
            found = found.index_put((torch.from_numpy(here),), masses[here, column[here]])
        return (found + np.finfo(np.float64).tiny).log()


def _events(tree: PathTree, labels: LabelArray, outputs: Outputs) -> tuple[npt.NDArray[np.int64], ...]:
    """What each label says: a column of the marginals of a level, or of the paths, which stand behind the last level.

    Args:
        tree: The paths that the model can say.
        labels: (images, levels), each with a class that is known.
        outputs: Outputs of the model.

    Returns:
        The table and the column of each label, (images,) each.
    """
    rows, num_levels = np.arange(len(labels)), labels.shape[1]
    table = num_levels - 1 - (labels[:, ::-1] >= 0).argmax(axis=1)
    column = labels[rows, table].astype(np.int64)
    path_of = {tuple(path): number for number, path in enumerate(tree.terminals.tolist())}
    says_nothing = np.array([outputs.has_nothing(level) for level in range(num_levels)])
    for row in np.flatnonzero(((labels == ABSENT) & says_nothing).any(axis=1)).tolist():
        path = path_of.get(tuple(labels[row].tolist()))
        if path is not None:
            table[row], column[row] = num_levels, path
    return table, column


@dataclass(frozen=True)
class CalibrationError:
    """How far confidence is from how often it is right; shares, 0 to 1."""

    value: float
    """Expected calibration error."""
    by_chance: float
    """What perfect calibration shows, on average, with as many answers of the same confidence."""


def calibration_error(confidence: npt.NDArray[np.floating], right: npt.NDArray[np.bool_]) -> CalibrationError:
    """Expected calibration error (Naeini et al., AAAI 2015), in bins of equal width, and what chance alone makes of it.

    Args:
        confidence: Probability that each answer is right, (answers,), at least one.
        right: Whether it is, (answers,).
    """
    sure = confidence.astype(np.float64)
    bins = _bins_of(sure)

    def error(truth: npt.NDArray[np.bool_]) -> float:
        return float(np.abs(np.bincount(bins, sure - truth, minlength=_BINS)).sum() / len(sure))

    random = generator("calibration error", len(sure))
    chance = [error(random.random(len(sure)) < sure) for _ in range(_SIMULATIONS)]
    return CalibrationError(error(right), float(np.mean(chance)))


def reliability(confidence: npt.NDArray[np.floating], right: npt.NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    """The bins of ``calibration_error`` that hold an answer, the least sure first; the arguments are the same."""
    sure = confidence.astype(np.float64)
    bins = _bins_of(sure)
    answers = np.bincount(bins, minlength=_BINS)
    sums = np.bincount(bins, sure, minlength=_BINS), np.bincount(bins, right, minlength=_BINS)
    return tuple(
        ReliabilityBin(float(sums[0][i] / answers[i]), float(sums[1][i] / answers[i]), int(answers[i]))
        for i in np.flatnonzero(answers)
    )


def _bins_of(confidence: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The bin of each answer, (answers,)."""
    return np.clip((confidence * _BINS).astype(np.int64), 0, _BINS - 1)
