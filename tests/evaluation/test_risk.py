import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nstudent.evaluation.risk import Depth

LEVELS = ("coarse", "fine")


def _fitted(risk: float, wrong: list[tuple[bool, bool]], sure: list[tuple[float, float]]) -> Depth:
    """Of images whose true class is 0 at both levels."""
    paths = np.array(wrong, dtype=np.int32)
    return Depth.fitted(risk, LEVELS, paths, np.array(sure, dtype=np.float32), np.zeros_like(paths))


def test_a_level_is_answered_down_to_where_too_many_answers_are_wrong() -> None:
    # 9 right ones, 1 wrong one, then 10 wrong ones: with 0.1 the first ten may be answered.
    wrong = [(i >= 9, True) for i in range(20)]
    sure = [(1 - i / 100, 0.5) for i in range(20)]
    coarse, fine = _fitted(0.1, wrong, sure).levels
    assert coarse.threshold == pytest.approx(0.91)
    assert (coarse.images, coarse.answers, coarse.wrong) == (20, 10, 1)
    # Below, all ten that are left are wrong.
    assert (fine.threshold, fine.images, fine.answers) == (None, 10, 0)


def test_equal_probabilities_are_answered_together_or_not_at_all() -> None:
    wrong = [(i >= 10, False) for i in range(12)]
    assert _fitted(0.1, wrong, [(0.9, 0.9)] * 12).levels[0].threshold is None
    assert _fitted(0.2, wrong, [(0.9, 0.9)] * 12).levels[0].answers == 12


def test_fewer_answers_than_could_hold_one_wrong_one_are_not_enough() -> None:
    few = _fitted(0.05, [(False, False)] * 19, [(0.9, 0.9)] * 19)
    assert few.levels[0].threshold is None
    assert few.levels[0].sentence().startswith("coarse: no answers, since no 20 of 19 held-out images")
    assert _fitted(0.05, [(False, False)] * 20, [(0.9, 0.9)] * 20).levels[0].threshold is not None


def test_an_unknown_truth_judges_nothing_and_a_class_where_there_is_none_is_wrong() -> None:
    paths = np.zeros((30, 2), dtype=np.int32)
    truth = np.array([[0, -2]] * 10 + [[0, -1]] * 10 + [[0, 0]] * 10, dtype=np.int32)
    sure = np.array([(0.9, 0.9)] * 10 + [(0.9, 0.5)] * 10 + [(0.9, 0.8)] * 10, dtype=np.float32)
    fine = Depth.fitted(0.1, LEVELS, paths, sure, truth).levels[1]
    assert (fine.images, fine.answers, fine.wrong) == (20, 11, 1) or (fine.answers, fine.wrong) == (10, 0)
    assert fine.threshold == pytest.approx(0.8)


def test_a_label_is_cut_at_its_first_unsure_level_and_not_below_it() -> None:
    depth = _fitted(0.05, [(False, False)] * 20, [(0.6, 0.3)] * 20)
    paths = np.array([[1, 2], [1, 2], [1, 2], [1, -1]], dtype=np.int32)
    sure = np.array([[0.7, 0.4], [0.7, 0.2], [0.5, 0.4], [0.7, 0.0]], dtype=np.float32)
    assert depth.cut(paths, sure).tolist() == [[1, 2], [1, -1], [-1, -1], [1, -1]]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=60))
def test_of_the_held_out_images_no_level_has_more_wrong_answers_than_asked(
    drawn: list[tuple[bool, bool, int, int]],
) -> None:
    wrong = [(a, b) for a, b, _, _ in drawn]
    sure = [((c + 1) / 10, (min(c, d) + 1) / 10) for _, _, c, d in drawn]
    depth = _fitted(0.2, wrong, sure)
    paths = np.array(wrong, dtype=np.int32)
    kept = depth.cut(paths, np.array(sure, dtype=np.float32)) >= 0
    for number, level in enumerate(depth.levels):
        answered = paths[kept[:, number], number]
        assert (len(answered), int(answered.sum())) == (level.answers, level.wrong)
        assert answered.sum() <= 0.2 * len(answered)
