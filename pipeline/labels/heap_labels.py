"""What a student learns from the heap: machine-made labels, and which of them are taught, as one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from nstudent.errors import ArtifactError
from nstudent.labels.selection import Selection
from nstudent.labels.store import LabelStore
from nstudent.labels.targets import PseudoTargets, Teaches
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import LabelArray


@dataclass(frozen=True)
class HeapLabels:
    """The labels of a heap, and a selection from them: row for row the same images."""

    labels: LabelStore
    selection: Selection

    def __post_init__(self) -> None:
        """Check that both speak of the same rows and levels.

        Raises:
            ArtifactError: They do not.
        """
        rows, levels = len(self.labels), len(self.labels.probabilities)
        if self.selection.keep.shape != (rows, levels) or self.selection.copies.shape != (rows,):
            raise ArtifactError(
                f"a selection of {len(self.selection.keep)} labels does not fit a store of {rows} labels at {levels} "
                "levels: delete the folder of its step and run again"
            )

    @classmethod
    def open(cls, labels: Artifact, selection: Artifact | None = None) -> HeapLabels:
        """Open the labels of a step, and the selection that it has made itself or that a later step has left.

        Args:
            labels: Step that holds the label store, and a first selection from it.
            selection: Step that has judged these labels; default: ``labels``.

        Raises:
            ArtifactError: A file is missing or damaged, or the selection was made from other labels.
        """
        if selection is not None and selection.manifest.inputs.get(labels.name) != labels.manifest.id:
            raise ArtifactError(
                f"{selection.name} was not made from the labels that {labels.name} holds now: "
                f"run `nstudent stage {selection.manifest.stage}` first"
            )
        return cls(LabelStore.open(labels), Selection.load(selection or labels))

    def __len__(self) -> int:
        """Number of images with a label, taught or not."""
        return len(self.labels)

    @property
    def images(self) -> npt.NDArray[np.int64]:
        """Image id of each row, ascending, (rows,)."""
        return self.labels.images

    @property
    def keep(self) -> npt.NDArray[np.bool_]:
        """Which levels are taught, (rows, levels)."""
        return self.selection.keep

    @property
    def copies(self) -> npt.NDArray[Any]:
        """How often an image is shown in each pass over the heap, (rows,); 0: not at all."""
        return self.selection.copies

    def kept_labels(self) -> LabelArray:
        """The paths of the labels, (rows, levels), unknown at the levels that are not taught."""
        return self.labels.kept_labels(self.keep)

    def level_shares(self, copies: npt.NDArray[Any]) -> tuple[float, ...]:
        """Per level, the share of the shown images that could have a label there, be it kept or not.

        That is where the path of the label names a class, or ends and the labeller has an output that says so.

        Args:
            copies: How often each image is shown, (rows,); it counts as often. All zero: every share is 0.
        """
        said = np.zeros(self.keep.shape[1])
        for part in self.labels.parts():
            said += copies[part.rows].astype(np.float64) @ (part.confidence > 0)
        return tuple((said / max(1, int(copies.sum()))).tolist())

    def targets(self, teaches: Teaches, outputs: Outputs) -> PseudoTargets:
        """What a network is to learn of a row; ``outputs`` are those of the labeller and of the network."""
        return PseudoTargets(self.labels.probabilities, self.labels.path_rows, self.keep, outputs, teaches)
