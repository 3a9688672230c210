"""How far a score may be off because there are only so many images (Efron's percentile bootstrap)."""

import numpy as np
import numpy.typing as npt
from nstudent.evaluation.metrics import Ratio, Tallies
from nstudent.evaluation.scores import COMPARED, CONFIDENCE_OF_STEPS, Difference, Interval
from nstudent.randomness import generator

_KEY = ("bootstrap",)


RESAMPLES_OF_STEPS = 1000
"""Resamples of the intervals that steps report before the scores are made; see ``CONFIDENCE_OF_STEPS``."""


def interval(ratio: Ratio, resamples: int, confidence: float) -> Interval | None:
    """Interval of one score; ``None`` where no image has a say."""
    if not ratio[:, 1].any():
        return None
    low, high = np.nanquantile(_resampled(ratio, resamples), _tails(confidence))
    return Interval(_value(ratio), float(low), float(high))


def paired_difference(
    first: Ratio, second: Ratio, resamples: int = RESAMPLES_OF_STEPS, confidence: float = CONFIDENCE_OF_STEPS
) -> Difference:
    """First minus second, both scored on the same resampled images, so that hard images weigh on both alike."""
    gaps = _resampled(first, resamples) - _resampled(second, resamples)
    # A resample in which no image has a say says nothing of either.
    gaps = gaps[~np.isnan(gaps)]
    low, high = np.quantile(gaps, _tails(confidence))
    # A gap of rounding size is a tie.
    ahead = float((gaps > 1e-12).mean() + (np.abs(gaps) <= 1e-12).mean() / 2)
    return Difference(_value(first) - _value(second), float(low), float(high), ahead)


def compared(first: Tallies, second: Tallies, resamples: int, confidence: float) -> dict[str, Difference]:
    """First minus second by score of ``COMPARED``; a score that no image counts for is left out.

    Of images that all have a level where nobody knows the class, that is the whole path.
    """
    return {
        name: paired_difference(first[name], second[name], resamples, confidence)
        for name in COMPARED
        if first[name][:, 1].any()
    }


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
