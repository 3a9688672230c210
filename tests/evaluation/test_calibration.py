"""Calibrations are found again where they are known; confidence is held against what is right."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.evaluation import calibration as room
from nstudent.evaluation.calibration import (
    calibration_error,
    fit_calibration,
    fit_temperatures,
    images_to_fit,
)
from nstudent.labels.path_posterior import Calibration, PathPosterior
from nstudent.labels.path_tree import PathTree
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import UNKNOWN, LabelArray, Taxonomy
from trees import outputs_of, ragged_trees

FIVE = outputs_of(5)
LEVELS = ("coarse", "mid", "fine")
# Paths of one, two and three classes; A/A1 is a terminal that has classes below it.
TREE = Taxonomy.from_labels(
    [("A", "A1", "a"), ("A", "A1", "b"), ("A", "A1", "-"), ("A", "A2", "c"), ("B", "B1", "-"), ("C", "-", "-")], LEVELS
)

Levels = list[np.ndarray]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def drawn(outputs: Outputs, calibration: Calibration, count: int = 4000, seed: int = 0) -> tuple[Levels, LabelArray]:
    """Distributions that this calibration makes right, and labels drawn from what it makes of them."""
    random = np.random.default_rng(seed)
    raw = [softmax(random.normal(0, 1.5, (count, size))).astype(np.float32) for size in outputs.sizes]
    levels = PathPosterior(outputs, calibration).marginals([torch.from_numpy(level) for level in raw])
    known = PathTree.of(outputs)
    sums = known.masses(levels).double().cumsum(dim=1)
    at = (torch.from_numpy(random.random((count, 1))) * sums[:, -1:] > sums).sum(dim=1)
    return raw, known.terminals[at].numpy()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 2.5])
def test_a_known_temperature_is_found(temperature: float) -> None:
    raw, labels = drawn(FIVE, Calibration((temperature,), (0.0,)))

    found = fit_calibration(raw, labels, FIVE)

    assert found.temperatures == pytest.approx((temperature,), rel=0.06)
    assert found.ends == (0.0,)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 2.5])
def test_the_temperature_of_a_level_by_itself_is_found(temperature: float) -> None:
    raw, labels = drawn(FIVE, Calibration((temperature,), (0.0,)))

    assert fit_temperatures(raw, labels, FIVE) == pytest.approx((temperature,), rel=0.06)


def test_a_temperature_stays_within_a_third_and_three_though_every_answer_is_right_or_wrong() -> None:
    sure = np.full((30, 5), 0.01, dtype=np.float32)
    sure[:, 0] = 0.96
    right, wrong = np.zeros((30, 1), dtype=np.int32), np.ones((30, 1), dtype=np.int32)

    assert 1 / 3 <= fit_temperatures([sure], right, FIVE)[0] < 0.7
    assert 2 < fit_temperatures([sure], wrong, FIVE)[0] <= 3


def test_fewer_than_ten_labels_fit_no_temperature() -> None:
    sure = np.full((12, 5), 0.2, dtype=np.float32)
    labels = np.zeros((12, 1), dtype=np.int32)
    labels[9:] = -2

    assert fit_temperatures([sure], labels, FIVE) == (1.0,)


@pytest.mark.parametrize("absent", ["ignore", "class"])
def test_the_temperature_of_every_level_and_the_end_of_every_depth_are_found(absent: str) -> None:
    known = Calibration((2.0, 0.7, 1.2), (-1.0, 0.6, 0.0))
    raw, labels = drawn(Outputs(TREE, absent), known, count=8000)

    found = fit_calibration(raw, labels, Outputs(TREE, absent))

    assert found.temperatures == pytest.approx(known.temperatures, rel=0.12)
    assert found.ends == pytest.approx(known.ends, abs=0.12)


def test_labels_that_are_unknown_below_some_level_count_as_far_as_they_are_known() -> None:
    known = Calibration((2.0, 0.7, 1.2), (-1.0, 0.6, 0.0))
    raw, labels = drawn(Outputs(TREE), known, count=8000)
    partly = labels.copy()
    partly[::2, 2] = UNKNOWN
    partly[::4, 1] = UNKNOWN

    found = fit_calibration(raw, partly, Outputs(TREE))

    assert found.temperatures == pytest.approx(known.temperatures, rel=0.2)
    assert found.ends == pytest.approx(known.ends, abs=0.2)


def test_images_whose_label_is_not_known_at_all_have_no_say() -> None:
    raw, labels = drawn(Outputs(TREE), Calibration((2.0, 0.7, 1.2), (-1.0, 0.6, 0.0)), count=300)
    with_others = labels.copy()
    with_others[::3] = UNKNOWN
    kept = np.arange(300) % 3 != 0

    found = fit_calibration(raw, with_others, Outputs(TREE))

    assert found == fit_calibration([level[kept] for level in raw], labels[kept], Outputs(TREE))


def one_label(raw: list[list[float]], label: list[int], absent: str) -> float:
    """What the fit takes for the log-likelihood of one label, at temperatures of 1 and ends of 0."""
    arrays = [np.array([level], np.float32) for level in raw]
    fit = room._Fit(arrays, np.array([label], np.int32), Outputs(TREE, absent))
    return float(fit._log_likelihood(slice(0, 1), torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)))


def test_golden_likelihoods_of_labels_of_every_kind() -> None:
    """Paths A/A1/a, A/A1/b, A/A2/c and, with a say of two levels (to the power 3/2) and of one (3), B/B1 and C."""
    raw = [[0.5, 0.3, 0.2], [0.6, 0.1, 0.3], [0.2, 0.5, 0.3]]
    a, b, c, b1, c_alone = 0.5 * 0.6 * 0.2, 0.5 * 0.6 * 0.5, 0.5 * 0.1 * 0.3, (0.3 * 0.3) ** 1.5, 0.2**3
    total = a + b + c + b1 + c_alone

    for label, mass in (
        ([0, 0, 0], a),
        ([0, 0, UNKNOWN], a + b),
        ([0, UNKNOWN, UNKNOWN], a + b + c),
        # No output speaks for the end of A/A1, so that it is read as the class.
        ([0, 0, -1], a + b),
        ([1, 2, -1], b1),
        ([2, -1, -1], c_alone),
    ):
        assert one_label(raw, label, "ignore") == pytest.approx(np.log(mass / total), abs=1e-6), label


def test_golden_likelihoods_of_labels_that_end_where_an_output_speaks_for_it() -> None:
    """The last output of mid and fine is for nothing. A/A1 ends with .5 x .6 x .3, and A/A1/a has .5 x .6 x .2."""
    raw = [[0.5, 0.3, 0.2], [0.6, 0.1, 0.2, 0.1], [0.2, 0.3, 0.2, 0.3]]
    ends = {"A1": 0.5 * 0.6 * 0.3, "B1": 0.3 * 0.2 * 0.3, "C": 0.2 * 0.1 * 0.3}
    a, b, c = 0.5 * 0.6 * 0.2, 0.5 * 0.6 * 0.3, 0.5 * 0.1 * 0.2
    total = a + b + c + sum(ends.values())

    for label, mass in (
        ([0, 0, -1], ends["A1"]),
        ([0, 0, UNKNOWN], ends["A1"] + a + b),
        ([1, 2, -1], ends["B1"]),
        ([2, -1, -1], ends["C"]),
        ([0, 0, 0], a),
    ):
        assert one_label(raw, label, "class") == pytest.approx(np.log(mass / total), abs=1e-6), label


def test_a_handful_of_labels_fits_nothing() -> None:
    """Then it is what the decoder of raw distributions goes by: the geometric mean over the levels."""
    raw, labels = drawn(Outputs(TREE), Calibration((0.4, 0.4, 0.4), (3.0, 3.0, 0.0)), count=9)

    assert fit_calibration(raw, labels, Outputs(TREE)) == Calibration((3.0, 3.0, 3.0), (0.0, 0.0, 0.0))


def test_without_any_label_nothing_is_fitted() -> None:
    raw = [np.full((20, size), 1 / size, np.float32) for size in Outputs(TREE).sizes]

    found = fit_calibration(raw, np.full((20, 3), UNKNOWN, np.int32), Outputs(TREE))

    assert found == Calibration((3.0, 3.0, 3.0), (0.0, 0.0, 0.0))


@pytest.mark.parametrize("count", [10, 50])
def test_images_that_are_all_right_do_not_ask_for_endless_confidence(count: int) -> None:
    raw = np.tile(np.array([[0.8, 0.2]], np.float32), (count, 1))

    (found,) = fit_calibration([raw], np.zeros((count, 1), np.int32), outputs_of(2)).temperatures

    assert 1 / 3 <= found < 0.8


def test_images_that_are_all_wrong_ask_for_doubt_and_stay_within_the_bounds() -> None:
    raw = np.tile(np.array([[0.99, 0.01]], np.float32), (500, 1))

    (found,) = fit_calibration([raw], np.ones((500, 1), np.int32), outputs_of(2)).temperatures

    assert found == pytest.approx(50)


def test_ten_images_move_the_calibration_less_than_many() -> None:
    known = Calibration((0.5,), (0.0,))
    few, many = (fit_calibration(*drawn(FIVE, known, count), FIVE).temperatures[0] for count in (10, 2000))

    assert abs(many - 0.5) < abs(few - 0.5) < 0.5


@settings(max_examples=10, deadline=None, database=None)
@given(tree=ragged_trees(), absent=st.sampled_from(["ignore", "class"]), seed=st.integers(0, 100))
def test_whatever_the_tree_the_gradient_is_that_of_the_loss(tree: Taxonomy, absent: str, seed: int) -> None:
    outputs = Outputs(tree, absent)
    raw, labels = drawn(outputs, Calibration((1.0,) * tree.num_levels, (0.0,) * tree.num_levels), 15, seed)
    fit = room._Fit(raw, labels, outputs)
    at = fit.start + np.random.default_rng(seed).uniform(0.1, 0.5, len(fit.start))

    _, gradient = fit.loss(at)

    for number, step in enumerate(1e-5 * np.eye(len(at))):
        slope = (fit.loss(at + step)[0] - fit.loss(at - step)[0]) / 2e-5
        assert gradient[number] == pytest.approx(slope, abs=1e-6)


def test_many_images_are_fitted_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, labels = drawn(Outputs(TREE), Calibration((2.0, 0.7, 1.2), (-1.0, 0.6, 0.0)), count=200)
    whole = fit_calibration(raw, labels, Outputs(TREE))

    monkeypatch.setattr(room, "_CELLS_AT_ONCE", 350)
    parts = fit_calibration(raw, labels, Outputs(TREE))

    assert parts.temperatures == pytest.approx(whole.temperatures, rel=1e-3)
    assert parts.ends == pytest.approx(whole.ends, abs=1e-3)


def test_where_classes_are_many_some_of_the_images_are_enough() -> None:
    ids = np.arange(0, 100_000, 2)

    assert images_to_fit(ids, outputs_of(10, 100)) is ids
    some = images_to_fit(ids, outputs_of(20, 500, 10_000))
    assert len(some) == (1 << 25) // 10_520
    assert (some[0], some[-1]) == (ids[0], ids[-1])
    assert np.isin(some, ids).all()
    assert len(np.unique(some)) == len(some)


def test_golden_calibration_error() -> None:
    """Two bins: |.9 + .9 - 1| and |.5 + .5 + .5 - 3|, over five answers."""
    found = calibration_error(np.array([0.9, 0.9, 0.5, 0.5, 0.5]), np.array([True, False, True, True, True]))

    assert found.value == pytest.approx((0.8 + 1.5) / 5)


def test_perfect_calibration_shows_what_chance_alone_makes_of_it() -> None:
    random = np.random.default_rng(0)
    errors, chance = [], []
    for _ in range(30):
        sure = random.uniform(0.3, 1.0, 200)
        found = calibration_error(sure, random.random(200) < sure)
        errors.append(found.value)
        chance.append(found.by_chance)

    assert np.mean(chance) == pytest.approx(np.mean(errors), abs=0.01)
    assert np.mean(chance) > 0.02


def test_answers_that_are_certain_and_right_have_no_error() -> None:
    found = calibration_error(np.ones(10, np.float32), np.ones(10, bool))

    assert (found.value, found.by_chance) == (0.0, 0.0)


def test_the_same_answers_have_the_same_error_by_chance() -> None:
    sure = np.linspace(0.1, 0.9, 40)

    first, second = (calibration_error(sure, sure > 0.5) for _ in range(2))

    assert first == second
