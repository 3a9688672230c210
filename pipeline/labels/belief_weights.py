"""How far a network's own beliefs about unlabelled images are to be followed: aligned with the labels, and weighted.

Distribution alignment is that of ReMixMatch (Berthelot et al., arXiv 1911.09785, section 3.1), the weight that of
SoftMatch (Chen et al., arXiv 2301.10921, equations 5 to 7). Both are applied level by level, and go by running means
over the steps of a training.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

_LEAST_SHARE = 1e-6
"""Added to the shares of classes that are divided by each other, as the authors' code does."""
_LEAST_VARIANCE = 1e-8
"""Confidences that differ by less than 1e-4 differ by rounding: they have the same weight."""


def aligned(said: Tensor, shares: Tensor, mean: Tensor) -> Tensor:
    """Distributions whose mean is drawn to the shares of the labels: normalised said * shares / mean.

    Args:
        said: (b, outputs).
        shares: Share of each output among the labels, (outputs,).
        mean: Mean of what was said of unlabelled images so far, (outputs,).
    """
    weighted = said * ((shares + _LEAST_SHARE) / (mean + _LEAST_SHARE))
    return weighted / weighted.sum(dim=1, keepdim=True)


def truncated_gaussian(confidence: Tensor, mean: Tensor, variance: Tensor, sigmas: float) -> Tensor:
    """SoftMatch's weight of an image: 1 from the mean confidence on, and below it the height of a Gaussian over 1.

    exp(-min(c - mean, 0)^2 / (2 variance / sigmas^2)): the weight of equation 7, with the standard deviation divided
    by ``sigmas``, which is 2 in the authors' code.

    Args:
        confidence: (b,) or (b, levels).
        mean: Mean of the confidence, () or (levels,).
        variance: Its variance, like ``mean``.
        sigmas: How many times narrower the Gaussian is than the confidences are spread.
    """
    below = (confidence - mean).clamp_max(0)
    return torch.exp(-below.square() * sigmas**2 / (2 * variance.clamp_min(_LEAST_VARIANCE)))


def confidences(marginals: Sequence[Tensor]) -> Tensor:
    """How sure each level is, (b, levels), from the marginals of a path posterior, (b, outputs) per level.

    That is the probability of the most probable output of the level, or that the path has ended above it, if that is
    more: an image whose path certainly ends is a sure one.
    """
    return torch.stack([torch.maximum(level.amax(dim=1), 1 - level.sum(dim=1)) for level in marginals], dim=1)


def only_as_deep(weights: Tensor) -> Tensor:
    """Weights of levels, (b, levels), of which none is larger than that of a level above it."""
    return torch.stack(list(accumulate(weights.unbind(dim=1), torch.minimum)), dim=1)


def revised(stored: Sequence[Tensor], own: Sequence[Tensor], weights: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """What images teach if a stored label gives way to an own belief as far as that is sure.

    One weight holds for all levels down to where the stored label ends, that of its deepest level: there the mass is
    (1 - weight) * stored + weight * own, a mixture of two distributions over paths and so another one. Further down
    the own belief counts by the weights of the levels. As these never rise on the way down, the mass of a class is at
    least that of all classes below it.

    Args:
        stored: Mass of the stored labels, (b, outputs) per level; zeros where a label has ended.
        own: Marginals of the own beliefs, like ``stored``.
        weights: Weight of the own belief, (b, levels), never rising along a row.

    Returns:
        The mass, like ``stored``, and for each image the weight at the deepest level of its stored label, (b,): at the
        last level, if it has none.
    """
    levels = torch.arange(len(stored), device=weights.device)
    taught = torch.stack([level.sum(dim=1) > 0 for level in stored], dim=1)
    deepest = torch.where(taught, levels, -1).amax(dim=1)
    at_end = weights.gather(1, torch.where(deepest < 0, len(stored) - 1, deepest)[:, None])
    counted = torch.where(levels <= deepest[:, None], at_end, weights)
    mass = tuple(
        (1 - counted[:, number, None]) * before + counted[:, number, None] * believed
        for number, (before, believed) in enumerate(zip(stored, own, strict=True))
    )
    return mass, at_end[:, 0]


def agreement(stored: Sequence[Tensor], own: Sequence[Tensor]) -> Tensor:
    """(2,): how many images have a stored label, and at how many of them the own belief names the same class.

    Both are asked at the deepest level of the stored label; the arguments are those of ``revised``.
    """
    right = torch.zeros_like(stored[0][:, 0])
    labelled = torch.zeros_like(right)
    for before, believed in zip(stored, own, strict=True):
        taught = before.sum(dim=1) > 0
        same = (before.argmax(dim=1) == believed.argmax(dim=1)).to(right.dtype)
        right, labelled = torch.where(taught, same, right), torch.maximum(labelled, taught.to(right.dtype))
    return torch.stack([labelled.sum(), right.sum()])


class BeliefMoments:
    """Running means over the steps: of what is said at each level, and of mean and variance of the confidences.

    The n-th step counts (1 - momentum) / (1 - momentum^n), so that the first one is taken as it is (arXiv 1610.02242,
    algorithm 2): the authors' trainings are a million steps long and can wait for the start to be forgotten.
    """

    def __init__(self, shares: Sequence[Tensor], momentum: float) -> None:
        """Begin without a step.

        Args:
            shares: Shares of the labels, (outputs,) per level, on the device: the mean that the first step is aligned
                by, so that nothing is changed there.
            momentum: Weight of the past, a step.
        """
        self._sizes = tuple(map(len, shares))
        self._momentum = momentum
        self._steps = 0
        self._said = torch.cat(list(shares))
        self._confidence = self._said.new_zeros((2, len(self._sizes)))

    @property
    def said(self) -> tuple[Tensor, ...]:
        """Mean distribution of each level over the images that have it, (outputs,) per level."""
        return torch.split(self._said, list(self._sizes))

    @property
    def confidence(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the confidence, (levels,) each."""
        return self._confidence[0], self._confidence[1]

    def sums(self, said: Sequence[Tensor], marginals: Sequence[Tensor], confidence: Tensor) -> Tensor:
        """What some images add to the means of a step, (numbers,): those of several processes can be added up.

        Args:
            said: Distribution per level, not aligned, (b, outputs).
            marginals: Marginals of their path posterior, (b, outputs) per level: an image counts at a level by the
                probability that it has one.
            confidence: (b, levels).
        """
        has = [level.sum(dim=1, keepdim=True) for level in marginals]
        # Near 1, as most are, squares of confidences would differ in their last digits alone.
        doubt = confidence - 1
        parts = [(level * there).sum(dim=0) for level, there in zip(said, has, strict=True)]
        return torch.cat([*parts, torch.cat(has, dim=1).sum(dim=0), doubt.sum(dim=0), doubt.square().sum(dim=0)])

    def take(self, sums: Tensor, images: int) -> None:
        """Take in a step: the ``sums`` of so many images, one at least."""
        levels = len(self._sizes)
        parts = torch.split(sums, [sum(self._sizes), levels, levels, levels])
        there = torch.cat([has.expand(size) for has, size in zip(parts[1], self._sizes, strict=True)])
        mean = parts[2] / images
        variance = ((parts[3] - images * mean.square()) / max(1, images - 1)).clamp_min(0)
        self._steps += 1
        weight = (1 - self._momentum) / (1 - self._momentum**self._steps)
        # A level that no image of the step has keeps its mean.
        now = torch.where(there > _LEAST_SHARE, parts[0] / there.clamp_min(_LEAST_SHARE), self._said)
        self._said = self._said + weight * (now - self._said)
        self._confidence = self._confidence + weight * (torch.stack([mean + 1, variance]) - self._confidence)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"steps": self._steps, "said": self._said, "confidence": self._confidence}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._steps = state["steps"]
        self._said = state["said"].to(self._said.device)
        self._confidence = state["confidence"].to(self._confidence.device)
