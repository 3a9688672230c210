"""Calibrations: a known one is found again, on trees of every shape."""

import numpy as np
import pytest
from nstudent.evaluation.calibration import fit_calibration, images_to_fit
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


def test_where_classes_are_many_some_of_the_images_are_enough() -> None:
    ids = np.arange(0, 100_000, 2)

    assert images_to_fit(ids, outputs_of(10, 100)) is ids
    some = images_to_fit(ids, outputs_of(20, 500, 10_000))
    assert len(some) == (1 << 25) // 10_520
    assert (some[0], some[-1]) == (ids[0], ids[-1])
    assert np.isin(some, ids).all()
    assert len(np.unique(some)) == len(some)
