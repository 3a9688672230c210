"""Multinomial logistic regression, as scikit-learn fits it, for a probe."""

from __future__ import annotations

import numpy as np
from nstudent.models.regression import Matrix, Solution

_INVERSE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
_LEAST_MASS = 1e-6
_UNSEEN = -30.0
"""Score, beside those of the others, of a path that no image has shown."""


class Logistic:
    """Multinomial logistic regression on standardised features."""

    name = "logistic regression"
    held_back_by = "C"
    strengths = _INVERSE_STRENGTHS

    def prepared(self, features: Matrix) -> Logistic:
        """See ``Regression``; nothing is found once."""
        return self

    def solve(self, features: Matrix, mass: Matrix, strength: float, weight: Matrix | None = None) -> Solution:
        """See ``Regression``; the strength is ``C``, the inverse of the penalty."""
        from sklearn import linear_model, preprocessing

        rows, paths = np.nonzero(mass > _LEAST_MASS)
        weights, bias = np.zeros((features.shape[1], mass.shape[1])), np.full(mass.shape[1], _UNSEEN)
        seen = np.unique(paths)
        if len(seen) == 1:
            bias[seen] = 0.0
            return Solution(weights, bias)
        scaler = preprocessing.StandardScaler().fit(features)
        coordinates, directions = _within_their_span(scaler.transform(features))
        model = linear_model.LogisticRegression(C=strength, max_iter=200)
        counts = mass if weight is None else mass * weight[:, None]
        model.fit(coordinates[rows], paths, sample_weight=counts[rows, paths])
        # Two classes have one row of coefficients, that of the second against the first.
        coefficients, intercept = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
        if len(seen) == 2:
            coefficients, intercept = np.vstack([-coefficients, coefficients]) / 2, np.r_[-intercept, intercept] / 2
        coefficients = coefficients @ directions
        weights[:, seen] = (coefficients / scaler.scale_).T
        bias[seen] = intercept - (coefficients * (scaler.mean_ / scaler.scale_)).sum(axis=1)
        return Solution(weights, bias)


def _within_their_span(features: Matrix) -> tuple[Matrix, Matrix]:
    """Features in fewer coordinates, if there are fewer points, and the directions of these in the space of features.

    Coefficients with the least norm lie in the span of the points, so that nothing is lost: ten times fewer are sought.
    """
    if features.shape[0] >= features.shape[1]:
        return features, np.eye(features.shape[1])
    left, lengths, directions = np.linalg.svd(features, full_matrices=False)
    return left * lengths, directions
