"""Distributions over many classes, kept as their most probable classes and what is left over.

At a level with 10,000 classes a whole distribution is 20 kB an image, as much as a photo at 224 px; 64 classes of it
are 256 bytes. What the other classes share is spread evenly over them when it is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nstudent.errors import ArtifactError
from nstudent.labels.rows import JoinedRows, Rows

MOST_WHOLE_OUTPUTS = 256
DEFAULT_CLASSES = 64


def classes_kept(outputs: int, top_k: int | None) -> int:
    """How many classes of a level are stored; all of its outputs: the whole distribution is."""
    if top_k is None:
        return outputs if outputs <= MOST_WHOLE_OUTPUTS else DEFAULT_CLASSES
    return min(top_k, outputs)


def class_type(outputs: int) -> type[np.int16] | type[np.int32]:
    """The smallest type that numbers the outputs of a level."""
    return np.int16 if outputs <= np.iinfo(np.int16).max + 1 else np.int32


def top_classes(
    probabilities: npt.NDArray[np.float32], count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The most probable classes and their probabilities, (rows, count) each, the most probable first."""
    # torch's is more than twice as fast as numpy's argpartition.
    classes = torch.from_numpy(probabilities).topk(count, sorted=False).indices.numpy()
    # Of equal ones that are kept the first class comes first. Which are kept of several at the cut is for topk to say,
    # from that row alone.
    classes.sort(axis=1)
    chosen = np.take_along_axis(probabilities, classes, axis=1)
    order = np.argsort(-chosen, axis=1, kind="stable")
    return np.take_along_axis(classes, order, axis=1), np.take_along_axis(chosen, order, axis=1)


class TopRows:
    """Whole distributions from their most probable classes: indexing with rows gives float32 (rows, outputs)."""

    def __init__(self, classes: JoinedRows, probabilities: JoinedRows, outputs: int) -> None:
        self._classes = classes
        self._probabilities = probabilities
        self._outputs = outputs

    def __len__(self) -> int:
        return len(self._classes)

    def __getitem__(self, rows: Rows) -> npt.NDArray[Any]:
        classes = self._classes[rows]
        kept = self._probabilities[rows].astype(np.float32)
        if classes.size and not 0 <= int(classes.min()) <= int(classes.max()) < self._outputs:
            raise ArtifactError(f"the label store names a class beyond the {self._outputs:,} of its level")
        # Half precision may make them add up to a little more than one.
        left = np.maximum(1.0 - kept.sum(axis=1, keepdims=True), 0.0)
        others = max(1, self._outputs - classes.shape[1])
        whole = np.empty((len(rows), self._outputs), dtype=np.float32)
        whole[:] = left / others
        np.put_along_axis(whole, classes.astype(np.int64), kept, axis=1)
        return whole
