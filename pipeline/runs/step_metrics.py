"""What the steps of a run report of their work, a class for each role; it is kept in the manifest, as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nstudent.errors import ArtifactError
from nstudent.evaluation.scores import Difference, Intervals
from nstudent.storage.artifact import Manifest, Metrics
from nstudent.storage.json_record import JsonRecord

Role = Literal[
    "data", "classifier", "probe", "teacher", "baseline", "soup", "labeller", "labels", "selection", "refit", "scores"
]
"""What a step is to those that read it. A ``classifier`` was trained, a ``labeller`` chosen among those; ``labels`` are
of the heap; ``selection`` says which of them are taught. A ``probe`` is a classifier that was fitted before all others,
which may go by what it found; ``teacher`` and ``baseline`` are the other two that learn from the labels alone, and a
``soup`` is averaged of networks of the teacher. A
``refit`` is the last choice, trained again."""

LABELS_ALONE = "labels-alone-"
"""What the names of the files of a refit begin with that are of its side without the heap."""
Epochs = tuple[dict[str, float], ...]
"""The epochs of one training: each its number, its loss, and its score on validation if that was taken."""


@dataclass(frozen=True)
class DataMetrics(Metrics):
    """Numbers of images, and what is odd about them."""

    labelled: int
    unlabelled: int
    validation: int
    test: int
    unreadable: int
    duplicates: int
    near_duplicates: int
    conflicting_labels: int
    classes: tuple[int, ...]
    """Number of classes per level, coarse first."""
    terminals: int
    """Number of labels at which a path can end."""
    findings: dict[str, int]
    """Number of entries of each kind in ``findings.json``."""
    not_taken: int = 0
    """Number of files below the folders of the source that are none of its images."""


@dataclass(frozen=True)
class Contribution(JsonRecord):
    """What one part of a pool, or one member of an ensemble, costs and adds."""

    weight: float
    """Its share in the vote."""
    gmacs: float
    """Billions of multiply-adds that it takes to label one image."""
    gain: Difference
    """Headline score of all parts minus that of all others, whose calibration is fitted anew, and of a pool the weights
    as well, on the validation images; the same images fit and compare, so that it rather flatters a part."""


@dataclass(frozen=True)
class TrainedMetrics(Metrics):
    """Networks that were trained, as an ensemble: a classifier that can be chosen."""

    validation: dict[str, float | None]
    """Scores on validation; ``None`` if no image counts for one."""
    gmacs: float
    """Billions of multiply-adds to label one image."""
    image_passes: int
    """Number of images that went forward and backward through the networks, in all of their trainings together."""
    history: tuple[Epochs, ...]
    """By network."""
    training_gmacs: float | None = None
    """Billions of multiply-adds of the trainings; ``None`` if the step was made by a version that did not count."""
    gain_over_labeller: Difference | None = None
    """Headline score of a student on validation minus that of the labeller whose labels it learnt from."""
    mirrored: bool | None = None
    """Whether images may be mirrored in training, of a probe that was asked; else ``None``."""
    ingredients: tuple[int, ...] | None = None
    """Numbers of the teacher's members whose weights were averaged, of a soup; else ``None``."""
    members: tuple[Contribution, ...] | None = None
    """What each member of an ensemble costs and adds, in their order; ``None`` of a single one, and if the step was
    made by a version that did not ask."""


@dataclass(frozen=True)
class Candidate(JsonRecord):
    """A classifier that can be chosen: one that was trained, or several of them pooled."""

    name: str
    """Name of the step that trained it, such as ``01-teacher``, or of the pool."""
    parts: dict[str, float]
    """Weights of the trained classifiers that it is made of, by their steps; they sum to 1."""
    saw_heap: bool
    """Whether any part has learnt from labels of the heap, or from a labeller that has."""
    gmacs: float
    """Billions of multiply-adds to label one image."""
    validation: float
    """Headline score on the validation images."""
    gain: Difference | None
    """Headline score minus that of the reference, on the same validation images; ``None`` for the reference itself."""
    expected: float
    """Expected headline score minus that of the reference, as a share: validation and prior together."""
    temperatures: tuple[float, ...] | None
    """Temperature of each level, coarse first, as in the recipe of the candidate."""
    ends: tuple[float, ...] | None
    """Biases of paths that end early, as in the recipe of the candidate."""
    contributions: dict[str, Contribution] | None = None
    """What each part costs and adds, by name, of a pool; ``None`` of what was trained, and if the step was made by a
    version that did not ask."""


@dataclass(frozen=True)
class ChoiceMetrics(Metrics):
    """The candidates there were, and which one was chosen."""

    chosen: str
    """Name of the candidate whose ensemble the step holds."""
    labels_alone: str | None
    """Name of the best candidate that did not see the heap; ``None`` if none of these is within the limit of cost."""
    with_heap: str | None
    """Name of the best candidate that saw the heap; ``None`` if there is none within the limit of cost."""
    candidates: tuple[Candidate, ...]
    """All that were within the limit of cost; those that were trained come first, in the order of the run."""

    @property
    def taken(self) -> Candidate:
        """The candidate that was chosen."""
        return self.candidate(self.chosen)

    def candidate(self, name: str) -> Candidate:
        """The candidate of this name; ``LookupError`` if there is none."""
        return {each.name: each for each in self.candidates}[name]


@dataclass(frozen=True)
class RefittedPart(JsonRecord):
    """One classifier that was trained again."""

    image_passes: int
    """As of ``TrainedMetrics``."""
    training_gmacs: float
    history: tuple[Epochs, ...]
    """By network; without scores on validation."""


@dataclass(frozen=True)
class RefitMetrics(Metrics):
    """A choice that was trained again on labels and validation together, and the best of the labels alone with it."""

    name: str
    """Name of the candidate that was trained again, as the choice calls it."""
    gmacs: float
    """Billions of multiply-adds to label one image."""
    labels_alone: str | None
    """Name of the candidate without the heap that it is compared with; ``None`` if it has none of the heap itself, or
    there is no other within the limit of cost."""
    labels_alone_gmacs: float | None
    labelled: int
    """Number of images that both learnt from with the labels that people gave."""
    parts: dict[str, RefittedPart]
    """By the step that trained the classifier at first."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of the files of each ensemble begin with; the result's comes first."""
        return ("",) if self.labels_alone is None else ("", LABELS_ALONE)

    @property
    def training_gmacs(self) -> float:
        """Billions of multiply-adds of all these trainings."""
        return round(sum(part.training_gmacs for part in self.parts.values()), 3)

    @property
    def image_passes(self) -> int:
        """Image passes of all these trainings."""
        return sum(part.image_passes for part in self.parts.values())


@dataclass(frozen=True)
class LabelMetrics(Metrics):
    """Labels that were made for the heap."""

    labelled_images: int
    kept: dict[str, int]
    """Number of images whose label is kept, by level."""
    shown: int
    """Number of images that a student is shown."""
    copies: int
    """How many images that makes in a pass over the heap, repetitions included."""
    temperatures: tuple[float, ...]
    """Temperatures of the labeller by level, coarse first; empty if it is not calibrated."""
    highest_confidence: float
    ends: tuple[float, ...] = ()
    """Ends of the labeller by depth; empty if it is not calibrated."""


@dataclass(frozen=True)
class FilterIteration(JsonRecord):
    """One training of the filter."""

    validation: float
    """Headline score on validation."""
    dropped: int
    """Number of images of the heap with a label at some level that would not stand."""
    image_passes: int | None = None
    """As of ``TrainedMetrics``; ``None`` if the step was made by a version that did not count."""
    training_gmacs: float | None = None
    log_likelihood: float | None = None
    """Mean logarithm of the probability of a validation label, after what labeller and filter network say; ``None`` if
    the step was made by a version without it."""

    @property
    def score(self) -> float:
        """The log-likelihood as iterations are compared by it: the least of all if there is none."""
        return -math.inf if self.log_likelihood is None else self.log_likelihood


@dataclass(frozen=True)
class EvidenceWeights(JsonRecord):
    """How much the words of the labeller and of the filter network count at a level (``labels.evidence``)."""

    labeller: float
    filter: float


@dataclass(frozen=True)
class FilterMetrics(Metrics):
    """Labels that a filter has judged."""

    ended: str
    """Why no student can learn from what is left; empty if one can."""
    classes_gone: tuple[str, ...]
    """Labels that had images before the filter and have none after it."""
    kept: dict[str, int]
    """Number of images whose label is kept, by level."""
    dropped: dict[str, int]
    """Number of images whose label is not kept any more, by level."""
    dropped_given: dict[str, int]
    """Number of given labels that are not kept, by level."""
    shown: int
    copies: int
    iterations: tuple[FilterIteration, ...]
    image_passes: int | None = None
    training_gmacs: float | None = None
    refused: tuple[str, ...] = ()
    """Verdicts that were not applied because they would have dropped too much of a level, in words."""
    validation: float | None = None
    """Headline score of the filter network on validation, in the iteration that counts; ``None``: there is none."""
    labeller_validation: float | None = None
    """That of the labeller."""
    weights: dict[str, EvidenceWeights] | None = None
    """By level, as fitted on validation; ``None`` if pseudo-labels were not judged."""
    given_weights: dict[str, dict[str, float]] | None = None
    """The same of ``probe`` and ``filter`` about given labels; ``None`` if they were not judged."""
    given_error_rate: dict[str, float] | None = None
    """Share of given labels that is estimated to be wrong, by level; ``None`` if they were not judged."""


@dataclass(frozen=True)
class ScoreMetrics(Metrics):
    """The scores of a run, in short."""

    final: str
    """Name of the final classifier, as the step that chose calls it."""
    test: Intervals
    """Its scores on test."""
    gain: dict[str, Difference] | None
    """The heap's gain on test by score, as in ``scores.json``; ``None`` if no classifier learnt from the heap."""


METRICS: Mapping[Role, type[Metrics]] = {
    "data": DataMetrics,
    "classifier": TrainedMetrics,
    "labeller": ChoiceMetrics,
    "labels": LabelMetrics,
    "selection": FilterMetrics,
    "refit": RefitMetrics,
    "scores": ScoreMetrics,
}
"""What a step of each role reports."""


def read_metrics(manifest: Manifest) -> Metrics:
    """What a committed step reported, as the class of its role.

    Raises:
        ArtifactError: The manifest names no role of a run, or the step reported something else.
    """
    for role, kind in METRICS.items():
        if manifest.role == role:
            return kind.of(manifest)
    raise ArtifactError(f"{manifest.role!r} is not the role of a step: use the nstudent that made it")
