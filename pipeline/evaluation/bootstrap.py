"""How far a score may be off because there are only so many images (Efron's percentile bootstrap)."""

import numpy as np
import numpy.typing as npt
from nstudent.evaluation.metrics import Ratio
from nstudent.evaluation.scores import Difference, Interval
from nstudent.randomness import generator

_KEY = ("bootstrap",)


RESAMPLES = 1000
CONFIDENCE = 0.95
"""Of the intervals that steps report before the scores are made. They are not those that the configuration sets for the
scores, so that a run with other intervals makes its scores again and no network."""


def interval(ratio: Ratio, resamples: int, confidence: float) -> Interval | None:
    """Interval of one score; ``None`` where no image has a say."""
    if not ratio[:, 1].any():
        return None
    low, high = np.nanquantile(_resampled(ratio, resamples), _tails(confidence))
    return Interval(_value(ratio), float(low), float(high))


def paired_difference(
    first: Ratio, second: Ratio, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> Difference:
    """First minus second, both scored on the same resampled images, so that hard images weigh on both alike."""
    gaps = _resampled(first, resamples) - _resampled(second, resamples)
    # A resample in which no image has a say says nothing of either.
    gaps = gaps[~np.isnan(gaps)]
    low, high = np.quantile(gaps, _tails(confidence))
    # A gap of rounding size is a tie.
    ahead = float((gaps > 1e-12).mean() + (np.abs(gaps) <= 1e-12).mean() / 2)
    return Difference(_value(first) - _value(second), float(low), float(high), ahead)


def _resampled(ratio: Ratio, resamples: int) -> npt.NDArray[np.float64]:
    num_images = len(ratio)
    random = generator(*_KEY, num_images, resamples)
    values = np.empty(resamples)
    for i in range(resamples):
        # How often each image is drawn. The same key gives the same draws to every classifier: that is the pairing.
        weight = np.bincount(random.integers(num_images, size=num_images), minlength=num_images)
        top, bottom = weight @ ratio
        values[i] = top / bottom if bottom else np.nan
    return values


def _value(ratio: Ratio) -> float:
    top, bottom = ratio.sum(axis=0)
    return float(top / bottom)


def _tails(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2
