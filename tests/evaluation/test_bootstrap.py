"""Intervals and paired differences by resampling images."""

import numpy as np
import pytest
from nstudent.evaluation.bootstrap import compared, interval, paired_difference
from nstudent.evaluation.metrics import tally
from nstudent.evaluation.scores import COMPARED, HEADLINE


def ratio(right: np.ndarray) -> np.ndarray:
    """Of images that all count once."""
    right = np.asarray(right, dtype=np.float64)
    return np.stack([right, np.ones_like(right)], axis=1)


def answers(count: int, share: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(count) < share


def test_the_interval_lies_about_the_value() -> None:
    right = answers(200, 0.7)

    found = interval(ratio(right), 1000, 0.95)

    assert found.value == pytest.approx(right.mean())
    assert found.low < found.value < found.high


def test_its_width_is_that_of_the_binomial() -> None:
    """1.96 standard errors to each side: sqrt(.25 / 400) = .025."""
    found = interval(ratio(np.arange(400) % 2), 2000, 0.95)

    assert found.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.006)
    assert found.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.006)


def test_more_confidence_is_wider() -> None:
    narrow, wide = (interval(ratio(answers(100, 0.6)), 1000, confidence) for confidence in (0.5, 0.99))

    assert wide.low < narrow.low < narrow.high < wide.high


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    found = [interval(ratio(answers(100, 0.7, seed)), 300, 0.9) for seed in range(100)]

    assert 80 <= sum(each.low <= 0.7 <= each.high for each in found) <= 99


def test_equal_answers_have_no_width() -> None:
    found = interval(ratio(np.ones(50)), 200, 0.95)

    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_no_image_with_a_say_has_no_interval() -> None:
    assert interval(np.zeros((5, 2)), 100, 0.95) is None


def test_the_same_images_give_the_same_interval() -> None:
    assert interval(ratio(answers(50, 0.5)), 300, 0.9) == interval(ratio(answers(50, 0.5)), 300, 0.9)


def test_images_without_a_say_change_the_value_of_nothing() -> None:
    right = ratio(answers(50, 0.5))

    assert interval(np.concatenate([right, np.zeros((20, 2))]), 300, 0.9).value == interval(right, 300, 0.9).value


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_equal_classifiers_are_even() -> None:
    right = ratio(answers(80, 0.6))

    found = paired_difference(right, right, 500, 0.95)

    assert (found.value, found.low, found.high, found.probability) == (0, 0, 0, 0.5)


def test_equal_classifiers_are_even_where_few_images_have_a_say() -> None:
    """A resample may hold no image with a say: it must count for neither side."""
    few = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])

    assert paired_difference(few, few, 500, 0.95).probability == pytest.approx(0.5)


def test_a_better_classifier_is_ahead_and_the_signs_are_right() -> None:
    worse = answers(300, 0.5)
    better = worse | answers(300, 0.2, seed=1)

    found = paired_difference(ratio(better), ratio(worse), 500, 0.95)
    reverse = paired_difference(ratio(worse), ratio(better), 500, 0.95)

    assert found.value == pytest.approx(better.mean() - worse.mean())
    assert 0 < found.low < found.value < found.high
    assert found.probability == 1
    assert (reverse.value, reverse.low, reverse.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert reverse.probability == 0


def test_pairing_makes_the_interval_narrower_than_two_of_them() -> None:
    """The two differ on three images in 300, although each by itself is uncertain by several points."""
    first = answers(300, 0.6)
    second = first.copy()
    second[np.flatnonzero(first)[:3]] = False

    found = paired_difference(ratio(first), ratio(second), 500, 0.95)
    alone = interval(ratio(first), 500, 0.95)

    assert found.high - found.low < (alone.high - alone.low) / 4


def test_the_difference_is_the_same_every_time() -> None:
    first, second = ratio(answers(60, 0.7)), ratio(answers(60, 0.6, seed=1))

    assert paired_difference(first, second, 300, 0.9) == paired_difference(first, second, 300, 0.9)


def test_classifiers_are_compared_by_the_scores_that_some_image_counts_for() -> None:
    """Where nobody knows the last level of any image, no whole path can be right or wrong."""
    levels, right, wrong = ("coarse", "fine"), np.tile([0, 1], (20, 1)), np.tile([1, 1], (20, 1))
    known, partly = np.tile([0, 1], (20, 1)), np.tile([0, -2], (20, 1))

    whole = compared(tally(right, known, levels), tally(wrong, known, levels), 100, 0.95)
    cut = compared(tally(right, partly, levels), tally(wrong, partly, levels), 100, 0.95)

    assert list(whole) == list(COMPARED)
    assert list(cut) == [HEADLINE]
    assert cut[HEADLINE].value == 1
