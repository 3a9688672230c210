"""The shares of several classifiers in a pool, from the probabilities that they give to the labels of held-out images.

What is maximised is the mean over images of the mean log-probability over the levels that are known, of the weighted
mean of the distributions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from nstudent.taxonomy.outputs import SILENT, Outputs
from nstudent.taxonomy.tree import LabelArray

Distribution = npt.NDArray[np.float32]
Weigh = Callable[[Sequence[Sequence[Distribution]], LabelArray, Outputs], tuple[float, ...]]
"""Weights of a pool, which sum to 1, from what each classifier gives per level, (images, outputs), before any
calibration, from the labels, (images, levels), and from the outputs of the classifiers."""

_SMALLEST = 1e-12
_FEWEST_IMAGES = 10
"""Fewer labels fit noise: all weigh the same."""
_SMALLEST_SHARE = 0.05
"""A classifier with a smaller share of a pool is left out: it is not worth its forward pass."""
_IMAGES_FOR_EACH = 5.0
"""Number of images that speak for each classifier of a pool beside the real ones. On the 180 validation images of
digits the likelihood alone gave all of the weight to the student, and .68 or .32 to either of two equals."""
_ROUNDS, _STILL = 1000, 1e-6
"""Expectation maximisation ends after so many rounds, or when no weight moves by more."""
_DRAWS = 20
"""Number of times that a classifier is put into the bag of a greedy selection: its shares are as fine as the smallest
share that counts."""
_LIKELIER = 1e-9
"""Least difference of log-likelihoods of all images that is more than a rounding error."""


def fit_pool_weights(raws: Sequence[Sequence[Distribution]], labels: LabelArray, outputs: Outputs) -> tuple[float, ...]:
    """The shares of several classifiers in a pool that make the labels most likely; a small share is made 0.

    By expectation maximisation (Dempster et al. 1977), as for the weights of a mixture. Weights that are alike are more
    probable beforehand (a Dirichlet prior).

    Args:
        raws: Of each classifier the pooled distributions per level, (images, outputs), before any calibration.
        labels: (images, levels).
        outputs: Outputs of the classifiers.

    Returns:
        A weight for each classifier; they sum to 1.
    """
    shown, counts = _shown(raws, labels, outputs)
    if not len(counts):
        return (1 / len(raws),) * len(raws)
    weights = _mixture(shown, counts, np.ones(len(raws)))
    while ((small := weights < _SMALLEST_SHARE) & (weights > 0)).any():
        weights = _mixture(shown, counts, np.where(small, 0.0, weights))
    return tuple(round(weight, 6) for weight in weights.tolist())


def select_pool(raws: Sequence[Sequence[Distribution]], labels: LabelArray, outputs: Outputs) -> tuple[float, ...]:
    """The shares of several classifiers in a bag that is filled one by one, each time with the one that helps most.

    Forward stepwise selection with replacement (Caruana et al., "Ensemble selection from libraries of models", ICML
    2004, sections 2 and 2.1): the bag begins with the likeliest classifier, one may come in again and again, of equals
    the first comes in, and of the bags that there were the likeliest counts. There is no prior: a classifier that adds
    nothing is left out.

    Args:
        raws: As of ``fit_pool_weights``.
        labels: (images, levels).
        outputs: Outputs of the classifiers.

    Returns:
        A weight for each classifier, its number in the bag over that of all; they sum to 1.
    """
    shown, counts = _shown(raws, labels, outputs)
    if not len(counts):
        return (1 / len(raws),) * len(raws)
    bag, held = np.zeros(len(raws), dtype=int), np.zeros(len(counts))
    kept, likelihood = bag, -np.inf
    for size in range(1, _DRAWS + 1):
        likelihoods = counts @ np.log(np.maximum((held[:, None] + shown) / size, _SMALLEST))
        # Not the largest by a rounding error: of equals the first.
        best = int((likelihoods >= likelihoods.max() - _LIKELIER).argmax())
        held, bag = held + shown[:, best], bag + (np.arange(len(raws)) == best)
        if likelihoods[best] > likelihood + _LIKELIER:
            kept, likelihood = bag, likelihoods[best]
    return tuple(round(number / int(kept.sum()), 6) for number in kept.tolist())


POOL_WEIGHTS: Mapping[str, Weigh] = {"likelihood": fit_pool_weights, "greedy": select_pool}
"""By the name in a configuration."""


def _shown(
    raws: Sequence[Sequence[Distribution]], labels: LabelArray, outputs: Outputs
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The probability of each known label by each classifier, (labels, classifiers), and how much each label counts.

    The labels of an image count 1 together. There are none if too few images have any.
    """
    right = outputs.indices(labels)
    known = right != SILENT
    images, levels = np.nonzero(known)
    if len(np.unique(images)) < _FEWEST_IMAGES:
        return np.empty((0, len(raws))), np.empty(0)
    shown = np.empty((len(images), len(raws)))
    for number, raw in enumerate(raws):
        for level, distribution in enumerate(raw):
            here = np.flatnonzero(levels == level)
            shown[here, number] = distribution[images[here], right[images[here], level]]
    return shown, np.asarray(1 / known.sum(axis=1)[images])


def _mixture(
    shown: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The most probable weights of columns of whose weighted mean the rows are; those that start at 0 stay there.

    Args:
        shown: Probability of each row by each column, (rows, columns).
        counts: How much each row counts, (rows,).
        weights: Where to start, (columns,).
    """
    shown, weights = np.maximum(shown, _SMALLEST), weights / weights.sum()
    prior = np.where(weights > 0, _IMAGES_FOR_EACH, 0.0)
    for _ in range(_ROUNDS):
        responsible = shown * weights
        responsible /= responsible.sum(axis=1, keepdims=True)
        before, weights = weights, np.asarray((counts @ responsible + prior) / (counts.sum() + prior.sum()))
        if np.abs(weights - before).max() < _STILL:
            break
    return weights
