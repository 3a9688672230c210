"""One round of self-training of a probe: it labels images of the heap by itself, and is fitted to them as well (KRR+).

What a regression says of the heap is brought to the frequencies of the labels, so that it does not teach itself the
classes that it favours anyway (distribution alignment, as in ReMixMatch, arXiv 1911.09785, section 3.1). It stays soft,
and counts a third of what a given label counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from nstudent.models.regression import Chosen, Matrix, Points, Rows, Solution, divided, held_out, judged, solved
from nstudent.randomness import Key
from scipy.special import softmax

_HEAP_WEIGHT = 1 / 3
_SMALLEST = 1e-12


class Choice(Protocol):
    """A regression that was chosen: of the labels alone, or self-trained."""

    @property
    def chosen(self) -> Chosen:
        """Its strength and sharpness, and how likely it makes labels that it was not fitted to."""

    def solve(self, points: Points) -> Solution:
        """Fit it to some points; its scores are not sharpened."""


@dataclass(frozen=True, eq=False)
class OfLabels:
    """A regression of the labels alone; a ``Choice``."""

    chosen: Chosen

    def solve(self, points: Points) -> Solution:
        """See ``Choice``."""
        return solved(self.chosen.regression, points, self.chosen.strength, self.chosen.sharpness)


@dataclass(frozen=True, eq=False)
class SelfTrained:
    """A regression of the labels and of what one of the labels says of the heap; a ``Choice``."""

    chosen: Chosen
    first: Chosen
    """That of the labels alone, which labels the heap. The strength is its."""
    heap: Matrix
    """Features of the images of the heap, (images, features)."""

    @classmethod
    def of(cls, first: Chosen, points: Points, heap: Matrix, key: Key) -> SelfTrained:
        """Train the choice of the labels alone once more, and judge it on the same parts of the same images.

        Args:
            first: What was chosen for these points with this key.
            points: The labelled images.
            heap: Features of images of the heap, (images, features).
            key: Decides how the images are divided.
        """
        plain = cls(first, first, heap)
        some, part_of = divided(points, key)
        scores = held_out(some, part_of, plain.solve)
        return cls(judged(first.regression, some, scores, first.strength), first, heap)

    def solve(self, points: Points) -> Solution:
        """See ``Choice``."""
        first = self.first
        teacher = solved(first.regression, points, first.strength, first.sharpness).sharpened(first.sharpness)
        # A label that leaves several paths open counts as what the first fit says of those.
        given = _normalised(softmax(teacher.scores(points.features), axis=1) * points.possible + _SMALLEST)
        named = points.possible.sum(axis=1) == 1
        given[named] = points.possible[named]
        own = softmax(teacher.scores(self.heap), axis=1)
        own = _normalised(own * given.mean(axis=0) / (own.mean(axis=0) + _SMALLEST))
        weight = np.concatenate([np.ones(len(given)), np.full(len(own), _HEAP_WEIGHT)])
        features, mass = np.vstack([points.features, self.heap]), np.vstack([given, own])
        return first.regression.solve(features, mass, first.strength, weight)


def _normalised(mass: Matrix) -> Matrix:
    return np.asarray(mass / mass.sum(axis=1, keepdims=True))


def said_held_out(choice: Choice, points: Points, key: Key, *, every: bool) -> tuple[Rows, Matrix]:
    """What a choice says of labelled images that it was not fitted to, of each without its mirror image.

    Args:
        choice: Made of these points with this key.
        points: The labelled images.
        key: Decides how the images are divided.
        every: Whether it is asked about all of them, or about those that a choice is made on.

    Returns:
        The images as the points number them, (images,), ascending, and the probability of each path, (images, paths).
    """
    some, part_of = divided(points, key, every=every)
    scores = held_out(some, part_of, choice.solve)
    images, first = np.unique(some.image, return_index=True)
    return np.asarray(images), np.asarray(softmax(scores[first] * choice.chosen.sharpness, axis=1))
