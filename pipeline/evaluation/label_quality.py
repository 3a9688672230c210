"""How right machine-made labels are, held against the truth that training never saw."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from nstudent.evaluation.scores import DetectionQuality, LevelQuality
from nstudent.taxonomy.tree import LabelArray

Keep = npt.NDArray[np.bool_]


class KeptQuality:
    """Per level, the precision of the kept labels and the share of images that have one, added up part by part."""

    def __init__(self, levels: Sequence[str]) -> None:
        self._levels = tuple(levels)
        self._rows = 0
        self._judged, self._right, self._kept = (np.zeros(len(self._levels), dtype=np.int64) for _ in range(3))

    def add(self, labels: LabelArray, truth: LabelArray, keep: Keep) -> None:
        """Take in some rows.

        Args:
            labels: (rows, levels).
            truth: (rows, levels); negative where it is absent or unknown.
            keep: (rows, levels).
        """
        # A class where the truth is that there is none is a wrong label; an unknown truth says nothing.
        judged = keep & (truth >= -1)
        self._rows += len(keep)
        self._judged += judged.sum(axis=0)
        self._right += (judged & (labels == truth)).sum(axis=0)
        self._kept += keep.sum(axis=0)

    def found(self) -> dict[str, LevelQuality]:
        """What the rows taken in so far amount to, by level."""
        counts = zip(self._levels, self._judged.tolist(), self._right.tolist(), self._kept.tolist(), strict=True)
        return {
            name: LevelQuality(
                precision=right / judged if judged else None,
                kept=kept,
                share=kept / self._rows if self._rows else 0.0,
            )
            for name, judged, right, kept in counts
        }


def detection_quality(
    given: LabelArray, truth: LabelArray, keep: Keep, levels: Sequence[str]
) -> dict[str, DetectionQuality]:
    """Per level, how well dropping finds wrong labels: precision and recall of 'dropped' for 'wrong'.

    Args:
        given: Labels as people gave them, (rows, levels).
        truth: What is right, (rows, levels).
        keep: False where the filter dropped the label, (rows, levels).
        levels: Names of the levels.
    """
    quality = {}
    for i, name in enumerate(levels):
        judged = (given[:, i] >= 0) & (truth[:, i] >= -1)
        wrong = judged & (given[:, i] != truth[:, i])
        dropped = judged & ~keep[:, i]
        found = int((wrong & dropped).sum())
        quality[name] = DetectionQuality(
            judged=int(judged.sum()),
            wrong=int(wrong.sum()),
            dropped=int(dropped.sum()),
            precision=found / int(dropped.sum()) if dropped.any() else None,
            recall=found / int(wrong.sum()) if wrong.any() else None,
            right_among_kept=float((judged & keep[:, i] & ~wrong).sum() / max(1, (judged & keep[:, i]).sum())),
        )
    return quality
