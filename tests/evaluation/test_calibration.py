"""Calibrations: a known one is found again, on trees of every shape."""

import numpy as np
import pytest
from nstudent.evaluation.calibration import fit_calibration, fit_temperatures, images_to_fit
from trees import outputs_of

FIVE = outputs_of(5)


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

    found = fit_calibration([probabilities], labels[:, None], FIVE)

    assert found.temperatures == pytest.approx((temperature,), rel=0.06)
    assert found.ends == (0.0,)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 2.5])
def test_the_temperature_of_a_level_by_itself_is_found(temperature: float) -> None:
    probabilities, labels = overconfident(temperature)

    assert fit_temperatures([probabilities], labels[:, None], FIVE) == pytest.approx((temperature,), rel=0.06)


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


def test_where_classes_are_many_some_of_the_images_are_enough() -> None:
    ids = np.arange(0, 100_000, 2)

    assert images_to_fit(ids, outputs_of(10, 100)) is ids
    some = images_to_fit(ids, outputs_of(20, 500, 10_000))
    assert len(some) == (1 << 25) // 10_520
    assert (some[0], some[-1]) == (ids[0], ids[-1])
    assert np.isin(some, ids).all()
    assert len(np.unique(some)) == len(some)
