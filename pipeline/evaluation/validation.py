"""The score of an ensemble on the validation images: one process takes it, and all processes of the run wait for it."""

from __future__ import annotations

from pathlib import Path

from nstudent.data.dataset import Dataset
from nstudent.errors import StoppedError
from nstudent.evaluation.assess import assess
from nstudent.evaluation.metrics import scores
from nstudent.evaluation.scores import HEADLINE
from nstudent.models.ensemble import Ensemble
from nstudent.models.kept_walks import KeptWalks
from nstudent.session import Session


class Validation:
    """Takes the headline score in the process that leads; whichever is asked to stop, all stop after the same batch."""

    def __init__(self, dataset: Dataset, batch_size: int | None, folder: Path, session: Session) -> None:
        """Prepare to score.

        Args:
            dataset: The images and their labels.
            batch_size: Largest number of images labelled at once; ``None``: by their size and the device.
            folder: Partial folder of the step, in which a score that is stopped keeps what was labelled for it.
            session: The processes, and whether they are to stop.
        """
        self._dataset = dataset
        self._batch_size = batch_size
        self._world = session.world
        self._stop = session.stop
        self._walks = KeptWalks(folder, session, check=self._go_on, passing=True)

    def score(self, ensemble: Ensemble) -> float:
        """The leader's score, in every process.

        Raises:
            StoppedError: One of the processes was asked to stop; the leader keeps what the ensemble has said by then.
        """
        if self._world.leads:
            return float(self._world.agree(self._taken(ensemble)))
        while (score := self._world.agree()) is None:
            self._stop_together()
        return float(score)

    def _taken(self, ensemble: Ensemble) -> float:
        dataset = self._dataset
        assessed = assess(ensemble, dataset, dataset.validation, self._batch_size, walk=self._walks.batches)
        score = scores(assessed.tallies)[HEADLINE]
        assert score is not None, "the data stage refuses validation images without a label"
        return score

    def _go_on(self) -> None:
        """Tell the other processes, which wait for the score, that the leader has labelled another batch for it."""
        self._world.agree(None)
        self._stop_together()

    def _stop_together(self) -> None:
        if self._world.any(self._stop.is_noted):
            self._stop.check()
            raise StoppedError("stopped with the other processes of the run: the same command goes on")
