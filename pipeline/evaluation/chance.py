"""Whether a classifier is better than chance, told apart from whether there are images enough to say so."""

from __future__ import annotations

from typing import Literal

import numpy as np
from nstudent.evaluation.bootstrap import paired_difference
from nstudent.evaluation.metrics import Ratio

Skill = Literal["shown", "none", "too few images"]

_SURE = 0.95
"""Probability, by paired bootstrap, with which a classifier has to beat the best constant answer."""


def skill_of(made: Ratio, constant: Ratio) -> Skill:
    """Whether a classifier is better than the best constant answer on the same held-out images.

    The constant answer can be beaten on the images it does not get wholly right, and nowhere else. If these are so few
    that getting a quarter of them right, and everything else too, would not surely be better, then a classifier that
    is not surely worse is not blamed for it: of 16 images with one defect, a perfect classifier beats "no defect" in
    82 % of the resamples.

    Args:
        made: Headline score of each image by the classifier, (images, 2): numerator and denominator.
        constant: The same by the best constant answer.
    """
    ahead = paired_difference(made, constant).probability
    if ahead > _SURE:
        return "shown"
    if ahead < 1 - _SURE:
        return "none"
    return "none" if paired_difference(_quarter_right(constant), constant).probability > _SURE else "too few images"


def _quarter_right(constant: Ratio) -> Ratio:
    """The score of a classifier that is right wherever the constant answer is, and on a quarter of the other images."""
    wrong = np.flatnonzero(constant[:, 0] < constant[:, 1])
    made = constant.copy()
    gained = wrong[: len(wrong) // 4]
    made[gained, 0] = made[gained, 1]
    return made
