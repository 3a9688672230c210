"""What a run has measured, gathered from its folder: its scores, and what its steps reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from nstudent.evaluation.scores import SCORES, Scores
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

    scores: Scores
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

    @classmethod
    def read(cls, run_dir: Path, step: str) -> Self:
        """The measurements of a run, from its folder and the name of the step that scored it.

        Raises:
            ArtifactError: The scores or a manifest cannot be read.
        """
        manifests = {name: Manifest.read(run_dir / name) for name in sorted(Manifest.read(run_dir / step).inputs)}
        reported = {name: read_metrics(manifest) for name, manifest in manifests.items()}

        def those(kind: type[Some]) -> dict[str, Some]:
            return {name: each for name, each in reported.items() if isinstance(each, kind)}

        labels, filters = those(LabelMetrics), those(FilterMetrics)
        return cls(
            scores=Scores.read(run_dir / step / SCORES),
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
        return {name: each for name, each in self.trained.items() if self.rounds.get(name)}
