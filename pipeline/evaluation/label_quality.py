"""How right machine-made labels are, held against the truth that training never saw."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from nstudent.taxonomy import LabelArray

Keep = npt.NDArray[np.bool_]


def kept_quality(labels: LabelArray, truth: LabelArray, keep: Keep, levels: Sequence[str]) -> dict[str, Any]:
    """Per level, the precision of the kept labels and the share of images that have one.

    Precision is ``None`` where the truth of no kept label is known.

    Args:
        labels: (rows, levels).
        truth: (rows, levels); negative where it is absent or unknown.
        keep: (rows, levels).
        levels: Names of the levels.
    """
    quality = {}
    for i, name in enumerate(levels):
        # A class where the truth is that there is none is a wrong label; an unknown truth says nothing.
        judged = keep[:, i] & (truth[:, i] >= -1)
        right = judged & (labels[:, i] == truth[:, i])
        quality[name] = {
            "precision": float(right.sum() / judged.sum()) if judged.any() else None,
            "kept": int(keep[:, i].sum()),
            "share": float(keep[:, i].mean()) if len(keep) else 0.0,
        }
    return quality


def detection_quality(given: LabelArray, truth: LabelArray, keep: Keep, levels: Sequence[str]) -> dict[str, Any]:
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
        quality[name] = {
            "judged": int(judged.sum()),
            "wrong": int(wrong.sum()),
            "dropped": int(dropped.sum()),
            "precision": found / int(dropped.sum()) if dropped.any() else None,
            "recall": found / int(wrong.sum()) if wrong.any() else None,
            "right among kept": float((judged & keep[:, i] & ~wrong).sum() / max(1, (judged & keep[:, i]).sum())),
        }
    return quality
