"""How bad mistakes are and how deep labels go, worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.evaluation.tree_scores import mistake_heights, tree_scores
from nstudent.taxonomy.tree import ABSENT, UNKNOWN, Taxonomy
from trees import ragged_trees

LEVELS = ("coarse", "mid", "fine")
# a to e are 0 to 4, A1, A2 and B1 are 0 to 2, A and B are 0 and 1.
TREE = Taxonomy.from_labels(
    [("A", "A1", "a"), ("A", "A1", "b"), ("A", "A2", "c"), ("B", "B1", "d"), ("B", "B1", "e"), ("B", "-", "-")], LEVELS
)
A, B, C, D = (0, 0, 0), (0, 0, 1), (0, 1, 2), (1, 2, 3)
B_ALONE = (1, ABSENT, ABSENT)


@pytest.mark.parametrize(
    ("said", "true", "height"),
    [(A, B, 1), (A, C, 2), (A, D, 3), (C, D, 3), (B_ALONE, D, 2), (D, B_ALONE, 2), (B_ALONE, A, 3)],
)
def test_golden_a_mistake_is_as_bad_as_the_lowest_common_ancestor_is_high(
    said: tuple[int, ...], true: tuple[int, ...], height: int
) -> None:
    assert mistake_heights(np.array([said], np.int32), np.array([true], np.int32), TREE).tolist() == [height]


def test_golden_severity_is_the_mean_over_mistakes_alone() -> None:
    """Heights 1, 3 and 2 of three mistakes; one label is right, and of one nobody knows the fine class."""
    said = np.array([B, A, B_ALONE, A, A], np.int32)
    truth = np.array([A, D, D, A, (0, 1, UNKNOWN)], np.int32)

    found = tree_scores(said, truth, TREE)

    assert (found.severity, found.mistakes) == (pytest.approx(2.0), 3)


def test_golden_coverage_falls_with_depth_and_what_is_said_is_right_more_often_or_not() -> None:
    """Fine exists for A, D and D and is named for the first two, of which one is right; mid of the last is unknown."""
    said = np.array([A, A, B_ALONE, B_ALONE, A], np.int32)
    truth = np.array([A, D, D, B_ALONE, (0, UNKNOWN, UNKNOWN)], np.int32)

    reach = tree_scores(said, truth, TREE).reach

    assert {name: (each.coverage, each.right) for name, each in reach.items()} == {
        "coarse": (1.0, pytest.approx(4 / 5)),
        "mid": (pytest.approx(2 / 3), 0.5),
        "fine": (pytest.approx(2 / 3), 0.5),
    }


def test_a_class_that_is_named_where_there_is_none_is_wrong_and_covers_nothing() -> None:
    reach = tree_scores(np.array([D], np.int32), np.array([B_ALONE], np.int32), TREE).reach

    assert (reach["fine"].coverage, reach["fine"].right) == (None, 0.0)


def test_without_a_mistake_or_a_label_there_is_nothing_to_say() -> None:
    found = tree_scores(np.array([B_ALONE], np.int32), np.array([B_ALONE], np.int32), TREE)

    assert (found.severity, found.mistakes, found.reach["fine"].right) == (None, 0, None)


@settings(max_examples=40, deadline=None, database=None)
@given(tree=ragged_trees(), seed=st.integers(0, 1000))
def test_a_mistake_is_at_least_one_level_high_and_no_higher_than_the_root(tree: Taxonomy, seed: int) -> None:
    random = np.random.default_rng(seed)
    said, true = (tree.terminal_rows[random.integers(len(tree.terminals), size=20)] for _ in range(2))
    wrong = (said != true).any(axis=1)

    heights = mistake_heights(said[wrong], true[wrong], tree)

    assert ((heights >= 1) & (heights <= tree.num_levels)).all()
    np.testing.assert_array_equal(heights, mistake_heights(true[wrong], said[wrong], tree))
