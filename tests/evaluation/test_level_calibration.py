"""How probabilities agree with how often they are right, level by level."""

import numpy as np
import pytest
from nstudent.evaluation.assess import Assessed
from nstudent.evaluation.level_calibration import calibration_of_levels
from nstudent.evaluation.metrics import tally
from nstudent.taxonomy.tree import ABSENT, UNKNOWN

LEVELS = ("coarse", "fine")


def test_an_answer_below_the_end_of_a_label_is_wrong_and_counted() -> None:
    paths = np.array([[0, 0], [0, 0], [0, 0], [0, 0], [1, ABSENT]], np.int32)
    truth = np.array([[0, 0], [0, 1], [0, ABSENT], [0, UNKNOWN], [1, 2]], np.int32)
    confidence = np.full((5, 2), 0.75, np.float32)
    found = Assessed(paths, confidence, tally(paths, truth, LEVELS))
    made = calibration_of_levels(found, None, truth, LEVELS)
    # Of the fine level the known answers are the first three: right, wrong, and below an end.
    assert made["fine"].ended == pytest.approx(1 / 3)
    assert made["fine"].error == pytest.approx(0.75 - 1 / 3)
    assert made["coarse"].ended == 0
    assert made["coarse"].error == pytest.approx(0.25)


def test_a_level_without_an_answer_is_left_out() -> None:
    paths = np.array([[0, ABSENT]], np.int32)
    found = Assessed(paths, np.ones((1, 2), np.float32), tally(paths, paths, LEVELS))
    assert list(calibration_of_levels(found, None, paths, LEVELS)) == ["coarse"]
