"""What scores of right and wrong do not say of labels on a tree: how bad the mistakes are, and how deep labels go."""

import numpy as np
import numpy.typing as npt
from nstudent.evaluation.scores import LevelReach, TreeScores
from nstudent.taxonomy.tree import UNKNOWN, LabelArray, Taxonomy


def tree_scores(predicted: LabelArray, truth: LabelArray, taxonomy: Taxonomy) -> TreeScores:
    """Severity of the mistakes, and coverage of each level.

    Args:
        predicted: (images, levels); -1 below the end of a label.
        truth: (images, levels).
        taxonomy: The tree.
    """
    complete = (truth != UNKNOWN).all(axis=1)
    wrong = complete & (predicted != truth).any(axis=1)
    heights = mistake_heights(predicted[wrong], truth[wrong], taxonomy)
    return TreeScores(
        severity=float(heights.mean()) if len(heights) else None,
        mistakes=len(heights),
        reach={level: _reach(predicted[:, i], truth[:, i]) for i, level in enumerate(taxonomy.levels)},
    )


def mistake_heights(predicted: LabelArray, truth: LabelArray, taxonomy: Taxonomy) -> npt.NDArray[np.int64]:
    """Height of the lowest common ancestor of what is said and what is true (arXiv 1912.09393), in levels.

    It is the number of levels from there down to the deepest class below it. Of two labels one of which ends at a class
    of the other it is the height of that class.

    Args:
        predicted: Wrong labels, (images, levels); -1 below the end of a label.
        truth: Complete labels, (images, levels).
        taxonomy: The tree.
    """
    shared = np.logical_and.accumulate((predicted == truth) & (truth >= 0), axis=1).sum(axis=1)
    found = np.full(len(truth), max(taxonomy.heights[0]) + 1, dtype=np.int64)
    for level, heights in enumerate(taxonomy.heights):
        deepest = shared == level + 1
        found[deepest] = np.array(heights, dtype=np.int64)[truth[deepest, level]]
    return found


def _reach(predicted: npt.NDArray[np.int32], truth: npt.NDArray[np.int32]) -> LevelReach:
    exists, said = truth >= 0, (predicted >= 0) & (truth != UNKNOWN)
    return LevelReach(
        coverage=float(said[exists].mean()) if exists.any() else None,
        right=float((predicted == truth)[said].mean()) if said.any() else None,
    )
