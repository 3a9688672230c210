from typing import Any

import numpy as np
import pytest
from nstudent.config.schema import TrainingConfig
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import ABSENT, UNKNOWN, Taxonomy
from nstudent.training.class_weights import class_weights
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
