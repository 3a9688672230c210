"""Kernel ridge regression, as scikit-learn fits it, for a probe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from nstudent.models.regression import Matrix, Solution
from nstudent.randomness import Key, generator

if TYPE_CHECKING:
    from sklearn.kernel_approximation import Nystroem

_RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_MOST_POINTS = 10_000
"""Above it the kernel between all points, and the time to solve for it, is more than a minute's work."""
_LANDMARKS = 4_000
_SMALLEST = 1e-12


class KernelRidge:
    """Ridge regression of the mass on a Gaussian kernel, as wide as the median distance between the points.

    Of many points some are landmarks, and the kernel is what these make of it (Nystrom's method).
    """

    name = "kernel ridge regression"
    held_back_by = "ridge"
    strengths = _RIDGES

    def __init__(self, key: Key, landmarks: Nystroem | None = None) -> None:
        """``key`` decides which points are landmarks, unless there are ``landmarks`` already."""
        self._key = key
        self._landmarks = landmarks

    def prepared(self, features: Matrix) -> KernelRidge:
        """See ``Regression``; which points are landmarks decides most of the work."""
        if len(features) <= _MOST_POINTS:
            return self
        return KernelRidge(self._key, self._landmarks_of(features))

    def solve(self, features: Matrix, mass: Matrix, strength: float, weight: Matrix | None = None) -> Solution:
        """See ``Regression``; the strength is the ridge."""
        from sklearn import kernel_ridge, linear_model

        even = mass - 1 / mass.shape[1]
        bias = np.zeros(mass.shape[1])
        if self._landmarks is None and len(features) <= _MOST_POINTS:
            scale = self._scale_of(features)
            model = kernel_ridge.KernelRidge(alpha=strength, kernel="rbf", gamma=scale)
            model.fit(features, even, sample_weight=weight)
            return Solution(np.asarray(model.dual_coef_), bias, features, scale)
        near = self._landmarks or self._landmarks_of(features)
        ridge = linear_model.Ridge(alpha=strength, fit_intercept=False)
        ridge.fit(near.transform(features), even, sample_weight=weight)
        return Solution(near.normalization_.T @ ridge.coef_.T, bias, near.components_, near.gamma)

    def _landmarks_of(self, features: Matrix) -> Nystroem:
        from sklearn import kernel_approximation

        number = int(generator(*self._key, "landmarks").integers(1 << 31))
        near = kernel_approximation.Nystroem(
            gamma=self._scale_of(features), n_components=_LANDMARKS, random_state=number
        )
        return near.fit(features)

    def _scale_of(self, features: Matrix) -> float:
        return 1 / _median_squared_distance(features, self._key)


def _median_squared_distance(features: Matrix, key: Key) -> float:
    """Median over pairs of points, of a thousand of them at most."""
    from sklearn.metrics.pairwise import euclidean_distances

    rows = generator(*key, "median").permutation(len(features))[:1_000]
    some = features[rows]
    squared = euclidean_distances(some, squared=True)[np.triu_indices(len(some), 1)]
    return float(np.median(squared[squared > _SMALLEST])) if (squared > _SMALLEST).any() else 1.0


def most_anchors(num_images: int, heap: int = 0) -> int:
    """The largest number of anchors of a kernel regression of so many images, with or without their mirror images, and
    of so many of the heap: with more points there can be fewer anchors."""
    numbers = num_images + heap, 2 * num_images + heap
    return max(points if points <= _MOST_POINTS else _LANDMARKS for points in numbers)
