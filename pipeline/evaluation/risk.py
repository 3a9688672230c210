"""How deep into the tree a label can go if only a given share of the answers may be wrong, found on held-out images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nstudent.taxonomy.tree import ABSENT, UNKNOWN, LabelArray

Confidence = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LevelRisk:
    """What is answered at one level, and how that went on held-out images."""

    level: str
    threshold: float | None
    """Least probability of a class with which it is an answer; ``None``: there is no answer at this level."""
    images: int
    """Number of held-out images that have an answer above this level and a class at this level, as far as is known."""
    answers: int
    """Number of these that are answered."""
    wrong: int
    """Number of the answers that are wrong."""
    fewest: int
    """Number of answers that would have been needed for any."""

    def sentence(self) -> str:
        """What is answered at this level, in words."""
        if self.threshold is None:
            return (
                f"{self.level}: no answers, since no {self.fewest} of {self.images:,} held-out images are answered "
                "well enough"
            )
        return (
            f"{self.level}: answered from a probability of {self.threshold:.3f} on; of {self.images:,} held-out images "
            f"{self.answers:,} are, {self.wrong:,} of them wrong ({self.wrong / self.answers:.1%})"
        )


@dataclass(frozen=True)
class Depth:
    """Where labels are cut: at the first level that is not sure enough.

    A classifier that may abstain trades answers for errors by a threshold on its confidence (Chow, doi
    10.1109/TIT.1970.1054406; Geifman & El-Yaniv, arXiv 1705.08500). Here each level has one, since a path can be sure
    of a class and not of what is below it.
    """

    risk: float
    """Largest share of the answers of a level that may be wrong."""
    levels: tuple[LevelRisk, ...]

    @classmethod
    def fitted(
        cls, risk: float, levels: Sequence[str], paths: LabelArray, confidence: Confidence, truth: LabelArray
    ) -> Depth:
        """The lowest thresholds with which at most ``risk`` of the answers of each level are wrong.

        The share is that of the held-out images themselves; of images like them it will be about that. A level with
        fewer answers than one wrong one would need (1 / risk) has none. Levels are looked at from the coarsest on, and
        only images that are answered above.

        Args:
            risk: Above 0 and below 1.
            levels: Names of the levels.
            paths: Labels of the classifier for held-out images, (images, levels).
            confidence: Probabilities along them, (images, levels).
            truth: Their true labels, (images, levels).
        """
        fewest = math.ceil(1 / risk)
        left = np.ones(len(paths), dtype=bool)
        found = []
        for number, level in enumerate(levels):
            said, sure, right = paths[:, number], confidence[:, number], truth[:, number]
            here = left & (said != ABSENT)
            judged = here & (right != UNKNOWN)
            order = np.argsort(-sure[judged], kind="stable")
            sorted_, wrong = sure[judged][order], np.cumsum((said != right)[judged][order])
            number_of = np.arange(1, len(order) + 1)
            # Equal probabilities are answered together or not at all.
            ends = np.append(sorted_[1:] < sorted_[:-1], True)[: len(order)]
            fit = np.flatnonzero(ends & (wrong <= risk * number_of) & (number_of >= fewest))
            best = int(fit[-1]) if len(fit) else None
            threshold = None if best is None else float(sorted_[best])
            answers, mistakes = (0, 0) if best is None else (best + 1, int(wrong[best]))
            found.append(LevelRisk(level, threshold, len(order), answers, mistakes, fewest))
            left = here & (sure >= threshold) if threshold is not None else np.zeros_like(left)
        return cls(risk, tuple(found))

    def cut(self, paths: LabelArray, confidence: Confidence) -> LabelArray:
        """Labels without what is not sure enough, and without all below that: (images, levels) both."""
        thresholds = np.array([np.inf if each.threshold is None else each.threshold for each in self.levels])
        kept = np.logical_and.accumulate(confidence >= thresholds, axis=1)
        return np.where(kept, paths, ABSENT).astype(np.int32)
