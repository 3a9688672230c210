"""The scores of a run as they are kept in ``scores.json``, for whoever reads them: tables, pictures, reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nstudent.errors import ArtifactError
from nstudent.storage.files import read_json
from nstudent.storage.json_record import JsonRecord, Record, json_key

SCORES = "scores.json"
FIGURE = "scores.png"

HEADLINE = "level accuracy"
"""The score that choices are made by: matched levels / levels that exist, mean over images."""
STRICT = "levels before a mistake"
"""As ``HEADLINE``, counting only the levels above the first mistake of an image."""
WHOLE_PATH = "whole path"
"""Share of the images whose whole path is right, its end included."""
COMPARED = (HEADLINE, WHOLE_PATH)
"""The scores of whole paths that classifiers are compared by."""
OF_A_LEVEL = "accuracy/"
"""What the name of a level's own score begins with."""
CONFIDENCE_OF_STEPS = 0.95
"""Confidence of the intervals that steps report before the scores are made. It is not the one that the configuration
sets for the scores, so that a run with other intervals makes its scores again and no network."""


@dataclass(frozen=True)
class Interval(JsonRecord):
    """A score, and its interval when the images are resampled; all of them shares, 0 to 1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(JsonRecord):
    """The score of one classifier minus that of another on the same images, and its interval; shares, -1 to 1."""

    value: float
    low: float
    high: float
    probability: float
    """Share of the resamples in which the first is ahead; ties count half."""


Intervals = dict[str, Interval | None]
"""By name of the score; ``None`` if no image counts for it."""


@dataclass(frozen=True)
class LevelReach(JsonRecord):
    """How often the labels of images go down to a level."""

    coverage: float | None
    """Share of the images with a class at the level for which the label names one; ``None`` if there are none."""
    right: float | None
    """Share of the labels that name a class at the level that is right; ``None`` if no label does."""


@dataclass(frozen=True)
class TreeScores(JsonRecord):
    """What the tree says of the labels of test images."""

    severity: float | None
    """Mean height of the lowest common ancestor of what is said and what is true over the images whose label is wrong,
    in levels: 1 is a mistake between classes that stand together. ``None`` if there is no mistake."""
    mistakes: int
    """Number of these images. Images of which a level is unknown are not among them."""
    reach: dict[str, LevelReach]
    """By level."""


@dataclass(frozen=True)
class ClassifierScores(JsonRecord):
    """The classifier of one step: its cost and its scores."""

    gmacs: float
    """Billions of multiply-adds to label one image."""
    image_passes: int
    """Number of images that went forward and backward in its training."""
    training_gmacs: float | None
    """Billions of multiply-adds of its training; ``None`` if the step was made by a version that did not count them."""
    validation: Intervals
    test: Intervals
    on_tree: TreeScores | None = None
    """On test; ``None`` if the step was made by a version without it."""


@dataclass(frozen=True)
class Side(JsonRecord):
    """One classifier, or several as one, and what it took to make it: one side of a comparison."""

    name: str
    """As the step that chose calls it: the name of a step, or of a pool of several."""
    parts: dict[str, float]
    """Share of the vote by step whose classifier is a part; they add up to 1."""
    gmacs: float
    """Billions of multiply-adds to label one image."""
    training_gmacs: float | None
    """Billions of multiply-adds of all trainings that it was made from: those of its parts, of the filters whose
    labels they learnt from, and of the classifiers that gave these labels; ``None`` if one of them was not counted."""
    image_passes: int | None
    """Number of images that went forward and backward in these trainings; ``None`` if one of them was not counted."""
    made_from: tuple[str, ...]
    """All steps that it was made from, labelling included, packing of the images left out. What they took in time
    stands in their manifests and not here: equal runs have equal scores, and not equal times."""
    validation: Intervals
    test: Intervals
    on_tree: TreeScores | None = None
    """On test; ``None`` if the step was made by a version without it."""


@dataclass(frozen=True)
class Gap(JsonRecord):
    """By how much the side with the heap is ahead of one classifier that learnt from the labels alone, on test."""

    difference: dict[str, Difference]
    """By score of ``COMPARED``."""
    differing: int
    """Number of test images for which the two differ in ``HEADLINE``: an interval rests on these alone."""
    test: Intervals
    """Scores of the other classifier."""


@dataclass(frozen=True)
class HeapGain(JsonRecord):
    """What the unlabelled images were worth in a run: the best classifier that learnt from them against the best one
    that did not. Each side was chosen on validation by the same rule, and may be a pool; nothing is chosen on test."""

    with_heap: Side
    labels_alone: Side
    difference: dict[str, Difference]
    """The first minus the second on test, by score of ``COMPARED``; without a score that no test image counts for."""
    differing: int
    """Number of test images for which the two sides differ in ``HEADLINE``: an interval rests on these alone."""
    others: dict[str, Gap] = field(default_factory=dict)
    """The same against each of the others that learnt from the labels alone, by name. Of few validation images a weaker
    one may have been chosen, and a gain over that one alone would flatter."""

    @property
    def hardest(self) -> tuple[str, Gap]:
        """The one that learnt from the labels alone and that the side with the heap is least ahead of on test."""
        chosen = Gap(self.difference, self.differing, self.labels_alone.test)
        gaps = {self.labels_alone.name: chosen, **self.others}
        return min(gaps.items(), key=lambda each: each[1].difference[HEADLINE].value)


@dataclass(frozen=True)
class ReliabilityBin(JsonRecord):
    """Answers of about the same confidence, and how often they are right."""

    confidence: float
    """Their mean confidence, a share."""
    right: float
    """Share of them that is right."""
    answers: int
    """Number of them."""


@dataclass(frozen=True)
class LevelCalibration(JsonRecord):
    """How far the probabilities of a level are from the truth, on test."""

    error: float
    """Expected calibration error, a share."""
    perfect: float
    """The error that perfectly calibrated probabilities would show in the mean with as many images, simulated."""
    bins: tuple[ReliabilityBin, ...] = ()
    """Answers by their confidence, the least sure first; empty if the step was made by a version without them."""
    uncalibrated_error: float | None = None
    """``error`` of the same networks without any temperature; ``None`` if the step was made by a version without it."""
    uncalibrated_bins: tuple[ReliabilityBin, ...] = ()
    """``bins`` of the same networks without any temperature."""
    ended: float = 0.0
    """Share of the answers whose image has a label that ends above the level: no class there is right."""


@dataclass(frozen=True)
class LevelLabelling(JsonRecord):
    """One level of the labels that a labeller gave the heap, and of those it gives validation by the same rule."""

    precision: float | None
    """Share of the labels it keeps on validation that are right; ``None`` if it keeps none whose truth is known."""
    judged: int
    """Number of the labels that ``precision`` is a share of."""
    share: float
    """Share of the heap that has a kept label at the level."""
    confidence: float | None
    """Mean probability of the labels of the level on the heap, kept or not; ``None`` if there are none."""
    validation_confidence: float | None
    """The same on validation."""


@dataclass(frozen=True)
class Labelling(JsonRecord):
    """The labels of one labelling step, as far as they can be judged without knowing the truth about the heap."""

    labeller: str
    """Step whose classifier gave them."""
    validation: float | None
    """Headline score of the labeller on validation."""
    levels: dict[str, LevelLabelling]
    without_labels: tuple[str, ...]
    """Labels that people gave to some images and that no image of the heap is taught, as ``coarse/mid/fine``; before
    any filter."""


@dataclass(frozen=True)
class LevelQuality(JsonRecord):
    """Machine-made labels of one level, compared with the truth."""

    precision: float | None
    """Share of the kept labels that are right; ``None`` if the truth of no kept label is known."""
    kept: int
    """Number of kept labels."""
    share: float
    """Share of the images that have a kept label."""


@dataclass(frozen=True)
class DetectionQuality(JsonRecord):
    """One level of the given labels: how well the labels that were dropped are those that are wrong."""

    judged: int
    """Number of labels whose truth is known."""
    wrong: int
    dropped: int
    precision: float | None
    """Share of the dropped labels that are wrong; ``None`` if none was dropped."""
    recall: float | None
    """Share of the wrong labels that were dropped; ``None`` if none is wrong."""
    right_among_kept: float = field(metadata=json_key("right among kept"))
    """Share of the kept labels that are right."""


@dataclass(frozen=True)
class Scores(JsonRecord):
    """The content of ``scores.json``. Steps are called by the names of their folders, such as ``01-teacher``."""

    final: Side
    """The final classifier, chosen on validation."""
    ended: str | None
    """Why the rounds ended before the last planned one, if a filter left nothing to learn from."""
    confidence: float
    """Share of the resamples that lie inside an interval."""
    classifiers: dict[str, ClassifierScores]
    """By step that trained."""
    heap_gain: HeapGain | None
    """What the heap was worth; ``None`` if no classifier learnt from it, or none that may be chosen."""
    equal_passes: dict[str, Difference] | None
    """The last student minus the network of its architecture that made as many passes over the labelled images alone,
    on test, by score of ``COMPARED``: one network against one network. ``None`` if there are not both."""
    calibration: dict[str, LevelCalibration]
    """Calibration of the final classifier, by level; a level that no test image has is left out."""
    labelling: dict[str, Labelling]
    """By step that labelled the heap."""
    pseudo_labels: dict[str, dict[str, LevelQuality]]
    """The heap's labels as they were made and as a filter left them: by step, by level."""
    given_labels: dict[str, dict[str, DetectionQuality]]
    """By step that filtered, by level; empty if no given label is known to be wrong."""
    inconsistent: float | None = None
    """Share of the test images for which the most probable outputs of the levels, each by itself, are no path: of the
    final classifier without temperatures or decoder. ``None`` if the step was made by a version without it."""

    @property
    def sides(self) -> tuple[Side, ...]:
        """The two sides of the heap's gain, with it first; without a gain the final classifier alone."""
        return (self.heap_gain.with_heap, self.heap_gain.labels_alone) if self.heap_gain else (self.final,)

    @property
    def test(self) -> dict[str, Intervals]:
        """Test scores by name of the classifier: of every step, of the sides, and of the pool of the labels alone."""
        pools = {side.name: side.test for side in self.sides}
        if self.heap_gain:
            pools |= {name: gap.test for name, gap in self.heap_gain.others.items()}
        found = {name: each.test for name, each in self.classifiers.items()}
        return found | {name: test for name, test in pools.items() if name not in found}


def read_scores(kind: type[Record], path: Path) -> Record:
    """What a file of scores holds, such as ``scores.json``.

    Raises:
        ArtifactError: The file cannot be read, or does not hold such scores.
    """
    try:
        return kind.from_json(read_json(path))
    except ValueError as error:
        raise ArtifactError(
            f"{path} holds no scores that this version reads ({error}): `nstudent stage evaluate` makes them again"
        ) from error
