"""What a run has measured, put together by hand, for the findings and sentences that follow from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nstudent.evaluation.scores import (
    COMPARED,
    HEADLINE,
    ClassifierScores,
    Difference,
    HeapGain,
    Interval,
    Labelling,
    LevelLabelling,
    Scores,
    Side,
)
from nstudent.runs.measured import Measured
from nstudent.runs.step_metrics import (
    Candidate,
    ChoiceMetrics,
    DataMetrics,
    FilterIteration,
    FilterMetrics,
    LabelMetrics,
    TrainedMetrics,
)

LABELS, FILTER, STUDENT = "04-pseudolabel", "05-filter", "06-student"
FOUND = {HEADLINE: Interval(0.8, 0.78, 0.82)}
GOOD_LEVEL = LevelLabelling(precision=0.95, judged=200, share=0.9, confidence=0.9, validation_confidence=0.92)


def difference(value: float, low: float, high: float) -> dict[str, Difference]:
    """The same difference in every score."""
    return dict.fromkeys(COMPARED, Difference(value, low, high, 0.5))


def side(name: str, *parts: str, gmacs: float = 0.01) -> Side:
    """One side of the gain: a step, or a pool of some."""
    weights = dict.fromkeys(parts or (name,), 1 / len(parts or (name,)))
    return Side(name, weights, gmacs, 1234.5, 94_080, tuple(weights), validation=FOUND, test=FOUND)


WITH_HEAP, LABELS_ALONE = side("pool of all", "01-teacher", STUDENT), side("02-baseline")


def gain(value: float, low: float, high: float, differing: int = 60) -> HeapGain:
    """The gain of a student with a teacher over the baseline."""
    return HeapGain(WITH_HEAP, LABELS_ALONE, difference(value, low, high), differing)


def scores(heap_gain: HeapGain | None = None, **changed: Any) -> Scores:
    """The scores of a run in which nothing is odd."""
    classifiers = {
        name: ClassifierScores(0.01, 47_040, 1000.0, FOUND, FOUND) for name in ("01-teacher", "02-baseline", STUDENT)
    }
    made = Scores(
        final=heap_gain.with_heap if heap_gain else LABELS_ALONE,
        ended=None,
        confidence=0.95,
        classifiers=classifiers,
        heap_gain=heap_gain,
        equal_passes=None,
        calibration={},
        labelling={LABELS: labelling()},
        pseudo_labels={},
        given_labels={},
    )
    return replace(made, **changed)


def labelling(*, validation: float = 0.8, without: tuple[str, ...] = (), **level: Any) -> Labelling:
    """Labels of one good level, and of another that a test makes worse."""
    levels = {"coarse": GOOD_LEVEL, "fine": replace(GOOD_LEVEL, **level)}
    return Labelling("03-choose", validation, levels, without)


def history(*values: float) -> tuple[dict[str, float], ...]:
    """The epochs of a training, with its scores on validation."""
    return tuple({"epoch": epoch, "loss": 1.0, "validation": value} for epoch, value in enumerate(values, start=1))


def trained(*values: float) -> TrainedMetrics:
    """A classifier that was trained."""
    return TrainedMetrics({HEADLINE: 0.8}, 0.01, 47_040, (history(*values),), 1000.0)


def filtered(*, reached: float = 0.85, gone: tuple[str, ...] = (), ended: str = "", dropped: int = 10) -> FilterMetrics:
    """What a filter did to 200 labels of each level."""
    kept = {"coarse": 200, "fine": 200 - dropped}
    iterations = (FilterIteration(reached - 0.1, dropped), FilterIteration(reached, dropped))
    return FilterMetrics(ended, gone, kept, {"coarse": 0, "fine": dropped}, {}, 200, 200, iterations)


def choice(half_width: float = 0.005) -> ChoiceMetrics:
    """The last choice of a run, its gain on validation known to such a half of an interval."""
    found = Difference(0.01, 0.01 - half_width, 0.01 + half_width, 0.9)
    parts = {STUDENT: 0.5, "01-teacher": 0.5}
    heap = Candidate("pool of all", parts, True, 0.02, 0.81, found, 0.01, None, None)
    alone = Candidate("02-baseline", {"02-baseline": 1.0}, False, 0.01, 0.8, None, 0.0, None, None)
    return ChoiceMetrics("pool of all", "02-baseline", "pool of all", (heap, alone))


def data(*, labelled: int = 100, unlabelled: int = 1000, validation: int = 180) -> DataMetrics:
    """What a data step reports."""
    return DataMetrics(labelled, unlabelled, validation, 400, 0, 0, 0, 0, (3, 9), 9, {})


FLAT = (0.5, 0.7, 0.78, 0.8, 0.8, 0.8, 0.8, 0.8)


def measured(found: Scores | None = None, **changed: Any) -> Measured:
    """A run of one round in which nothing is odd."""
    made = Measured(
        scored=found or scores(gain(0.014, 0.006, 0.023)),
        data=data(),
        trained={"01-teacher": trained(), "02-baseline": trained(), STUDENT: trained(*FLAT)},
        labels={LABELS: LabelMetrics(1000, {}, 900, 900, (), 1.0)},
        filters={FILTER: filtered()},
        choices={"07-choose": choice()},
        rounds={STUDENT: 1, LABELS: 1, FILTER: 1, "07-choose": 1},
        labels_of={FILTER: LABELS},
        seconds={"01-teacher": 30.0, "02-baseline": 75.0, LABELS: 10.0, STUDENT: 700.4},
    )
    return replace(made, **changed)
