"""What the scores of a run say about themselves: how far they, and the probabilities behind them, can be relied on."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist

from nstudent.evaluation.scores import CONFIDENCE_OF_STEPS, HEADLINE, Difference
from nstudent.runs.finding import Finding
from nstudent.runs.measured import Measured

FEWEST_DIFFERING = 10
"""Fewer test images that the two sides score differently decide nothing, whatever their interval is: with four, all of
them on one side, chance alone gives that one time in eight."""
_WIDE = 0.02
"""Half of the width of the gain's interval above which the test is called small, if the interval includes zero."""
_WIDE_SCORE = 0.1
"""The same of the score of the final classifier, where there is no gain to be known."""
_OFF = 0.05
"""Calibration error on test, above that of perfect probabilities, from which probabilities are called off."""


def _strong_labels_alone(measured: Measured) -> Iterator[Finding]:
    gain, single = measured.scores.heap_gain, measured.scores.equal_passes
    if gain is None or single is None or gain.difference[HEADLINE].value > 0 or single[HEADLINE].value <= 0:
        return
    value = single[HEADLINE].value
    pooled = " pool" if len(gain.labels_alone.parts) > 1 else ""
    yield Finding(
        "labels alone are strong",
        f"Against one network of its architecture the student gains {100 * value:.1f} points, but the best{pooled} of "
        f"the labels alone ({gain.labels_alone.name}) gains as much without your unlabelled images.",
        "a larger or longer trained student (student.model, student.epochs)",
        {"one network": value, "best": gain.difference[HEADLINE].value},
    )


def _small_validation(measured: Measured) -> Iterator[Finding]:
    gain, data = measured.scores.heap_gain, measured.data
    if gain is None or data is None or not measured.choices:
        return
    *_, choice = measured.choices.values()
    sides = {gain.with_heap.name, gain.labels_alone.name}
    errors = [
        standard_error(each.gain, CONFIDENCE_OF_STEPS)
        for each in choice.candidates
        if each.name in sides and each.gain is not None
    ]
    effect = abs(gain.difference[HEADLINE].value)
    if errors and (error := max(errors)) > effect:
        yield Finding(
            "small validation",
            f"With {data.validation} validation images a difference is known to {100 * error:.1f} points (standard "
            f"error), more than the {100 * effect:.1f} points between the best with and without your unlabelled "
            "images: which of them became the final classifier is close to the toss of a coin.",
            "more validation images (data.validation)",
            {"standard error": error, "effect": effect},
        )


def _small_test(measured: Measured) -> Iterator[Finding]:
    gain, data = measured.scores.heap_gain, measured.data
    if data is None:
        return
    if gain is None:
        yield from _small_test_of_one(measured, data.test)
        return
    found = gain.difference[HEADLINE]
    half = (found.high - found.low) / 2
    is_open = half > _WIDE and found.low <= 0 <= found.high
    if is_open or gain.differing < FEWEST_DIFFERING:
        yield Finding(
            "small test",
            f"With {data.test} test images, of which the two sides score {gain.differing} differently, the gain is "
            f"known to ±{100 * half:.1f} points only.",
            "more test images (data.test)",
            {"half interval": half, "differing": gain.differing},
        )


def _small_test_of_one(measured: Measured, images: int) -> Iterator[Finding]:
    """The same where no classifier learnt from the heap: how well the score of the final one is known."""
    score = measured.scores.final.test.get(HEADLINE)
    if score is None or (half := (score.high - score.low) / 2) <= _WIDE_SCORE:
        return
    yield Finding(
        "small test",
        f"With {images} test images the {HEADLINE} of the final classifier is known to ±{100 * half:.1f} points only: "
        f"it may be {100 * score.low:.0f}% or {100 * score.high:.0f}%.",
        "more test images (data.test)",
        {"half interval": half},
    )


def _probabilities_off(measured: Measured) -> Iterator[Finding]:
    calibration = measured.scores.calibration
    off = {level: found.error for level, found in calibration.items() if found.error - found.perfect > _OFF}
    too_deep = {level: calibration[level].ended for level in off if calibration[level].ended > off[level] / 2}
    if too_deep:
        said = ", ".join(f"{100 * share:.1f}% above level {level}" for level, share in too_deep.items())
        yield Finding(
            "answers too deep",
            f"Labels of the test images end at a class that has classes below it ({said}), where the final classifier "
            "goes on to one of these, and is surer of it than it may be.",
            "absent=class, if it is ignore: by that it learns where labels end; or nstudent predict with --risk",
            too_deep,
        )
    elif off:
        said = ", ".join(f"{100 * error:.1f}% at level {level}" for level, error in off.items())
        yield Finding(
            "probabilities off",
            f"The probabilities of the final classifier differ from how often it is right: on test by {said}, in the "
            "mean.",
            "validation images of the same kind as the test images, by which they are corrected: a folder val/ beside "
            "train/, or more of them (data.validation); for answers of a known risk: nstudent predict with --risk",
            off,
        )


def standard_error(difference: Difference, confidence: float) -> float:
    """Standard error of a difference, from its interval of so much confidence."""
    return (difference.high - difference.low) / 2 / NormalDist().inv_cdf((1 + confidence) / 2)


RULES_ON_SCORES = (_strong_labels_alone, _small_validation, _small_test, _probabilities_off)
"""Rules that go by the scores and the numbers of held-out images alone."""
