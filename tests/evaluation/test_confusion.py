"""Which classes are taken for each other, and the groups that they make."""

from pathlib import Path

import numpy as np
import pytest
from nstudent.errors import DataError
from nstudent.evaluation.confusion import Confusion, _between, best_number, proposed_groups

NAMES = tuple("abcdefgh")
KEY = ("test",)
# Two pairs of pairs: members of a pair are taken for each other with .3, pairs of one half with .05.
PAIRS = [["a", "e"], ["b", "f"], ["c", "g"], ["d", "h"]]
HALVES = [["a", "b", "e", "f"], ["c", "d", "g", "h"]]


def confusion(near: float = 0.3, far: float = 0.05) -> Confusion:
    said = np.zeros((8, 8))
    for row in range(8):
        for column in range(8):
            same_half = row % 4 // 2 == column % 4 // 2
            said[row, column] = near if row % 4 == column % 4 else far if same_half else 0.0
    np.fill_diagonal(said, 0)
    np.fill_diagonal(said, 1 - said.sum(axis=1))
    return Confusion(NAMES, said, 800, (), 1.0)


def test_golden_the_confusion_is_the_mean_of_what_is_said_of_a_class() -> None:
    said = np.array([[0.8, 0.2, 0.0], [0.6, 0.4, 0.0], [0.1, 0.9, 0.0]])
    found = Confusion.of(("x", "y", "z"), said, np.array([0, 0, 1]))
    assert (found.names, found.without, found.images) == (("x", "y"), ("z",), 3)
    assert found.right == 1.0
    # Of two images of x one is taken for y: a half, and all of y.
    assert Confusion.of(("x", "y"), np.array([[0.6, 0.4], [0.3, 0.7], [0.2, 0.8]]), np.array([0, 0, 1])).right == 0.75
    np.testing.assert_allclose(found.said, [[0.7, 0.3], [0.1, 0.9]])
    np.testing.assert_allclose(found.affinity, [[0, 0.2], [0.2, 0]], atol=1e-5)


def test_classes_that_are_taken_for_each_other_stand_together_level_by_level() -> None:
    groups = proposed_groups(confusion(), [2, 4], KEY)
    assert sorted(sorted(group.classes) for group in groups) == HALVES
    assert sorted(sorted(below.classes) for group in groups for below in group.below) == PAIRS
    assert {group.depth for group in groups} == {3}
    assert groups[0].below[0].note.endswith("are taken for each other with 30.0%")


def test_golden_two_groups_are_as_near_as_their_classes_are_in_the_mean() -> None:
    """A large group is not nearer to all others for having many classes."""
    affinity = np.array([[0.0, 0.4, 0.2], [0.4, 0.0, 0.1], [0.2, 0.1, 0.0]])
    np.testing.assert_allclose(_between(affinity, np.array([0, 0, 1])), [[0, 0.15], [0.15, 0]])


def test_the_number_of_groups_is_where_the_eigenvalues_have_their_gap() -> None:
    assert best_number(confusion(0.3, 0.01).affinity) == 4
    assert best_number(confusion(0.1, 0.1).affinity) == 2
    groups = proposed_groups(confusion(0.3, 0.01), [], KEY)
    assert sorted(sorted(group.classes) for group in groups) == PAIRS


def test_the_groups_do_not_depend_on_the_order_of_the_classes_nor_on_chance() -> None:
    order = np.array([3, 7, 0, 5, 1, 6, 2, 4])
    there = confusion()
    shuffled = Confusion(tuple(NAMES[i] for i in order), there.said[np.ix_(order, order)], 800, (), 1.0)
    for key in (("one",), ("two",)):
        groups = proposed_groups(shuffled, [2, 4], key)
        assert sorted(sorted(group.classes) for group in groups) == HALVES


def test_a_class_that_is_never_mistaken_is_a_group_of_its_own() -> None:
    said = np.eye(4)
    said[:3, :3] = [[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]]
    groups = proposed_groups(Confusion(tuple("wxyz"), said, 40, (), 1.0), [2], KEY)
    assert sorted(group.classes for group in groups) == [["w", "x", "y"], ["z"]]
    assert {group.name for group in groups if group.classes == ["z"]} == {"z"}


def test_a_classifier_that_is_always_right_still_gives_a_tree() -> None:
    groups = proposed_groups(Confusion(NAMES, np.eye(8), 80, (), 1.0), [3], KEY)
    assert sorted(name for group in groups for name in group.classes) == sorted(NAMES)
    assert len(groups) == 3


def test_numbers_that_make_no_tree_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--groups 4 2"):
        proposed_groups(confusion(), [4, 2], KEY)
