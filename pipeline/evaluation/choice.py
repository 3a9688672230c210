"""Which of several classifiers is expected to be best: what held-out images say of each, and what is known beforehand.

A few hundred held-out images tell two classifiers apart only if these differ by points, and the sign of a smaller
difference is a coin. So that difference is weighed against a prior, each by its precision: the result is the mean of
the posterior. Where images are few the prior decides, where they are many the images do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
from nstudent.evaluation.metrics import Ratio

Kind = Literal["reference", "labels", "probe", "soup", "heap", "pool"]
"""The reference is the first classifier that was trained on the labels alone, ``labels`` another such one, ``probe`` a
regression on features that are not trained, ``soup`` one network with the averaged weights of those of the reference,
``heap`` what learnt from labels of the heap as well; a ``pool`` is several of these together."""


class Expected(Protocol):
    """A candidate, of which something is expected and which costs something."""

    @property
    def expected(self) -> float:
        """Expected score minus that of the reference."""

    @property
    def gmacs(self) -> float:
        """Billions of multiply-adds for one image."""


AnyExpected = TypeVar("AnyExpected", bound=Expected)


@dataclass(frozen=True)
class Prior:
    """What a difference of headline scores is before anything is looked at, in shares: a normal distribution, of which
    a small part is wider, because a training can also fail, or be far too short."""

    mean: float
    deviation: float

    def mean_given(self, gap: float, error: float) -> float:
        """Mean of the posterior of a difference that was observed as ``gap``, with the standard error ``error``."""
        means, odds = [], []
        for share, deviation in ((1 - _UNUSUAL_SHARE, self.deviation), (_UNUSUAL_SHARE, _UNUSUAL_DEVIATION)):
            seen, known = 1 / error**2, 1 / deviation**2
            means.append((gap * seen + self.mean * known) / (seen + known))
            spread = error**2 + deviation**2
            odds.append(share * math.exp(-((gap - self.mean) ** 2) / (2 * spread)) / math.sqrt(spread))
        if not sum(odds):
            return means[-1]
        return sum(mean * odd for mean, odd in zip(means, odds, strict=True)) / sum(odds)


_UNUSUAL_SHARE = 0.1
_UNUSUAL_DEVIATION = 0.06


PRIORS: Mapping[Kind, Prior] = {
    # Against the reference, on test, in the 20 runs of the six core settings.
    "labels": Prior(0.005, 0.027),
    "heap": Prior(0.028, 0.021),
    # As good as a network, far better (pretrained features) or far worse (photos, gradients): next to nothing is known.
    "probe": Prior(-0.025, 0.1),
    # An ensemble of the same networks is a little better; where weights cannot be averaged the soup is one of them.
    "soup": Prior(-0.01, 0.015),
    # Against the best of its parts.
    "pool": Prior(0.0245, 0.02),
}
"""Where each number comes from stands in docs/METHOD.md, "Choosing"."""
WIDER_POOL = Prior(0.009, 0.0085)
"""The same of a pool against another one, all of whose parts it has, too."""


@dataclass(frozen=True)
class Contender:
    """A classifier, or a pool of several, and how it did on the held-out images."""

    name: str
    kind: Kind
    parts: tuple[str, ...]
    """Names of the contenders that a pool is made of; empty if it is no pool."""
    ratio: Ratio
    """Headline score of each image, (images, 2)."""


def paired_gap(first: Ratio, second: Ratio) -> tuple[float, float]:
    """The difference of two scores on the same images, first minus second, and its standard error.

    Two images are added on which the two differ by half an image, one way and the other, in each half of them
    (Agresti & Min 2005, doi:10.1002/sim.1781): classifiers that agree on all of a few images may still differ.

    Args:
        first: Numerator and denominator of each image, (images, 2); the denominators are 0 or 1.
        second: The same of the other classifier, with the same denominators.
    """
    counts = first[:, 1] > 0
    differences = first[counts, 0] - second[counts, 0]
    number, total = len(differences) + 2, float(differences.sum())
    spread = float((differences**2).sum()) + 1 - total**2 / number
    return total / max(1, len(differences)), float(np.sqrt(max(spread, 1 / number))) / number


def expected_gains(contenders: Iterable[Contender]) -> dict[str, float]:
    """Expected score of each contender minus that of the reference, by name; shares.

    A classifier is compared with the reference. A pool is compared with that part of it, or that pool of some of its
    parts, of which most is expected: the two are alike, so that a few images tell them apart, and a pool cannot win by
    what is known of one of its parts.

    Args:
        contenders: Exactly one is the reference; pools stand behind their parts, and behind pools of some of these.
    """
    every = list(contenders)
    (reference,) = (each for each in every if each.kind == "reference")
    ratios = {each.name: each.ratio for each in every}
    gains = {reference.name: 0.0}
    for each in every:
        if each is reference:
            continue
        narrower = [pool.name for pool in every if pool.parts and set(pool.parts) < set(each.parts)]
        against = max((*each.parts, *narrower), key=lambda name: gains[name]) if each.parts else reference.name
        prior = WIDER_POOL if against in narrower else PRIORS[each.kind]
        gap, error = paired_gap(each.ratio, ratios[against])
        gains[each.name] = gains[against] + prior.mean_given(gap, error)
    return gains


def best(candidates: Sequence[AnyExpected]) -> AnyExpected:
    """The candidate of which most is expected; of equals the cheapest, and of those the first."""
    return max(candidates, key=lambda each: (each.expected, -each.gmacs))
