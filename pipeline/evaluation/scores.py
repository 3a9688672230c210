"""The scores of a run as they are kept in ``scores.json``, for whoever reads them: tables, pictures, reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nstudent.errors import ArtifactError
from nstudent.storage.files import read_json
from nstudent.storage.json_record import JsonRecord, json_key

SCORES = "scores.json"
FIGURE = "scores.png"

HEADLINE = "contest alone"
"""The score that choices are made by: matched levels / levels that exist, mean over images."""
EXACT_PATH = "exact path"
COMPARED = (HEADLINE, EXACT_PATH)
"""The scores of whole paths that classifiers are compared by."""


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
class ClassifierScores(JsonRecord):
    """One classifier of a run: its cost and its scores."""

    gmacs: float
    """Billions of multiply-adds to label one image."""
    image_passes: int
    """Number of images that went forward and backward in its training."""
    training_gmacs: float | None
    """Billions of multiply-adds of its training; ``None`` if the step was made by a version that did not count them."""
    validation: Intervals
    test: Intervals


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

    final: str
    """Step of the final classifier."""
    ended: str | None
    """Why the rounds ended before the last planned one, if a filter left nothing to learn from."""
    confidence: float
    """Share of the resamples that lie inside an interval."""
    classifiers: dict[str, ClassifierScores]
    """By step."""
    gain: dict[str, dict[str, Difference]]
    """The final classifier minus each one that learnt from the given labels alone, on test: by step, by score."""
    pseudo_labels: dict[str, dict[str, LevelQuality]]
    """The heap's labels as they were made and as a filter left them: by step, by level."""
    given_labels: dict[str, dict[str, DetectionQuality]]
    """By step that filtered, by level; empty if no given label is known to be wrong."""

    @classmethod
    def read(cls, path: Path) -> Scores:
        """Read ``scores.json``.

        Raises:
            ArtifactError: The file cannot be read, or does not hold the scores of a run.
        """
        try:
            return cls.from_json(read_json(path))
        except ValueError as error:
            raise ArtifactError(
                f"{path} holds no scores of a run ({error}): delete its folder and run again"
            ) from error
