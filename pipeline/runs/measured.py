"""What a run has measured, gathered from its folder: its scores, if it has any yet, and what its steps reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from nstudent.errors import ArtifactError
from nstudent.evaluation.refit_scores import RefitScores
from nstudent.evaluation.scores import SCORES, Labelling, Scores, read_scores
from nstudent.runs.step_metrics import (
    ChoiceMetrics,
    DataMetrics,
    FilterMetrics,
    LabelMetrics,
    TrainedMetrics,
    read_metrics,
)
from nstudent.storage.artifact import Manifest, Metrics

Some = TypeVar("Some", bound=Metrics)


@dataclass(frozen=True)
class Measured:
    """What a run has measured: its scores, and what its steps reported, by name of the step in the order of the run."""

    scored: Scores | None
    """``None`` if the run has no scores yet."""
    data: DataMetrics | None
    """``None`` if the step did not say."""
    trained: Mapping[str, TrainedMetrics]
    labels: Mapping[str, LabelMetrics]
    filters: Mapping[str, FilterMetrics]
    choices: Mapping[str, ChoiceMetrics]
    rounds: Mapping[str, int]
    """Round of each step; 0: before the first."""
    labels_of: Mapping[str, str]
    """By filter step, the step whose labels it judged."""
    seconds: Mapping[str, float]
    """How long each step took."""
    refit: RefitScores | None = None
    """Scores of what was trained again on labels and validation together; ``None`` if nothing was."""

    @classmethod
    def read(cls, run_dir: Path, step: str) -> Self:
        """The measurements of a run, from its folder and the name of the step that scored it.

        Raises:
            ArtifactError: The scores or a manifest cannot be read.
        """
        manifests = {name: Manifest.read(run_dir / name) for name in sorted(Manifest.read(run_dir / step).inputs)}
        folder = run_dir / step
        return cls.of(manifests, read_scores(Scores, folder / SCORES), RefitScores.read(folder))

    @classmethod
    def of(cls, manifests: Mapping[str, Manifest], scored: Scores | None, refit: RefitScores | None = None) -> Self:
        """What these steps reported, by their names in the order of the run, and their scores."""
        reported = {name: read_metrics(manifest) for name, manifest in manifests.items()}

        def those(kind: type[Some]) -> dict[str, Some]:
            return {name: each for name, each in reported.items() if isinstance(each, kind)}

        labels, filters = those(LabelMetrics), those(FilterMetrics)
        return cls(
            scored=scored,
            refit=refit,
            data=next(iter(those(DataMetrics).values()), None),
            trained=those(TrainedMetrics),
            labels=labels,
            filters=filters,
            choices=those(ChoiceMetrics),
            seconds={name: manifest.seconds for name, manifest in manifests.items()},
            rounds={name: manifest.round for name, manifest in manifests.items()},
            labels_of={
                name: next(read for read in manifests[name].inputs if read in labels)
                for name in filters
                if labels.keys() & manifests[name].inputs.keys()
            },
        )

    @property
    def students(self) -> dict[str, TrainedMetrics]:
        """Classifiers that were trained on labels of the heap."""
        # A probe that labels the heap by itself is of a round, too, and passes no image through a network.
        return {name: each for name, each in self.trained.items() if self.rounds.get(name) and each.image_passes}

    @property
    def scores(self) -> Scores:
        """The scores.

        Raises:
            ArtifactError: The run has none yet.
        """
        if self.scored is None:
            raise ArtifactError("the run has no scores yet: nstudent run-all makes them")
        return self.scored

    @property
    def labelling(self) -> Mapping[str, Labelling]:
        """By labelling step what the scores say of its labels; empty without scores."""
        return self.scored.labelling if self.scored else {}

    @property
    def ended(self) -> str:
        """Why no round could follow; empty if one could."""
        if self.scored is not None:
            return self.scored.ended or ""
        return next((judged.ended for judged in self.filters.values() if judged.ended), "")
