"""What a network is to learn from a label: per level, mass on each class.

One representation serves given labels, soft and hard pseudo-labels and mixtures of them. A row's mass sums to one where
a level teaches something and to zero where it does not (unknown, or absent in a tree whose absent levels are ignored).
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from nstudent.taxonomy.outputs import SILENT, Outputs
from nstudent.taxonomy.tree import LabelArray

Mass = tuple[npt.NDArray[np.float32], ...]
"""Per level, coarse first: (rows, outputs of the level)."""


class Distributions(Protocol):
    """Anything that gives float16 or float32 (rows, outputs) for row numbers: an array, or the mapped store."""

    def __getitem__(self, rows: npt.NDArray[np.int64], /) -> npt.NDArray[Any]:
        """The distributions of some rows."""


class GivenTargets:
    """Targets from labels: one class a level."""

    def __init__(self, labels: LabelArray, outputs: Outputs) -> None:
        """``labels``: (rows, levels); ``outputs``: of the network that is taught."""
        self._labels = labels
        self._outputs = outputs

    def __call__(self, rows: npt.NDArray[np.int64]) -> Mass:
        """Mass of some rows, (b,): float32 (b, outputs) per level."""
        taught = self._outputs.indices(self._labels[rows])
        return tuple(_one_hot(taught[:, level], size) for level, size in enumerate(self._outputs.sizes))


class PseudoTargets:
    """Targets from stored distributions, at the levels that were kept."""

    def __init__(self, probabilities: Sequence[Distributions], keep: npt.NDArray[np.bool_], *, hard: bool) -> None:
        """``probabilities`` may be mapped from disk; ``keep``: (rows, levels)."""
        self._probabilities = probabilities
        self._keep = keep
        self._hard = hard

    def __call__(self, rows: npt.NDArray[np.int64]) -> Mass:
        """Mass of some rows, (b,): float32 (b, outputs) per level."""
        mass = []
        for level, stored in enumerate(self._probabilities):
            distribution = np.asarray(stored[rows], dtype=np.float32)
            kept = self._keep[rows, level, None]
            if self._hard:
                best = distribution.argmax(axis=1, keepdims=True)
                distribution = np.zeros_like(distribution)
                np.put_along_axis(distribution, best, kept.astype(np.float32), axis=1)
            else:
                # float16 rounds each entry; the sum is made one again. Divided by infinity, nothing is taught.
                total = np.maximum(distribution.sum(axis=1, keepdims=True), np.float32(1e-6))
                distribution /= np.where(kept, total, np.float32(np.inf))
            mass.append(distribution)
        return tuple(mass)


def _one_hot(column: npt.NDArray[np.int32], size: int) -> npt.NDArray[np.float32]:
    mass = np.zeros((len(column), size), dtype=np.float32)
    taught = np.flatnonzero(column != SILENT)
    mass[taught, column[taught]] = 1.0
    return mass
