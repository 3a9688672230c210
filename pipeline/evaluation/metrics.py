"""Scores of predicted labels, each a ratio of two sums over images.

Keeping numerator and denominator of every image makes one bootstrap serve all of them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from nstudent.evaluation.scores import HEADLINE, OF_A_LEVEL, STRICT, WHOLE_PATH
from nstudent.taxonomy.tree import UNKNOWN, LabelArray

Ratio = npt.NDArray[np.float64]
"""(images, 2): numerator and denominator."""
Tallies = dict[str, Ratio]


def tally(predicted: LabelArray, truth: LabelArray, levels: Sequence[str]) -> Tallies:
    """Per image, what each score sums up.

    A level whose truth is unknown counts nowhere. A predicted class where the truth is absent costs precision and the
    whole path, and never the level accuracy.

    accuracy/<level>         share of the images with a class at the level for which it is the predicted one
    level accuracy           matched levels / levels that exist; each level by itself
    levels before a mistake  the same, counting only the levels above the first mistake
    whole path               the whole path is right, absent levels included (images with no unknown level)
    hierarchical P, R, F1    precision, recall and F1 of the sets of predicted and true classes (Kiritchenko et al.,
                             2006)

    Args:
        predicted: (images, levels).
        truth: (images, levels).
        levels: Names of the levels.
    """
    exists, known = truth >= 0, truth != UNKNOWN
    said = (predicted >= 0) & known
    match = exists & (predicted == truth)
    prefix = np.logical_and.accumulate(match | ~known, axis=1) & match
    matched, existing, claimed = match.sum(axis=1), exists.sum(axis=1), said.sum(axis=1)
    complete = known.all(axis=1)
    share = np.maximum(existing, 1)
    labelled = existing > 0
    tallies = {f"{OF_A_LEVEL}{name}": _ratio(match[:, i], exists[:, i]) for i, name in enumerate(levels)}
    return tallies | {
        HEADLINE: _ratio(matched / share, labelled),
        STRICT: _ratio(prefix.sum(axis=1) / share, labelled),
        WHOLE_PATH: _ratio(complete & (predicted == truth).all(axis=1), complete),
        "hierarchical precision": _ratio(matched, claimed),
        "hierarchical recall": _ratio(matched, existing),
        "hierarchical F1": _ratio(2 * matched, claimed + existing),
    }


def scores(tallies: Mapping[str, Ratio]) -> dict[str, float | None]:
    """Each score over all images; ``None`` where no image has a say."""
    sums = {name: ratio.sum(axis=0) for name, ratio in tallies.items()}
    return {name: float(top / bottom) if bottom else None for name, (top, bottom) in sums.items()}


def _ratio(numerator: npt.NDArray[np.generic], denominator: npt.NDArray[np.generic]) -> Ratio:
    return np.stack([numerator, denominator], axis=1).astype(np.float64)
