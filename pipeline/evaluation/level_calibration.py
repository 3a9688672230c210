"""How the probabilities of the classes that labels name agree with how often they are right, level by level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from nstudent.evaluation.assess import Assessed
from nstudent.evaluation.calibration import calibration_error, reliability
from nstudent.evaluation.scores import LevelCalibration
from nstudent.taxonomy.tree import ABSENT, UNKNOWN, LabelArray


def calibration_of_levels(
    found: Assessed, uncalibrated: Assessed | None, truth: LabelArray, levels: Sequence[str]
) -> dict[str, LevelCalibration]:
    """Calibration of the classes that the paths name, by level; levels without an answer are left out.

    Args:
        found: What a classifier says of some images.
        uncalibrated: What its networks say of them without any temperature; ``None``: that is not looked at.
        truth: Their labels, (images, levels).
        levels: Names of the levels, coarse first.
    """
    made = {}
    for number, level in enumerate(levels):
        confidence, right, ended = _answers(found, truth, number)
        raw = None if uncalibrated is None else _answers(uncalibrated, truth, number)[:2]
        if len(right):
            error = calibration_error(confidence, right)
            made[level] = LevelCalibration(
                error=error.value,
                perfect=error.by_chance,
                bins=reliability(confidence, right),
                uncalibrated_error=calibration_error(*raw).value if raw and len(raw[1]) else None,
                uncalibrated_bins=reliability(*raw) if raw else (),
                ended=float(ended.mean()),
            )
    return made


def _answers(
    found: Assessed, truth: LabelArray, level: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Confidence of the classes named at a level whose truth is known, (answers,), and of each whether it is right.

    The last, (answers,), says whether the label ends above the level.
    """
    rows = (found.paths[:, level] >= 0) & (truth[:, level] != UNKNOWN)
    known = truth[rows, level]
    return found.confidence[rows, level], found.paths[rows, level] == known, known == ABSENT
