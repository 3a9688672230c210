"""Regressions from features to the paths of a tree, fitted by scikit-learn: what a probe learns.

How strongly a regression is held back, and how sure it may be, is chosen on images that it was not fitted to: the
images are divided, each part is predicted by a regression of the others, and what makes the labels most likely is
taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
from nstudent.randomness import Key, generator
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Matrix = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_PARTS = 5
_MOST_TO_CHOOSE = 2_000
"""Images that the strength is chosen on."""
_MOST_SHARPNESS = 100.0
_LEAST_MASS = 1e-6
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Points:
    """Images as a regression sees them."""

    features: Matrix
    """(points, features)."""
    possible: Matrix
    """(points, paths): 1 for each path that the label of the image leaves open, else 0."""
    image: Rows
    """The image that each point shows, (points,): its mirror image is another point of the same."""

    def of_images(self, images: Rows) -> Points:
        """The points of some images."""
        rows = np.flatnonzero(np.isin(self.image, images))
        return Points(self.features[rows], self.possible[rows], self.image[rows])


@dataclass(frozen=True)
class Solution:
    """What scikit-learn has found: scores are ``inputs @ weights + bias``, and probabilities their softmax.

    The inputs are the features themselves, or, of a kernel regression, exp(-scale * squared distance) to each anchor.
    """

    weights: Matrix
    """(inputs, paths)."""
    bias: Matrix
    """(paths,)."""
    anchors: Matrix | None = None
    """(inputs, features); ``None``: it is linear in the features."""
    scale: float = 0.0

    def sharpened(self, sharpness: float) -> Solution:
        """The same with scores that are so many times as large."""
        return Solution(self.weights * sharpness, self.bias * sharpness, self.anchors, self.scale)

    def scores(self, features: Matrix) -> Matrix:
        """(points, features) -> (points, paths)."""
        if self.anchors is None:
            return np.asarray(features @ self.weights + self.bias)
        from sklearn.metrics.pairwise import rbf_kernel

        return np.asarray(rbf_kernel(features, self.anchors, gamma=self.scale) @ self.weights + self.bias)


class Regression(Protocol):
    """One kind of regression."""

    @property
    def name(self) -> str:
        """What a person calls it."""

    @property
    def held_back_by(self) -> str:
        """Name of its strength."""

    @property
    def strengths(self) -> Sequence[float]:
        """What it may be held back by, to choose from."""

    def solve(self, features: Matrix, mass: Matrix, strength: float, weight: Matrix | None = None) -> Solution:
        """Fit it.

        Args:
            features: (points, features).
            mass: What each point has of each path, (points, paths); rows sum to 1.
            strength: One of ``strengths``.
            weight: How much each point counts, (points,); ``None``: all count 1.
        """

    def prepared(self, features: Matrix) -> Regression:
        """The same for fits to some points and to parts of them: what needs no labels is found once, in all of them.

        Args:
            features: Those of all points, (points, features).
        """


@dataclass(frozen=True)
class Chosen:
    """A regression with the strength that suits it best, and how it does on images that it is not fitted to."""

    regression: Regression
    strength: float
    sharpness: float
    """What its scores are multiplied by."""
    by_image: Matrix = field(compare=False, repr=False)
    """Log-probability of each image's label, the mean over its points, (images,)."""

    @property
    def likelihood(self) -> float:
        """Their mean."""
        return float(self.by_image.mean())

    def is_refuted_by(self, other: Chosen) -> bool:
        """Whether another finds the same labels likelier by more than the standard error of the difference."""
        gaps = other.by_image - self.by_image
        return len(gaps) > 1 and bool(gaps.mean() > gaps.std(ddof=1) / math.sqrt(len(gaps)))

    def described(self) -> str:
        """What was chosen, for a line on the screen."""
        return f"{self.regression.name}, {self.regression.held_back_by} {self.strength:g}"

    def fitted(self, points: Points) -> Solution:
        """The regression of all points."""
        solution = solved(self.regression, points, self.strength, self.sharpness)
        return solution.sharpened(self.sharpness)


def choose(regression: Regression, points: Points, key: Key) -> Chosen:
    """Choose the strength, on images that each regression was not fitted to.

    Args:
        regression: The kind of regression.
        points: What it is to learn.
        key: Decides how the images are divided.
    """
    points, part_of = divided(points, key)
    found = [
        judged(regression, points, held_out(points, part_of, partial(solved, regression, strength=strength)), strength)
        for strength in regression.strengths
    ]
    return max(found, key=lambda each: each.likelihood)


def divided(points: Points, key: Key, *, every: bool = False) -> tuple[Points, Rows]:
    """The points of the images that a choice is made on, or of every image, and the part that each of them is in,
    (points,)."""
    images = np.unique(points.image)
    random = generator(*key, "parts")
    if len(images) > _MOST_TO_CHOOSE and not every:
        images = np.sort(random.choice(images, _MOST_TO_CHOOSE, replace=False))
        points = points.of_images(images)
    return points, _parts(points, random)


def held_out(points: Points, part_of: Rows, solve: Callable[[Points], Solution]) -> Matrix:
    """Scores of each point by what ``solve`` makes of the other parts, (points, paths)."""
    scores = np.empty(points.possible.shape)
    for part in np.unique(part_of):
        out = part_of == part
        known = Points(points.features[~out], points.possible[~out], points.image[~out])
        scores[out] = solve(known).scores(points.features[out])
    return scores


def judged(regression: Regression, points: Points, scores: Matrix, strength: float) -> Chosen:
    """A regression by its ``held_out`` scores of some points."""
    sharpness = _best_sharpness(scores, points.possible)
    found = _log_probabilities(scores * sharpness, points.possible)
    _, image = np.unique(points.image, return_inverse=True)
    return Chosen(regression, strength, sharpness, np.bincount(image, found) / np.bincount(image))


def _parts(points: Points, random: np.random.Generator) -> Rows:
    """The part that each point is in: all of one image in the same, and of every label as many in each."""
    images, first = np.unique(points.image, return_index=True)
    _, label = np.unique(points.possible[first], axis=0, return_inverse=True)
    order = np.lexsort((random.permutation(len(images)), label.reshape(-1)))
    part = np.empty(len(images), dtype=np.int64)
    part[order] = np.arange(len(images)) % min(_PARTS, len(images))
    return part[np.searchsorted(images, points.image)]


def solved(regression: Regression, points: Points, strength: float, sharpness: float = 1.0) -> Solution:
    """Fit to the images whose labels name one path, then again with those that leave several open.

    These count as what the first fit says of the paths that are open (one round of expectation maximisation).
    """
    mass = points.possible / points.possible.sum(axis=1, keepdims=True)
    complete = points.possible.sum(axis=1) == 1
    if complete.all() or not complete.any():
        return regression.solve(points.features, mass, strength)
    first = regression.solve(points.features[complete], mass[complete], strength)
    said = np.exp(log_softmax(first.scores(points.features[~complete]) * sharpness, axis=1)) + _LEAST_MASS
    said *= points.possible[~complete]
    mass[~complete] = said / said.sum(axis=1, keepdims=True)
    return regression.solve(points.features, mass, strength)


def _best_sharpness(scores: Matrix, possible: Matrix) -> float:
    found = minimize_scalar(
        lambda log: -_log_probabilities(scores * np.exp(log), possible).mean(),
        bounds=(-3.0, np.log(_MOST_SHARPNESS)),
        method="bounded",
    )
    return float(np.exp(found.x))


def _log_probabilities(scores: Matrix, possible: Matrix) -> Matrix:
    """Log-probability of what the label of each point leaves open, (points,)."""
    open_ = (np.exp(log_softmax(scores, axis=1)) * possible).sum(axis=1)
    return np.asarray(np.log(open_ + _SMALLEST))


def mirrored(points: Points, features: Matrix) -> Points:
    """The points and their mirror images, whose features are ``features``, (points, features)."""
    possible, image = np.tile(points.possible, (2, 1)), np.tile(points.image, 2)
    return Points(np.vstack([points.features, features]), possible, image)
