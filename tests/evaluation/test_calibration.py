"""Temperatures: a known one is found again, and no decision changes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.evaluation.calibration import fit_temperatures, images_to_fit
from nstudent.models.temperature import apply_temperature as divided
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from trees import outputs_of

FIVE = outputs_of(5)


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    return divided(torch.from_numpy(probabilities), temperature).numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def overconfident(
    temperature: float, count: int = 4000, classes: int = 5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Distributions that are right once their logits are divided by ``temperature``, and labels drawn from those."""
    random = np.random.default_rng(seed)
    calibrated = random.normal(0, 1.5, (count, classes))
    labels = np.array([random.choice(classes, p=row) for row in softmax(calibrated)], dtype=np.int32)
    return softmax(calibrated * temperature).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 2.5])
def test_a_known_temperature_is_found(temperature: float) -> None:
    probabilities, labels = overconfident(temperature)

    (found,) = fit_temperatures([probabilities], labels[:, None], FIVE)

    assert found == pytest.approx(temperature, rel=0.06)


def test_every_level_has_its_own() -> None:
    levels, labels = zip(*(overconfident(t, seed=i) for i, t in enumerate((0.6, 2.0))), strict=True)

    found = fit_temperatures(levels, np.stack(labels, axis=1), outputs_of(5, 5))

    assert found == pytest.approx((0.6, 2.0), rel=0.06)


def test_levels_that_are_absent_or_unknown_have_no_say() -> None:
    probabilities, labels = overconfident(1.7)
    spoilt = np.where(np.arange(len(labels)) % 3 == 0, -1 - np.arange(len(labels)) % 2, labels).astype(np.int32)
    kept = spoilt >= 0

    assert fit_temperatures([probabilities], spoilt[:, None], FIVE) == fit_temperatures(
        [probabilities[kept]], labels[kept][:, None], FIVE
    )


def test_absent_is_a_label_where_it_has_an_output() -> None:
    probabilities, labels = overconfident(1.7)
    as_absent = np.where(labels == 4, -1, labels).astype(np.int32)

    both = np.stack([np.zeros_like(labels), as_absent], axis=1)
    # A path ends above the fine level: it has four classes, and an output for nothing.
    tree = Taxonomy.from_labels([("A", "-"), *(("A", name) for name in "abcd")], ("coarse", "fine"))
    coarse = np.ones((len(labels), 1), np.float32)

    (found,) = fit_temperatures([coarse, probabilities], both, Outputs(tree, "class"))[1:]

    assert (found,) == fit_temperatures([probabilities], labels[:, None], FIVE)


def test_a_handful_of_labels_fits_nothing() -> None:
    probabilities, labels = overconfident(2.5, count=9)

    assert fit_temperatures([probabilities], labels[:, None], FIVE) == (1.0,)


def test_images_that_are_all_right_do_not_ask_for_endless_confidence() -> None:
    probabilities = np.tile(np.array([[0.8, 0.2]], np.float32), (50, 1))

    (found,) = fit_temperatures([probabilities], np.zeros((50, 1), np.int32), outputs_of(2))

    assert 0.3 < found < 0.4


def test_golden_temperature() -> None:
    """Squared and normalised: .64/.68; the square root: .8944/(.8944 + .4472)."""
    probabilities = np.array([[0.8, 0.2]], np.float32)

    assert apply_temperature(probabilities, 0.5)[0] == pytest.approx([0.941176, 0.058824], abs=1e-6)
    assert apply_temperature(probabilities, 2.0)[0] == pytest.approx([0.666667, 0.333333], abs=1e-6)
    assert apply_temperature(probabilities, 1.0)[0] == pytest.approx([0.8, 0.2], abs=1e-6)


def test_it_is_what_dividing_logits_does() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (50, 7))

    found = apply_temperature(softmax(logits).astype(np.float32), 1.9)

    assert found == pytest.approx(softmax(logits / 1.9), abs=1e-5)


def test_certain_zeros_stay_finite() -> None:
    found = apply_temperature(np.array([[1.0, 0.0, 0.0]], np.float32), 3.0)

    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(1)


@settings(max_examples=50, deadline=None, database=None)
@given(temperature=st.floats(1 / 3, 3), seed=st.integers(0, 1000), classes=st.integers(2, 30))
def test_no_decision_changes(temperature: float, seed: int, classes: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(classes), 20).astype(np.float32)

    calibrated = apply_temperature(probabilities, temperature)

    assert np.array_equal(calibrated.argmax(axis=1), probabilities.argmax(axis=1))
    assert calibrated.sum(axis=1) == pytest.approx(np.ones(20), abs=1e-5)
    assert calibrated.dtype == np.float32


def test_many_images_are_fitted_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities, labels = overconfident(2.5, count=500)
    whole = fit_temperatures([probabilities], labels[:, None], FIVE)

    monkeypatch.setattr("nstudent.evaluation.calibration._CELLS_AT_ONCE", 35)

    assert fit_temperatures([probabilities], labels[:, None], FIVE) == whole


def test_where_classes_are_many_some_of_the_images_are_enough() -> None:
    ids = np.arange(0, 100_000, 2)

    assert images_to_fit(ids, outputs_of(10, 100)) is ids
    some = images_to_fit(ids, outputs_of(20, 500, 10_000))
    assert len(some) == (1 << 25) // 10_520
    assert (some[0], some[-1]) == (ids[0], ids[-1])
    assert np.isin(some, ids).all()
    assert len(np.unique(some)) == len(some)
