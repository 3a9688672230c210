"""Scores of five golden pairs (DESIGN 10), and what unknown and absent levels do to them."""

import numpy as np
import pytest
from nstudent.evaluation.assess import best_constant
from nstudent.evaluation.metrics import scores, tally
from nstudent.taxonomy.tree import Taxonomy

LEVELS = ("coarse", "mid", "fine")
A, B = 0, 1
A1, A2, B1 = 0, 1, 2
LEAF = {name: i for i, name in enumerate("abcde")}
NONE, UNKNOWN = -1, -2

# (predicted; true) in the tree A{A1{a,b},A2{c}}, B{B1{d,e}}
GOLDEN = [
    ([A, A1, LEAF["a"]], [A, A1, LEAF["b"]]),
    ([A, A2, LEAF["c"]], [A, A2, LEAF["c"]]),
    ([B, NONE, NONE], [B, B1, LEAF["d"]]),
    ([A, A1, LEAF["a"]], [B, B1, LEAF["d"]]),
    ([B, B1, LEAF["e"]], [B, NONE, NONE]),
]


def scored(*pairs: tuple[list[int], list[int]]) -> dict[str, float | None]:
    predicted, truth = (np.array(side, dtype=np.int32) for side in zip(*pairs, strict=True))
    return scores(tally(predicted, truth, LEVELS))


def test_golden_scores() -> None:
    found = scored(*GOLDEN)

    assert found["hierarchical precision"] == pytest.approx(7 / 13)
    assert found["hierarchical recall"] == pytest.approx(7 / 13)
    assert found["hierarchical F1"] == pytest.approx(7 / 13)
    assert found["level accuracy"] == pytest.approx(0.6)
    assert found["levels before a mistake"] == pytest.approx(0.6)
    assert found["whole path"] == pytest.approx(0.2)
    assert [found[f"accuracy/{level}"] for level in LEVELS] == pytest.approx([4 / 5, 2 / 4, 1 / 4])


def test_right_levels_below_a_wrong_one_count_alone_and_not_as_a_prefix() -> None:
    found = scored(([B, A1, LEAF["a"]], [A, A1, LEAF["a"]]))

    assert found["level accuracy"] == pytest.approx(2 / 3)
    assert found["levels before a mistake"] == 0


def test_a_class_where_there_is_none_costs_precision_and_never_the_level_accuracy() -> None:
    found = scored(([B, B1, LEAF["e"]], [B, NONE, NONE]))

    assert found["level accuracy"] == found["levels before a mistake"] == found["hierarchical recall"] == 1
    assert found["hierarchical precision"] == pytest.approx(1 / 3)
    assert found["whole path"] == 0


def test_an_unknown_level_counts_nowhere() -> None:
    wrong_or_right = [[A, A1, LEAF["a"]], [A, A1, LEAF["b"]], [A, A1, NONE]]

    found = [scored((predicted, [A, A1, UNKNOWN])) for predicted in wrong_or_right]

    assert found[0] == found[1] == found[2]
    assert found[0]["accuracy/fine"] is None
    assert found[0]["whole path"] is None
    assert found[0]["level accuracy"] == found[0]["levels before a mistake"] == found[0]["hierarchical precision"] == 1


def test_an_unknown_level_above_a_known_one_does_not_break_the_prefix() -> None:
    found = scored(([A, A1, LEAF["a"]], [A, UNKNOWN, LEAF["a"]]))

    assert found["levels before a mistake"] == found["level accuracy"] == 1


def test_an_image_without_any_label_changes_nothing() -> None:
    with_it = scored(*GOLDEN, ([A, A1, LEAF["a"]], [UNKNOWN] * 3))

    assert with_it == scored(*GOLDEN)


def test_all_right_is_one_everywhere() -> None:
    truths = [truth for _, truth in GOLDEN]

    assert set(scored(*zip(truths, truths, strict=True)).values()) == {1.0}


def test_the_order_of_images_does_not_matter() -> None:
    assert scored(*GOLDEN[::-1]) == pytest.approx(scored(*GOLDEN))


def test_level_accuracies_are_means_over_images_and_not_over_levels() -> None:
    """One image of one level all right, one of three levels all wrong: 1/2, although one level in four is right."""
    found = scored(([B, NONE, NONE], [B, NONE, NONE]), ([B, B1, LEAF["d"]], [A, A1, LEAF["a"]]))

    assert found["level accuracy"] == found["levels before a mistake"] == pytest.approx(0.5)


def test_the_best_constant_weighs_every_level_of_a_label() -> None:
    """No label is said more than twice, but half of all coarse classes are A: what scores best is below A."""
    tree = Taxonomy.from_labels([("A", "a"), ("A", "b"), ("B", "c")], ("coarse", "fine"))
    truth = np.array([[0, 0], [0, 1], [0, 1], [1, 2], [1, 2], [0, 0]], dtype=np.int32)
    assert scores(best_constant(truth, tree))["level accuracy"] == pytest.approx((4 + 2) / 12)


def test_the_best_constant_counts_the_first_class_of_a_level_as_any_other() -> None:
    tree = Taxonomy.from_labels([("A", "a"), ("B", "b")], ("coarse", "fine"))
    truth = np.array([[0, 0], [0, 0], [1, 1]], dtype=np.int32)
    assert scores(best_constant(truth, tree))["level accuracy"] == pytest.approx(2 / 3)
