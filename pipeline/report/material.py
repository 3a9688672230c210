"""What a report is made from: everything that it reads of a run folder, opened once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from nstudent.config.data import DataConfig
from nstudent.config.schema import Config
from nstudent.data.dataset import INDEX, OK, TAXONOMY, TRUTH, Ids
from nstudent.data.left_out import LEFT_OUT
from nstudent.evaluation.predictions import Predictions
from nstudent.evaluation.refit_scores import RefitScores
from nstudent.evaluation.scores import SCORES, Scores, read_scores
from nstudent.labels.heap_labels import HeapLabels
from nstudent.runs.curves import read_curves
from nstudent.runs.finding import Finding
from nstudent.runs.findings import findings
from nstudent.runs.kept_config import kept_config, with_paths_found
from nstudent.runs.measured import Measured
from nstudent.runs.outcome import needed_steps
from nstudent.runs.plan import plan
from nstudent.runs.stage import Step
from nstudent.runs.verdict import verdict
from nstudent.storage.artifact import Artifact, Manifest
from nstudent.storage.commit import partial_folder
from nstudent.storage.hdf5 import mapped
from nstudent.taxonomy.tree import LabelArray, Taxonomy

Epochs = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Images:
    """What the data step says of every image, by id; the pixels are read elsewhere."""

    artifact: Artifact
    taxonomy: Taxonomy
    labels: LabelArray
    """As training may see them, (images, levels)."""
    truth: LabelArray
    """True labels where the source knew them, (images, levels)."""
    split: npt.NDArray[np.int8]
    status: npt.NDArray[np.uint8]
    left_out: tuple[Mapping[str, Any], ...]
    """Name and reason of each image that is not used, in the order of the ids."""
    names: npt.NDArray[np.bytes_]

    @classmethod
    def open(cls, artifact: Artifact) -> Images:
        """Open a committed data step."""
        index = mapped(artifact.path(INDEX))
        return cls(
            artifact=artifact,
            taxonomy=Taxonomy.from_json(artifact.json(TAXONOMY)),
            labels=np.asarray(index["label"]),
            truth=np.asarray(mapped(artifact.path(TRUTH))["label"]),
            split=np.asarray(index["split"]),
            status=np.asarray(index["status"]),
            left_out=tuple(artifact.json(LEFT_OUT)),
            names=index["name"],
        )

    def name(self, image: int) -> str:
        """Name of an image in its source."""
        name: bytes = self.names[image]
        return name.decode("utf-8", "surrogateescape")

    def usable(self, split: int) -> Ids:
        """Ids of the usable images of one split, ascending."""
        return np.flatnonzero((self.split == split) & (self.status == OK))

    def path(self, row: Sequence[int] | npt.NDArray[Any]) -> str:
        """A label in words, such as ``fruit / apple``."""
        return " / ".join(self.taxonomy.names([int(index) for index in row]).values()) or "no class"


@dataclass(frozen=True)
class Round:
    """The labels of the unlabelled images of one round, before and after the filter."""

    number: int
    labels: str
    """Name of the step that made them."""
    made: HeapLabels
    filtered: HeapLabels | None
    """``None`` if no filter step judged them."""


@dataclass(frozen=True)
class Waiting:
    """A step that is not made yet."""

    step: str
    role: str
    is_begun: bool


@dataclass(frozen=True)
class Material:
    """A run, finished or not, opened for its report."""

    run_dir: Path
    config: Config
    """As it was given: ``data`` says where its paths lead."""
    measured: Measured
    findings: tuple[Finding, ...]
    verdict: str
    manifests: Mapping[str, Manifest]
    """Manifests of the steps that the scores were made from, and of that which scored, by name in order of the run; of
    a run without scores, of the steps that are made."""
    waiting: tuple[Waiting, ...] = ()
    """The steps that a run without scores has still to make."""

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """Open a run folder.

        Raises:
            ArtifactError: It is not the folder of a run, or a file is damaged.
            ConfigError: Its configuration cannot be read.
        """
        config = kept_config(run_dir)
        steps = plan(config)
        manifests = _made(run_dir, steps)
        scores: Scores | None = None
        refit: RefitScores | None = None
        waiting: tuple[Waiting, ...] = ()
        step = next((step.name for step in steps if step.stage.provides == "scores" and step.name in manifests), None)
        if step is not None:
            manifests = {name: manifests[name] for name in [*sorted(manifests[step].inputs), step]}
            scores = read_scores(Scores, run_dir / step / SCORES)
            refit = RefitScores.read(run_dir / step)
        else:
            waiting = tuple(_waiting(run_dir, steps, manifests))
        measured = Measured.of(manifests, scores, refit)
        found = findings(measured)
        return cls(run_dir, config, measured, tuple(found), verdict(measured, found), manifests, waiting)

    @property
    def has_scores(self) -> bool:
        """Whether the run has scored its classifiers on test."""
        return self.measured.scored is not None

    def has(self, role: str) -> bool:
        """Whether a step of a role is made."""
        return any(manifest.role == role for manifest in self.manifests.values())

    def step(self, role: str) -> str:
        """Name of the last step of a role, which is made."""
        *_, last = (name for name, manifest in self.manifests.items() if manifest.role == role)
        return last

    @cached_property
    def data(self) -> DataConfig:
        """Where the images of the run are."""
        return with_paths_found(self.config, self.run_dir).data

    @cached_property
    def images(self) -> Images:
        """What the data step says of every image."""
        return Images.open(Artifact(self.run_dir / self.step("data")))

    @cached_property
    def final(self) -> Predictions:
        """What the final classifier says of the validation and test images."""
        return Predictions.open(Artifact(self.run_dir / self.step("scores")), self.step("labeller"))

    @cached_property
    def rounds(self) -> tuple[Round, ...]:
        """The labels of the unlabelled images, round by round."""
        judges = {labels: step for step, labels in self.measured.labels_of.items()}
        found = []
        for step in self.measured.labels:
            labels = Artifact(self.run_dir / step)
            judge = judges.get(step)
            filtered = HeapLabels.open(labels, Artifact(self.run_dir / judge)) if judge else None
            found.append(Round(self.measured.rounds[step], step, HeapLabels.open(labels), filtered))
        return tuple(found)

    @cached_property
    def curves(self) -> dict[str, Epochs]:
        """The epochs of each training of the run. Steps of an earlier version have them in their manifests alone."""
        steps = {*self.manifests, *(each.step for each in self.waiting if each.is_begun)}
        kept = {name: each for name, each in read_curves(self.run_dir).items() if name.split("/")[0] in steps}
        have = {name.split("/")[0] for name in kept}
        for step, metrics in self.measured.trained.items():
            if step not in have:
                kept |= {f"{step}/{number}": list(each) for number, each in enumerate(metrics.history) if each}
        return dict(sorted(kept.items()))


def _made(run_dir: Path, steps: Sequence[Step]) -> dict[str, Manifest]:
    """Manifests of the steps that are made from one another, by name in order of the run.

    A step whose inputs were made again since then is of an earlier state of the run.
    """
    made: dict[str, Manifest] = {}
    for step in steps:
        if (run_dir / step.name).exists():
            manifest = Manifest.read(run_dir / step.name)
            if all(name in made and made[name].id == found for name, found in manifest.inputs.items()):
                made[step.name] = manifest
    return made


def _waiting(run_dir: Path, steps: Sequence[Step], made: Mapping[str, Manifest]) -> Iterator[Waiting]:
    for step in needed_steps(steps, run_dir):
        if step.name not in made:
            yield Waiting(step.name, step.stage.provides, partial_folder(run_dir / step.name).exists())
