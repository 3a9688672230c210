"""The scores of what was trained again on labels and validation together, as they are kept beside ``scores.json``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nstudent.evaluation.scores import Difference, LevelCalibration, Side, read_scores
from nstudent.storage.json_record import JsonRecord

REFIT_SCORES = "refit.json"


@dataclass(frozen=True)
class RefitScores(JsonRecord):
    """The final classifier and the best of the labels alone, both trained again on labels and validation together.

    Test images alone tell of them. Nothing is chosen by it: the choice, and the goals that a run is held to, are those
    of the classifiers before, which stand in ``scores.json``.
    """

    final: Side
    """The classifier that the run gives. It has no scores on validation, whose images it has learnt from."""
    over_chosen: dict[str, Difference]
    """It minus what was chosen, as that was before it was trained again, by score of ``COMPARED``."""
    labels_alone: Side | None
    """The best that did not see the heap, trained again; ``None`` if ``final`` has nothing of the heap either."""
    gain: dict[str, Difference] | None
    """What the heap gave: ``final`` minus ``labels_alone``; ``None`` without that."""
    calibration: dict[str, LevelCalibration]
    """Calibration of ``final`` by level; its temperatures were fitted before it was trained again."""

    @classmethod
    def read(cls, folder: Path) -> RefitScores | None:
        """Read ``refit.json`` of a step that scored; ``None`` if nothing was trained again.

        Raises:
            ArtifactError: The file cannot be read, or does not hold such scores.
        """
        path = folder / REFIT_SCORES
        return read_scores(cls, path) if path.exists() else None


def trained_again(before: Side, spent: tuple[int, float], step: str) -> Side:
    """A side after its parts were trained again, which is paid for on top; without scores.

    Args:
        before: The side as it was.
        spent: Image passes of these trainings, and their billions of multiply-adds.
        step: The step that did it.
    """
    gmacs, passes = before.training_gmacs, before.image_passes
    return replace(
        before,
        training_gmacs=None if gmacs is None else round(gmacs + spent[1], 3),
        image_passes=None if passes is None else passes + spent[0],
        made_from=(*before.made_from, step),
        validation={},
        test={},
        on_tree=None,
    )
