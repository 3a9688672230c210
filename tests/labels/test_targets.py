"""Mass on each class: one where a level teaches, zero where it does not."""

import numpy as np
import pytest
from nstudent.labels.targets import GivenTargets, PseudoTargets
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy

TREE = Taxonomy.from_labels([("A", "a"), ("A", "b"), ("B", "-")], ("coarse", "fine"))
LABELS = np.array([[0, 1], [1, -1], [0, -2], [-2, -2]], dtype=np.int32)
ROWS = np.arange(4)


def test_given_labels_are_one_hot() -> None:
    coarse, fine = GivenTargets(LABELS, Outputs(TREE))(ROWS)

    assert coarse.tolist() == [[1, 0], [0, 1], [1, 0], [0, 0]]
    assert fine.tolist() == [[0, 1], [0, 0], [0, 0], [0, 0]]
    assert coarse.dtype == fine.dtype == np.float32


def test_absent_as_a_class_has_the_last_output_and_unknown_has_none() -> None:
    coarse, fine = GivenTargets(LABELS, Outputs(TREE, "class"))(ROWS)

    assert coarse.shape == (4, 2), "no path ends above the coarse level"
    assert fine.tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_rows_are_given_in_the_order_asked_for() -> None:
    coarse, _ = GivenTargets(LABELS, Outputs(TREE))(np.array([1, 1, 0]))

    assert coarse.tolist() == [[0, 1], [0, 1], [1, 0]]


STORED = [
    np.array([[0.7, 0.3], [0.2, 0.8]], np.float16),
    np.array([[0.1, 0.5, 0.4], [0.3, 0.3, 0.4]], np.float16),
]
KEEP = np.array([[True, True], [True, False]])


@pytest.mark.parametrize("hard", [False, True])
def test_mass_sums_to_one_where_kept_and_to_zero_elsewhere(hard: bool) -> None:
    mass = PseudoTargets(STORED, KEEP, hard=hard)(np.array([0, 1]))

    for level in range(2):
        assert mass[level].sum(axis=1) == pytest.approx(KEEP[:, level].astype(float), abs=1e-6)
        assert mass[level].dtype == np.float32


def test_soft_targets_are_the_stored_distribution() -> None:
    coarse, fine = PseudoTargets(STORED, KEEP, hard=False)(np.array([0]))

    assert coarse[0] == pytest.approx([0.7, 0.3], abs=1e-3)
    assert fine[0] == pytest.approx([0.1, 0.5, 0.4], abs=1e-3)


def test_hard_targets_are_the_most_probable_class() -> None:
    coarse, fine = PseudoTargets(STORED, KEEP, hard=True)(np.array([1, 0]))

    assert coarse.tolist() == [[0, 1], [1, 0]]
    assert fine.tolist() == [[0, 0, 0], [0, 1, 0]]


def test_the_rounding_of_the_store_is_taken_out_of_the_sum() -> None:
    many = np.random.default_rng(0).dirichlet(np.ones(500), 20).astype(np.float16)

    (mass,) = PseudoTargets([many], np.ones((20, 1), bool), hard=False)(np.arange(20))

    assert mass.sum(axis=1) == pytest.approx(np.ones(20), abs=1e-6)
