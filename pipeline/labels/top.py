"""Distributions over many classes, kept as their most probable classes and what is left over.

At a level with 10,000 classes a whole distribution is 20 kB an image, as much as a photo at 224 px; 64 classes of it
are 256 bytes. What the other classes share is spread evenly over them when it is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from nstudent.errors import ArtifactError
from nstudent.labels.rows import JoinedRows, Rows

if TYPE_CHECKING:
    from torch import Tensor

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


def top_classes(probabilities: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The most probable classes and their probabilities, (rows, count) each, the most probable first.

    ``probabilities`` are (rows, outputs), on any device.
    """
    classes = probabilities.topk(count, sorted=False).indices
    # Of equal ones that are kept the first class comes first. Which are kept of several at the cut is for topk to say,
    # from that row alone.
    classes = classes.sort(dim=1).values
    chosen = probabilities.gather(1, classes)
    order = chosen.argsort(dim=1, descending=True, stable=True)
    return classes.gather(1, order), chosen.gather(1, order)


class TopRows:
    """Whole distributions from their most probable classes: indexing with rows gives float32 (rows, outputs)."""

    def __init__(
        self, classes: JoinedRows, probabilities: JoinedRows, outputs: int, rest: JoinedRows | None = None
    ) -> None:
        """``rest``: what the classes that are not kept share, (rows, 1); ``None``: what is left of 1."""
        self._classes = classes
        self._rest = rest
        self._probabilities = probabilities
        self._outputs = outputs

    def __len__(self) -> int:
        return len(self._classes)

    def __getitem__(self, rows: Rows) -> npt.NDArray[Any]:
        classes = self._classes[rows]
        kept = self._probabilities[rows].astype(np.float32)
        if classes.size and not 0 <= int(classes.min()) <= int(classes.max()) < self._outputs:
            raise ArtifactError(f"the label store names a class beyond the {self._outputs:,} of its level")
        if self._rest is None:
            # Half precision may make them add up to a little more than one.
            left = np.maximum(1.0 - kept.sum(axis=1, keepdims=True), 0.0)
        else:
            left = self._rest[rows].astype(np.float32)
        others = max(1, self._outputs - classes.shape[1])
        whole = np.empty((len(rows), self._outputs), dtype=np.float32)
        whole[:] = left / others
        np.put_along_axis(whole, classes.astype(np.int64), kept, axis=1)
        return whole
