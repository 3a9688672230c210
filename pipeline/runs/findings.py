"""What the measurements of a run say about it: findings in words, each with its figures and what to try.

This is the one place that turns measurements into sentences: the screen and every report show the same findings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import mean

from nstudent.evaluation.scores import HEADLINE
from nstudent.runs.finding import Finding, listed
from nstudent.runs.measured import Measured
from nstudent.runs.score_findings import RULES_ON_SCORES
from nstudent.runs.step_metrics import Epochs, FilterMetrics

_PRECISE = 0.7
"""Precision of the kept labels of a level below which they are called wrong."""
_FEWEST_JUDGED = 20
"""Fewer labels that could be judged say nothing of a level's precision."""
_OTHER = 0.08
"""Difference of the mean confidence on the heap and on validation above which they are called different images."""
_SURE = 3.0
"""Number of standard errors of the mean confidence on validation that the difference has to exceed as well."""
_FEW = 0.2
"""Share of the heap that is labelled at a level below which that is called few."""
_MUCH = 0.3
"""Share of a level's labels above which a filter drops much."""
_RISE = 0.005
"""Rise of the validation score, from the third quarter of a training to its last, above which it was not at its end."""
_FEWEST_EPOCHS = 8
"""Measured epochs below which nothing is said of the end of a training."""
_SMALL_HEAP = 3
"""Unlabelled images for a labelled one below which a heap is called small."""


def findings(measured: Measured) -> list[Finding]:
    """Everything worth a sentence, the most likely reason why a heap does not help first."""
    rules = (
        _nothing_to_learn,
        _wrong_labels,
        _other_images,
        _filters,
        _few_labels,
        _classes_without_labels,
        _still_rising,
        _small_heap,
        *(RULES_ON_SCORES if measured.scored else ()),
    )
    return [finding for rule in rules for finding in rule(measured)]


def _nothing_to_learn(measured: Measured) -> Iterator[Finding]:
    if measured.ended:
        # The filter that says this names the remedy itself.
        yield Finding("nothing to learn from", _sentence(measured.ended), "")


def _wrong_labels(measured: Measured) -> Iterator[Finding]:
    for step, labelling in measured.labelling.items():
        wrong = {
            level: found.precision
            for level, found in labelling.levels.items()
            if found.precision is not None and found.judged >= _FEWEST_JUDGED and found.precision < _PRECISE
        }
        if wrong:
            said = ", ".join(f"{share:.0%} of those at level {level}" for level, share in wrong.items())
            yield Finding(
                "wrong labels",
                f"Of the labels that {step} would give the validation images, only {said} are right.",
                "more labelled images, a stronger teacher (teacher.members, teacher.epochs, pretrained weights) or a "
                "higher pseudolabel.threshold",
                wrong,
            )


def _other_images(measured: Measured) -> Iterator[Finding]:
    for step, labelling in measured.labelling.items():
        both = {
            level: (found.confidence, found.validation_confidence)
            for level, found in labelling.levels.items()
            if found.confidence is not None and found.validation_confidence is not None
        }
        if not both:
            continue
        level, (heap, validation) = max(both.items(), key=lambda each: abs(each[1][0] - each[1][1]))
        images = measured.data.validation if measured.data else 0
        # Probabilities of one mean spread most where each is 0 or 1.
        error = math.sqrt(validation * (1 - validation) / max(1, images))
        if abs(heap - validation) <= max(_OTHER, _SURE * error):
            continue
        is_less = heap < validation
        yield Finding(
            "other images",
            f"The classifier that labels in {step} is {'less' if is_less else 'more'} sure of your unlabelled images "
            f"than of the validation images (mean probability {heap:.0%} against {validation:.0%} at level {level}): "
            "they may be other images, or show other classes.",
            "leaving images out of the heap that show none of the classes"
            if is_less
            else "validation images from where the labelled and the unlabelled ones come from",
            {"heap": heap, "validation": validation},
        )


def _filters(measured: Measured) -> Iterator[Finding]:
    for step, judged in measured.filters.items():
        yield from _weak_filter(measured, step, judged)
        before = {level: count + judged.dropped.get(level, 0) for level, count in judged.kept.items()}
        much = {
            level: judged.dropped.get(level, 0) / count
            for level, count in before.items()
            if count and judged.dropped.get(level, 0) / count > _MUCH
        }
        if much and not judged.ended:
            said = ", ".join(f"{share:.0%} at level {level}" for level, share in much.items())
            yield Finding("filter drops much", f"{step} drops {said} of the labels.", "filter.enabled=false", much)
        if judged.classes_gone and not judged.ended:
            yield Finding(
                "classes gone",
                f"{step} leaves no label of {len(judged.classes_gone)} classes: {listed(judged.classes_gone)}.",
                "filter.enabled=false",
                {"classes": len(judged.classes_gone)},
            )


def _weak_filter(measured: Measured, step: str, judged: FilterMetrics) -> Iterator[Finding]:
    labelling = measured.labelling.get(measured.labels_of.get(step, ""))
    if labelling is None or labelling.validation is None or not judged.iterations or not any(judged.dropped.values()):
        return
    reached = max(each.validation for each in judged.iterations)
    images = measured.data.validation if measured.data else 1
    error = math.sqrt(labelling.validation * (1 - labelling.validation) / max(1, images))
    if reached < labelling.validation - error:
        yield Finding(
            "filter weaker than the classifier it judges",
            f"The network of {step} is weaker than the classifier whose labels it judges: {reached:.1%} against "
            f"{labelling.validation:.1%} {HEADLINE} on validation.",
            "filter.enabled=false, or a longer training of it (filter.epochs)",
            {"filter": reached, "labeller": labelling.validation},
        )


def _few_labels(measured: Measured) -> Iterator[Finding]:
    for step, labelling in measured.labelling.items():
        few = {level: found.share for level, found in labelling.levels.items() if found.share < _FEW}
        if few and any(found.share for found in labelling.levels.values()):
            said = ", ".join(f"{share:.0%} at level {level}" for level, share in few.items())
            yield Finding(
                "few labels kept",
                f"{step} gives few of your unlabelled images a label: {said}.",
                "a lower pseudolabel.threshold",
                few,
            )


def _classes_without_labels(measured: Measured) -> Iterator[Finding]:
    for step, labelling in measured.labelling.items():
        if names := labelling.without_labels:
            yield Finding(
                "classes without labels",
                f"{len(names)} of the labels that you gave went to no unlabelled image in {step}: {listed(names)}.",
                "more unlabelled images that show these classes, or more labelled ones",
                {"classes": len(names)},
            )


def _still_rising(measured: Measured) -> Iterator[Finding]:
    for step, student in list(measured.students.items())[-1:]:
        rise = max((_rise(epochs) for epochs in student.history), default=0.0)
        if rise > _RISE:
            yield Finding(
                "still rising",
                f"{step} was still getting better when its training ended: {100 * rise:+.1f} points of {HEADLINE} on "
                "validation in its last quarter.",
                "a longer training (student.epochs)",
                {"rise": rise},
            )


def _rise(epochs: Epochs) -> float:
    """Mean validation score of the last quarter of the epochs that have one, minus that of the quarter before."""
    values = [epoch["validation"] for epoch in epochs if "validation" in epoch]
    if len(values) < _FEWEST_EPOCHS:
        return 0.0
    quarter = len(values) // 4
    return mean(values[-quarter:]) - mean(values[-2 * quarter : -quarter])


def _small_heap(measured: Measured) -> Iterator[Finding]:
    data = measured.data
    if data and measured.labels and data.unlabelled < _SMALL_HEAP * data.labelled:
        yield Finding(
            "few unlabelled images",
            f"There are {data.unlabelled} unlabelled images and {data.labelled} labelled ones: little that is new.",
            "more unlabelled images, several times as many as labelled ones",
            {"unlabelled": data.unlabelled, "labelled": data.labelled},
        )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
