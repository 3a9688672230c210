"""Machine-made labels against the truth."""

import numpy as np
import pytest
from nstudent.evaluation.label_quality import KeptQuality, detection_quality
from nstudent.evaluation.scores import LevelQuality

LEVELS = ("coarse", "fine")


def table(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.int32)


def kept_quality(
    labels: np.ndarray, truth: np.ndarray, keep: np.ndarray, levels: tuple[str, str]
) -> dict[str, dict[str, float | None]]:
    quality = KeptQuality(levels)
    quality.add(labels, truth, keep)
    return quality.found()


def test_golden_precision_of_kept_labels() -> None:
    labels = table([0, 0], [0, 1], [1, 2], [1, 3])
    truth = table([0, 0], [0, 0], [0, 1], [1, 3])
    keep = np.array([[1, 1], [1, 1], [1, 0], [1, 0]], bool)

    found = kept_quality(labels, truth, keep, LEVELS)

    assert found["coarse"] == LevelQuality(precision=0.75, kept=4, share=1.0)
    assert found["fine"] == LevelQuality(precision=0.5, kept=2, share=0.5)


def test_a_class_where_the_truth_is_absent_is_wrong_and_an_unknown_truth_says_nothing() -> None:
    found = kept_quality(table([0, 0], [0, 0], [0, 0]), table([0, 0], [0, -1], [0, -2]), np.ones((3, 2), bool), LEVELS)

    assert found["fine"] == LevelQuality(precision=0.5, kept=3, share=1.0)


def test_without_a_known_truth_there_is_no_precision() -> None:
    found = kept_quality(table([0, 0]), table([-2, -2]), np.ones((1, 2), bool), LEVELS)

    assert found["coarse"] == LevelQuality(precision=None, kept=1, share=1.0)


def test_no_rows_have_no_quality() -> None:
    found = kept_quality(np.zeros((0, 2), np.int32), np.zeros((0, 2), np.int32), np.zeros((0, 2), bool), LEVELS)

    assert found["coarse"] == LevelQuality(precision=None, kept=0, share=0.0)


def test_parts_add_up_to_the_whole() -> None:
    random = np.random.default_rng(0)
    labels, truth = random.integers(0, 3, (50, 2)), random.integers(-2, 3, (50, 2))
    keep = random.random((50, 2)) < 0.7
    parts = KeptQuality(LEVELS)
    for rows in (slice(0, 7), slice(7, 7), slice(7, 50)):
        parts.add(labels[rows], truth[rows], keep[rows])

    assert parts.found() == kept_quality(labels, truth, keep, LEVELS)


def test_golden_detection_of_wrong_labels() -> None:
    given = table([0, 0], [0, 1], [0, 2], [1, 3], [1, 4])
    truth = table([0, 0], [0, 0], [0, 0], [1, 3], [0, 0])
    keep = np.array([[1, 0], [1, 0], [1, 1], [1, 1], [0, 0]], bool)

    found = detection_quality(given, truth, keep, LEVELS)

    # Fine: rows 1, 2 and 4 are wrong, rows 0, 1 and 4 were dropped.
    assert found["fine"].wrong == 3
    assert found["fine"].dropped == 3
    assert found["fine"].precision == pytest.approx(2 / 3)
    assert found["fine"].recall == pytest.approx(2 / 3)
    assert found["fine"].right_among_kept == pytest.approx(1 / 2)
    assert (found["coarse"].wrong, found["coarse"].dropped) == (1, 1)
    assert found["coarse"].precision == found["coarse"].recall == found["coarse"].right_among_kept == 1


def test_levels_without_a_given_class_or_a_known_truth_are_not_judged() -> None:
    given, truth = table([0, -1], [0, -2], [0, 5]), table([0, 0], [0, 0], [-2, -2])

    found = detection_quality(given, truth, np.zeros((3, 2), bool), LEVELS)

    assert (found["fine"].wrong, found["fine"].dropped) == (0, 0)
    assert found["fine"].precision is None
    assert found["fine"].recall is None
    assert found["coarse"].dropped == 2
