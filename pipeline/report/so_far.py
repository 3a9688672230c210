"""What a run without scores has to show: how far it is, what is not there yet, and what its data and trainings say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nstudent.data.curation.split import TRAIN
from nstudent.evaluation.scores import HEADLINE
from nstudent.report.limits import Limits
from nstudent.report.material import Material, Waiting
from nstudent.runs.under_way import said as said_of
from nstudent.runs.under_way import under_way

_BRINGS: Mapping[str, str] = {
    "data": "numbers of images, classes, pictures",
    "classifier": "a classifier, its curves and its score on validation",
    "labeller": "which classifier is taken: to label next, or in the end",
    "labels": "labels of the unlabelled images",
    "selection": "which of these labels are taught",
    "refit": "the final classifier, trained again on labels and validation together",
    "scores": "the answer, scores on test, confusion, how sure, how bad the mistakes are, mistakes in pictures",
}


@dataclass(frozen=True)
class Missing:
    """A step that is not made yet, in words."""

    step: str
    state: str
    brings: str
    """What the report will have by it."""


@dataclass(frozen=True)
class GivenClass:
    """One class, before it is known how well it is recognised."""

    name: str
    trained: int
    """Number of labelled training images of the class."""
    taught: int
    """Number of unlabelled images that are taught as the class in the last round."""


@dataclass(frozen=True)
class GivenLevel:
    """The classes of a level, those with the fewest labelled images first."""

    level: str
    rows: tuple[GivenClass, ...]
    rows_left_out: int


@dataclass(frozen=True)
class SoFar:
    """The state of a run without scores."""

    said: str
    """How far it is, in a sentence."""
    missing: tuple[Missing, ...]
    validation: tuple[tuple[str, float | None], ...]
    """Classifiers that are trained, with their level accuracy on validation; ``None`` if no image counts for it."""
    levels: tuple[GivenLevel, ...]


def so_far(material: Material, taught: Sequence[npt.NDArray[np.int64]], limits: Limits) -> SoFar | None:
    """The state of a run without scores; ``None`` for one with scores.

    Args:
        material: The run.
        taught: By level, the number of unlabelled images that are taught as each class, (classes,); empty if none is.
        limits: The most that is shown.
    """
    if material.has_scores:
        return None
    trained = material.measured.trained.items()
    return SoFar(
        _said(material),
        tuple(_missing(each) for each in material.waiting),
        tuple((name, metrics.validation.get(HEADLINE)) for name, metrics in trained),
        tuple(_levels(material, taught, limits)) if material.has("data") else (),
    )


def _said(material: Material) -> str:
    made, waiting = len(material.manifests), len(material.waiting)
    said = f"{made} of {made + waiting} steps are made"
    found = under_way(material.run_dir)
    if found is None:
        return f"{said}; the same nstudent run-all command makes the others."
    steps = sorted([*material.manifests, *(each.step for each in material.waiting)])
    return f"{said}. When this page was written a process was at {said_of(found, steps)}."


def _missing(waiting: Waiting) -> Missing:
    return Missing(waiting.step, "begun" if waiting.is_begun else "not begun", _BRINGS[waiting.role])


def _levels(material: Material, taught: Sequence[npt.NDArray[np.int64]], limits: Limits) -> list[GivenLevel]:
    images, found = material.images, []
    labels = images.labels[images.usable(TRAIN)]
    for level, name in enumerate(images.taxonomy.levels):
        classes, own = images.taxonomy.classes[level], labels[:, level]
        trained = np.bincount(own[own >= 0], minlength=len(classes))
        heap = taught[level] if taught else np.zeros(len(classes), dtype=np.int64)
        rows = [GivenClass(each, int(trained[i]), int(heap[i])) for i, each in enumerate(classes)]
        rows.sort(key=lambda row: (row.trained, row.taught))
        found.append(GivenLevel(name, tuple(rows[: limits.rows]), max(0, len(rows) - limits.rows)))
    return found
