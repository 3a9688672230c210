"""Mass on each class: one where a level teaches, zero where it does not."""

import numpy as np
import pytest
from nstudent.labels.targets import GivenTargets, PseudoTargets, Teaches
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from trees import outputs_of

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


# The coarse argmax of row 1 is B, and its path goes to A/a: the geometric mean and a threshold below .5 can do that.
STORED = [
    np.array([[0.7, 0.3], [0.45, 0.55]], np.float16),
    np.array([[0.1, 0.5, 0.4], [0.6, 0.1, 0.3]], np.float16),
]
PATHS = np.array([[0, 1], [0, 0]], dtype=np.int32)
KEEP = np.array([[True, True], [True, True]])
WAYS: tuple[Teaches, ...] = ("soft", "under_path", "hard")
OUTPUTS = Outputs(TREE, "class")
"""Coarse A and B; fine a, b and 'nothing', which is what stands below B and never below A."""


def taught(teaches: Teaches, rows: list[int], keep: np.ndarray = KEEP, paths: np.ndarray = PATHS) -> list[np.ndarray]:
    return list(PseudoTargets(STORED, paths, keep, OUTPUTS, teaches)(np.array(rows)))


@pytest.mark.parametrize("teaches", WAYS)
def test_mass_sums_to_one_where_kept_and_to_zero_elsewhere(teaches: Teaches) -> None:
    keep = np.array([[True, True], [True, False]])

    for level, mass in enumerate(taught(teaches, [0, 1], keep)):
        assert mass.sum(axis=1) == pytest.approx(keep[:, level].astype(float), abs=1e-6)
        assert mass.dtype == np.float32


def test_soft_targets_are_the_stored_distribution() -> None:
    coarse, fine = taught("soft", [0])

    assert coarse[0] == pytest.approx([0.7, 0.3], abs=1e-3)
    assert fine[0] == pytest.approx([0.1, 0.5, 0.4], abs=1e-3)


def test_hard_targets_are_the_stored_path_where_the_most_probable_class_is_another() -> None:
    coarse, fine = taught("hard", [1, 0])

    assert coarse.tolist() == [[1, 0], [1, 0]]
    assert fine.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_the_hard_target_of_a_path_that_ends_is_nothing() -> None:
    paths = np.array([[1, -1], [1, -1]], dtype=np.int32)

    coarse, fine = taught("hard", [0], paths=paths)

    assert coarse.tolist() == [[0, 1]]
    assert fine.tolist() == [[0, 0, 1]]


def test_mass_under_the_path_stays_below_the_class_that_is_kept_above() -> None:
    coarse, fine = taught("under_path", [0, 1])

    assert coarse[0] == pytest.approx([0.7, 0.3], abs=1e-3), "nothing stands above the first level"
    # 'Nothing' is only possible below B: .4 and .3 of mass are left out.
    assert fine[0] == pytest.approx([1 / 6, 5 / 6, 0], abs=1e-3)
    assert fine[1] == pytest.approx([6 / 7, 1 / 7, 0], abs=1e-3)


def test_under_a_class_without_children_only_nothing_is_possible() -> None:
    paths = np.array([[1, -1], [1, -1]], dtype=np.int32)

    _, fine = taught("under_path", [0, 1], paths=paths)

    assert fine.tolist() == [[0, 0, 1], [0, 0, 1]]


def test_below_the_end_of_a_path_only_nothing_is_possible() -> None:
    """Three levels: what is 'nothing' at the second is so at the third."""
    tree = Taxonomy.from_labels([("A", "a", "x"), ("A", "-", "-")], ("coarse", "mid", "fine"))
    outputs = Outputs(tree, "class")
    stored = [np.array([[1.0]]), np.array([[0.2, 0.8]]), np.array([[0.7, 0.3]])]

    mass = PseudoTargets(stored, np.array([[0, -1, -1]], np.int32), np.ones((1, 3), bool), outputs, "under_path")

    assert [level.tolist() for level in mass(np.array([0]))[1:]] == [
        [pytest.approx([0.2, 0.8])],
        [[0.0, 1.0]],
    ]


def test_where_half_precision_has_lost_the_mass_under_the_path_the_path_is_taught() -> None:
    stored = [np.array([[1.0, 0.0]], np.float16), np.array([[0.0, 0.0, 1.0]], np.float16)]

    _, fine = PseudoTargets(stored, PATHS[:1], KEEP[:1], OUTPUTS, "under_path")(np.array([0]))

    assert fine.tolist() == [[0, 1, 0]]


def test_the_rounding_of_the_store_is_taken_out_of_the_sum() -> None:
    many = np.random.default_rng(0).dirichlet(np.ones(500), 20).astype(np.float16)

    (mass,) = PseudoTargets([many], np.zeros((20, 1), np.int32), np.ones((20, 1), bool), outputs_of(500), "soft")(
        np.arange(20)
    )

    assert mass.sum(axis=1) == pytest.approx(np.ones(20), abs=1e-6)


def test_what_is_stored_stays_as_it_is() -> None:
    stored = [np.array([[0.5, 0.5]], np.float32), np.array([[0.2, 0.4, 0.4]], np.float32)]
    before = [level.copy() for level in stored]

    for teaches in WAYS:
        PseudoTargets(stored, PATHS[:1], KEEP[:1], OUTPUTS, teaches)(np.array([0]))

    assert all(np.array_equal(a, b) for a, b in zip(stored, before, strict=True))
