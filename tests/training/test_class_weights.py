from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nstudent.config.schema import TrainingConfig
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import ABSENT, UNKNOWN, Taxonomy
from nstudent.training.class_weights import class_shares, class_weights, heap_weights
from nstudent.training.losses import build_losses
from sklearn.utils.class_weight import compute_class_weight

TAXONOMY = Taxonomy.from_labels([("A", "a"), ("A", "b"), ("A", "c"), ("B", "-")], ("coarse", "fine"))
# 6 of A (4 a, 1 b, none of c, one whose fine class nobody said), 2 of B, which end there.
LABELS = np.array([[0, 0]] * 4 + [[0, 1]] + [[0, UNKNOWN]] + [[1, ABSENT]] * 2, dtype=np.int32)


def weights(absent: str = "ignore", **settings: Any) -> list[list[float]]:
    config = TrainingConfig(**{"class_weights": "balanced"} | settings)
    return [level.tolist() for level in class_weights(LABELS, Outputs(TAXONOMY, absent), config)]


def test_are_those_of_scikit_learn_over_the_classes_there_are() -> None:
    coarse, fine = weights()
    assert coarse == pytest.approx([8 / (2 * 6), 8 / (2 * 2)])
    assert coarse == pytest.approx(compute_class_weight("balanced", classes=np.array([0, 1]), y=LABELS[:, 0]).tolist())
    # Absent and unknown entries are no class: 5 fine labels of 2 classes remain.
    assert fine[:2] == pytest.approx([5 / (2 * 4), 5 / (2 * 1)])


def test_no_weight_is_above_the_cap() -> None:
    assert weights(class_weight_cap=2.0)[1][:2] == pytest.approx([5 / 8, 2.0])


@pytest.mark.parametrize(("policy", "expected"), [("one", 1.0), ("cap", 7.0), ("zero", 0.0)])
def test_a_class_without_an_image_has_the_weight_of_its_policy(policy: str, expected: float) -> None:
    assert weights(class_weight_missing=policy, class_weight_cap=7.0)[1][2] == expected


def test_where_nothing_is_a_class_it_has_a_weight_too() -> None:
    coarse, fine = weights(absent="class")
    assert len(coarse) == 2, "no path ends above the coarse level"
    # 7 fine labels of 3 kinds: 4 a, 1 b, 2 times nothing.
    assert [fine[0], fine[1], fine[3]] == pytest.approx([7 / (3 * 4), 7 / 3, 7 / (3 * 2)])


def test_none_is_one_for_every_output() -> None:
    assert weights(class_weights="none") == [[1, 1], [1, 1, 1]]
    assert weights(class_weights="none", absent="class") == [[1, 1], [1, 1, 1, 1]]


def test_a_level_that_nobody_labelled_has_the_policys_weight() -> None:
    unknown = np.array([[0, UNKNOWN], [1, UNKNOWN]], dtype=np.int32)
    config = TrainingConfig(class_weights="balanced", class_weight_missing="one")
    assert class_weights(unknown, Outputs(TAXONOMY), config)[1].tolist() == [1, 1, 1]


def test_the_labels_themselves_stay_as_they_were() -> None:
    before = LABELS.copy()
    weights(absent="class")
    assert np.array_equal(LABELS, before)


def test_effective_numbers_by_hand() -> None:
    """4 images of a and 1 of b, beta .9: effective numbers (1 - .9^4) / .1 = 3.439 and 1; the weights add up to 2."""
    fine = weights(class_weights="effective_number", class_weight_beta=0.9)[1]
    together = 1 / 3.439 + 1
    assert fine[:2] == pytest.approx([2 / 3.439 / together, 2 / together])
    assert fine[2] == 1.0, "the policy of a class without an image"


@pytest.mark.parametrize(("beta", "expected"), [(0.0, [1, 1]), (1 - 1e-12, [2 / 5, 8 / 5])])
def test_effective_numbers_lie_between_even_weights_and_those_by_frequency(beta: float, expected: list[float]) -> None:
    fine = weights(class_weights="effective_number", class_weight_beta=beta)[1]
    assert fine[:2] == pytest.approx(expected, rel=1e-6)


@given(counts=st.lists(st.integers(1, 5000), min_size=1, max_size=6), beta=st.floats(0, 1 - 1e-9))
def test_the_rarer_class_has_the_larger_effective_weight(counts: list[int], beta: float) -> None:
    classes = {f"c{number}": None for number in range(len(counts))}
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[:, None]
    config = TrainingConfig(class_weights="effective_number", class_weight_beta=beta, class_weight_cap=1e9)
    found = class_weights(labels, Outputs(Taxonomy.from_tree(classes, ("only",))), config)[0].double().numpy()
    assert found.sum() == pytest.approx(len(counts), rel=1e-5)
    order = np.argsort(counts, kind="stable")
    assert (np.diff(found[order]) <= 1e-6 * found.max()).all()


def test_left_open_the_beta_of_effective_numbers_is_999_thousandths() -> None:
    named = weights(class_weights="effective_number", class_weight_beta=0.999)
    assert weights(class_weights="effective_number") == named
    assert named != weights(class_weights="effective_number", class_weight_beta=0.99)


def test_shares_are_of_the_labels_that_name_a_class_and_never_zero() -> None:
    coarse, fine = class_shares(LABELS, Outputs(TAXONOMY))
    assert coarse.tolist() == pytest.approx([6 / 8, 2 / 8])
    assert fine.tolist() == pytest.approx([4 / 5, 1 / 5, 1 / 5]), "of c there is no image, and it counts as one"
    assert class_shares(LABELS, Outputs(TAXONOMY, "class"))[1].tolist() == pytest.approx([4 / 7, 1 / 7, 1 / 7, 2 / 7])


@pytest.mark.parametrize(("policy", "expected"), [("one", 1.0), ("cap", 7.0), ("zero", 0.0)])
def test_pseudo_labels_weigh_the_same_but_for_a_class_without_a_labelled_image(policy: str, expected: float) -> None:
    settings: dict[str, Any] = {"class_weights": "balanced", "class_weight_missing": policy, "class_weight_cap": 7.0}
    config, outputs = TrainingConfig(**settings), Outputs(TAXONOMY, "class")
    assert [level.tolist() for level in heap_weights(LABELS, outputs, config)] == [[1, 1], [1, 1, expected, 1]]
    _, of_heap = build_losses(config, LABELS, outputs, torch.device("cpu"))
    assert of_heap.weight([torch.eye(2), torch.eye(4)])[1].tolist() == [1, 1, expected, 1]


def test_without_class_weights_all_pseudo_labels_weigh_the_same() -> None:
    _, of_heap = build_losses(TrainingConfig(), LABELS, Outputs(TAXONOMY), torch.device("cpu"))
    assert [level.tolist() for level in of_heap.weight([torch.eye(2), torch.eye(3)])] == [[1, 1], [1, 1, 1]]
