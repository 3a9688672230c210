"""The scores of what was trained again on labels and validation together, as they are kept beside ``scores.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nstudent.errors import ArtifactError
from nstudent.evaluation.scores import Difference, LevelCalibration, Side
from nstudent.storage.files import read_json
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
    """Of ``final``, whose temperatures were fitted before it was trained again; by level."""

    @classmethod
    def read(cls, folder: Path) -> RefitScores | None:
        """Read ``refit.json`` of a step that scored; ``None`` if nothing was trained again.

        Raises:
            ArtifactError: The file cannot be read, or does not hold such scores.
        """
        path = folder / REFIT_SCORES
        if not path.exists():
            return None
        try:
            return cls.from_json(read_json(path))
        except ValueError as error:
            raise ArtifactError(
                f"{path} holds no scores that this version reads ({error}): `nstudent stage evaluate` makes them again"
            ) from error
