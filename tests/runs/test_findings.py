"""Each finding appears where its measurement is odd, with its figure, and nowhere else."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from measured_runs import (
    FILTER,
    FLAT,
    LABELS,
    LABELS_ALONE,
    STUDENT,
    WITH_HEAP,
    choice,
    data,
    difference,
    filtered,
    gain,
    labelling,
    measured,
    scores,
    side,
    trained,
)
from nstudent.config.schema import Config
from nstudent.evaluation.scores import HEADLINE, HeapGain, Interval, LevelCalibration, Scores
from nstudent.runs.finding import Finding, listed
from nstudent.runs.findings import findings
from nstudent.runs.measured import Measured
from nstudent.runs.score_findings import standard_error

HELPED = gain(0.014, 0.006, 0.023)
DID_NOT = gain(-0.002, -0.011, 0.007)
POOLED = HeapGain(WITH_HEAP, side("labels-alone pool", "01-teacher", "02-baseline"), DID_NOT.difference, 60)


def judged(**changed: Any) -> Measured:
    """A run whose labels are odd in one way."""
    return measured(scores(HELPED, labelling={LABELS: labelling(**changed)}))


def less_sure(images: int) -> Measured:
    """A run whose labeller is less sure of so many validation images than of the heap, as it is in a newcomer's run."""
    of_heap = labelling(confidence=0.44, validation_confidence=0.27)
    return measured(scores(HELPED, labelling={LABELS: of_heap}), data=data(validation=images))


def filters(**changed: Any) -> Measured:
    return measured(filters={FILTER: filtered(**changed)})


def alone(low: float, high: float) -> Scores:
    """The scores of a run without unlabelled images, with such an interval of the final classifier."""
    return scores(None, final=replace(LABELS_ALONE, test={HEADLINE: Interval((low + high) / 2, low, high)}))


def student(*values: float) -> Measured:
    return measured(trained={"01-teacher": trained(*FLAT), STUDENT: trained(*values)})


RISING = (0.5, 0.6, 0.7, 0.74, 0.78, 0.79, 0.8, 0.81)
# kind, a run that is odd in this way, what the sentence says, and one that is just not odd.
CASES: list[tuple[str, Measured, str, Measured]] = [
    (
        "wrong labels",
        judged(precision=0.58),
        "would give the validation images, only 58% of those at level fine are right",
        judged(precision=0.71),
    ),
    ("wrong labels", judged(precision=0.58), "fine", judged(precision=0.58, judged=19)),
    ("wrong labels", judged(precision=0.0), "only 0%", judged(precision=None, judged=0)),
    (
        "other images",
        judged(confidence=0.61),
        r"less sure of your unlabelled .*\(mean probability 61% against 92% at level fine\)",
        judged(confidence=0.85),
    ),
    (
        "other images",
        judged(confidence=0.92, validation_confidence=0.7),
        "more sure",
        judged(confidence=None),
    ),
    ("other images", less_sure(300), "they may be other images, or show other classes", less_sure(30)),
    (
        "filter weaker than the classifier it judges",
        filters(reached=0.75),
        r"75\.0% against 80\.0%",
        filters(reached=0.78),
    ),
    (
        "filter weaker than the classifier it judges",
        filters(reached=0.75),
        "05-filter",
        filters(reached=0.75, dropped=0),
    ),
    ("filter drops much", filters(dropped=70), "drops 35% at level fine", filters(dropped=60)),
    ("filter drops much", filters(dropped=70), "fine", filters(dropped=200, ended="the filter drops all")),
    ("classes gone", filters(gone=("A/a", "B/b")), "no label of 2 classes: A/a, B/b", filters()),
    ("few labels kept", judged(share=0.19), "a label: 19% at level fine", judged(share=0.2)),
    (
        "classes without labels",
        judged(without=tuple("abcdefg")),
        r"7 of the labels that you gave went to no unlabelled image in 04-pseudolabel: a, b, c, d, e and 2 more",
        judged(),
    ),
    ("still rising", student(*RISING), r"\+2\.0 points", student(*FLAT)),
    ("still rising", student(*RISING), STUDENT, student(*RISING[:7])),
    (
        "few unlabelled images",
        measured(data=data(labelled=300, unlabelled=300)),
        "300 unlabelled images and 300 labelled",
        measured(data=data(labelled=300, unlabelled=900)),
    ),
    (
        "few unlabelled images",
        measured(data=data(unlabelled=0)),
        "0 unlabelled",
        measured(data=data(unlabelled=0), labels={}),
    ),
    (
        "labels alone are strong",
        measured(scores(POOLED, equal_passes=difference(0.012, 0.0, 0.02))),
        r"gains 1\.2 points, but the best pool of the labels alone \(labels-alone pool\)",
        measured(scores(POOLED, equal_passes=difference(-0.012, -0.02, 0.0))),
    ),
    (
        "labels alone are strong",
        measured(scores(DID_NOT, equal_passes=difference(0.012, 0.0, 0.02))),
        r"the best of the labels alone \(02-baseline\)",
        measured(scores(HELPED, equal_passes=difference(0.012, 0.0, 0.02))),
    ),
    (
        "small validation",
        measured(scores(DID_NOT), choices={"03-choose": choice(0.5), "07-choose": choice(0.03)}),
        r"With 180 validation images a difference is known to 1\.5 points.* than the 0\.2 points",
        measured(scores(HELPED), choices={"03-choose": choice(0.5), "07-choose": choice(0.02)}),
    ),
    (
        "small test",
        measured(scores(gain(0.02, -0.005, 0.045))),
        r"400 test images, of which the two sides score 60 differently, the gain is known to ±2\.5",
        measured(scores(gain(0.01, -0.005, 0.03))),
    ),
    ("small test", measured(scores(gain(0.02, -0.005, 0.045))), "±2", measured(scores(gain(-0.5, -0.6, -0.4)))),
    ("small test", measured(scores(gain(0.01, 0.01, 0.01, differing=9))), "score 9", measured()),
    (
        "small test",
        measured(alone(0.55, 0.76)),
        r"^With 400 test images the level accuracy .* known to ±10\.5 points only: it may be 55% or 76%\.$",
        measured(alone(0.55, 0.74)),
    ),
    (
        "probabilities off",
        measured(
            scores(HELPED, calibration={"coarse": LevelCalibration(0.07, 0.03), "fine": LevelCalibration(0.147, 0.03)})
        ),
        r"how often it is right: on test by 14\.7% at level fine, in the mean",
        measured(scores(HELPED, calibration={"fine": LevelCalibration(0.07, 0.03)})),
    ),
    (
        "answers too deep",
        measured(scores(HELPED, calibration={"fine": LevelCalibration(0.12, 0.03, ended=0.08)})),
        r"end at a class that has classes below it \(8\.0% above level fine\)",
        measured(scores(HELPED, calibration={"fine": LevelCalibration(0.07, 0.03, ended=0.08)})),
    ),
    (
        "probabilities off",
        measured(scores(HELPED, calibration={"fine": LevelCalibration(0.2, 0.03, ended=0.08)})),
        r"by 20\.0% at level fine, in the mean",
        measured(scores(HELPED, calibration={"fine": LevelCalibration(0.12, 0.03, ended=0.08)})),
    ),
    (
        "nothing to learn from",
        measured(scores(None, ended="no pseudo-label was kept: lower it")),
        "^No pseudo-label was kept: lower it\\.$",
        measured(scores(None)),
    ),
]


def of_kind(kind: str, run: Measured) -> list[Finding]:
    return [finding for finding in findings(run) if finding.kind == kind]


@pytest.mark.parametrize(
    ("kind", "odd", "said", "usual"), CASES, ids=[f"{i} {case[0]}" for i, case in enumerate(CASES)]
)
def test_a_finding_appears_where_its_measurement_is_odd_and_nowhere_else(
    kind: str, odd: Measured, said: str, usual: Measured
) -> None:
    (found,) = of_kind(kind, odd)
    assert re.search(said, found.sentence)
    assert found.sentence.endswith(".")
    assert of_kind(kind, usual) == []


def test_nothing_is_found_in_a_run_in_which_nothing_is_odd() -> None:
    assert findings(measured()) == []


def test_every_finding_but_one_that_names_its_own_remedy_says_what_to_try() -> None:
    for kind, odd, _, _ in CASES:
        (found,) = of_kind(kind, odd)
        assert bool(found.remedy) == (kind != "nothing to learn from")
        assert not found.remedy.endswith(".")


def test_the_keys_that_remedies_name_are_those_of_the_configuration() -> None:
    named = {
        key
        for _, odd, _, _ in CASES
        for found in findings(odd)
        for key in re.findall(r"\b[a-z_]+\.[a-z_]+\b", found.remedy)
    }
    assert len(named) > 5
    config = Config()
    for key in sorted(named):
        section, name = key.split(".")
        assert hasattr(getattr(config, section), name), key


def test_a_level_that_no_label_was_kept_at_because_none_was_is_not_few() -> None:
    nothing = {level: replace(found, share=0.0) for level, found in labelling().levels.items()}
    run = measured(scores(HELPED, labelling={LABELS: replace(labelling(), levels=nothing)}))
    assert of_kind("few labels kept", run) == []


def test_the_filter_is_held_against_the_labeller_of_the_labels_it_judged() -> None:
    """With two rounds there are two of each."""
    labels = {LABELS: labelling(validation=0.7), "08-pseudolabel": labelling(validation=0.8)}
    run = measured(
        scores(HELPED, labelling=labels),
        filters={FILTER: filtered(reached=0.75), "09-filter": filtered(reached=0.75)},
        labels_of={FILTER: LABELS, "09-filter": "08-pseudolabel"},
    )
    (found,) = of_kind("filter weaker than the classifier it judges", run)
    assert "09-filter" in found.sentence
    assert found.figures == {"filter": 0.75, "labeller": 0.8}


def test_the_student_whose_end_is_looked_at_is_the_last() -> None:
    both = {STUDENT: trained(*RISING), "10-student": trained(*FLAT)}
    rounds = {STUDENT: 1, "10-student": 2}
    assert of_kind("still rising", measured(trained=both, rounds=rounds)) == []


def test_a_standard_error_is_read_from_an_interval() -> None:
    assert standard_error(difference(0.1, 0.1 - 0.0196, 0.1 + 0.0196)["level accuracy"], 0.95) == pytest.approx(
        0.01, rel=1e-3
    )


def test_the_error_of_the_choice_is_read_with_the_confidence_that_steps_report() -> None:
    """The intervals of the scores may have another one: these were made earlier."""
    runs = [
        measured(scores(DID_NOT, confidence=confidence), choices={"07-choose": choice(0.03)})
        for confidence in (0.5, 0.95)
    ]
    first, second = (of_kind("small validation", run) for run in runs)
    assert first == second != []


@pytest.mark.parametrize(
    ("names", "said"), [("a", "a"), ("abcde", "a, b, c, d, e"), ("abcdefg", "a, b, c, d, e and 2 more")]
)
def test_of_many_names_the_first_five_are_listed(names: str, said: str) -> None:
    assert listed(tuple(names)) == said
