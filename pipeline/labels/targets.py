"""What a network is to learn from a label: per level, mass on each class.

One representation serves given labels, soft and hard pseudo-labels and mixtures of them. A row's mass sums to one where
a level teaches something and to zero where it does not (unknown, or absent in a tree whose absent levels are ignored).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from nstudent.taxonomy.outputs import SILENT, Outputs
from nstudent.taxonomy.tree import ABSENT, LabelArray

_LEAST_MASS = 1e-6

Mass = tuple[npt.NDArray[np.float32], ...]
"""Per level, coarse first: (rows, outputs of the level)."""


class StoredRows(Protocol):
    """Anything that gives (rows, columns) for row numbers: an array, or the mapped store."""

    def __getitem__(self, rows: npt.NDArray[np.int64], /) -> npt.NDArray[Any]:
        """What is stored of some rows."""


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


Teaches = Literal["soft", "under_path", "hard"]
"""What is learnt of a level that is kept, as ``pseudolabel.targets`` names it."""


class PseudoTargets:
    """Targets from stored labels, at the levels that were kept.

    - ``soft``: the stored distribution of the level. It teaches what the labeller holds possible, also under classes of
      the level above that the label has ruled out.
    - ``under_path``: what of that distribution lies under the class which is kept one level above, divided by its sum.
      It teaches how the labeller would choose if it knew that class, so that no level contradicts the one above.
    - ``hard``: the class on the stored path. It teaches the label that was compared with the threshold, counted and
      filtered, which need not be the most probable class of every level.
    """

    def __init__(
        self,
        probabilities: Sequence[StoredRows],
        paths: StoredRows,
        keep: npt.NDArray[np.bool_],
        outputs: Outputs,
        teaches: Teaches,
    ) -> None:
        """Teach from a store.

        Args:
            probabilities: Distribution of each level, by row; may be mapped from disk.
            paths: Label of each row, int32 (rows, levels); may be mapped from disk.
            keep: Which levels are taught, (rows, levels).
            outputs: Those of the labeller and of the network that is taught.
            teaches: What is learnt of a level that is kept.
        """
        self._probabilities = probabilities
        self._paths = paths
        self._keep = keep
        self._outputs = outputs
        self._teaches = teaches
        self._under = [_Under.of(outputs, level) for level in range(len(outputs.sizes))]

    def __call__(self, rows: npt.NDArray[np.int64]) -> Mass:
        """Mass of some rows, (b,): float32 (b, outputs) per level."""
        keep = self._keep[rows]
        if self._teaches == "soft":
            return tuple(_normalised(stored[rows], keep[:, level]) for level, stored in enumerate(self._probabilities))
        said = np.where(keep, self._outputs.indices(self._paths[rows]), np.int32(SILENT))
        if self._teaches == "hard":
            return tuple(_one_hot(said[:, level], size) for level, size in enumerate(self._outputs.sizes))
        return tuple(self._mass_under(level, rows, said) for level in range(len(self._probabilities)))

    def _mass_under(
        self, level: int, rows: npt.NDArray[np.int64], said: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32]:
        """The distributions of a level under the output that ``said``, (b, levels), names one level above."""
        distribution = np.array(self._probabilities[level][rows], dtype=np.float32)
        kept = said[:, level] != SILENT
        if level:
            distribution *= self._under[level].allowed(said[:, level - 1])
        # Half precision may have rounded all of it to zero: then the class on the path is all that is known.
        lost = np.flatnonzero(kept & (distribution.sum(axis=1) < _LEAST_MASS))
        distribution[lost, said[lost, level]] = 1.0
        return _normalised(distribution, kept)


@dataclass(frozen=True)
class _Under:
    """Which outputs of a level are possible under each output of the level above."""

    parents: npt.NDArray[np.int32]
    """Output above each output, (outputs,); ``SILENT`` for 'nothing'."""
    nothing: int | None
    """The output for 'nothing', if the level has one."""
    ends: npt.NDArray[np.bool_]
    """For each output of the level above, whether a path can end there, or has ended before, (outputs above,)."""

    @classmethod
    def of(cls, outputs: Outputs, level: int) -> _Under:
        ends = np.zeros(outputs.sizes[level - 1] if level else 0, dtype=bool)
        if level:
            rows = outputs.taxonomy.terminal_rows
            above = outputs.indices(rows)[:, level - 1]
            ends[above[(rows[:, level] == ABSENT) & (above != SILENT)]] = True
        return cls(outputs.parents(level), outputs.nothing(level), ends)

    def allowed(self, above: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Outputs that are possible under the output ``above`` of each row, (b,) -> (b, outputs)."""
        possible: npt.NDArray[np.bool_] = self.parents[None, :] == above[:, None]
        if self.nothing is not None:
            possible[:, self.nothing] = self.ends[above]
        return possible


def _normalised(distribution: npt.NDArray[Any], kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """The distributions, (b, outputs), with sum one where they are kept, and zero elsewhere."""
    mass = np.asarray(distribution, dtype=np.float32)
    # float16 rounds each entry; the sum is made one again. Divided by infinity, nothing is taught.
    total = np.maximum(mass.sum(axis=1, keepdims=True), np.float32(_LEAST_MASS))
    mass /= np.where(kept[:, None], total, np.float32(np.inf))
    return mass


def _one_hot(column: npt.NDArray[np.int32], size: int) -> npt.NDArray[np.float32]:
    mass = np.zeros((len(column), size), dtype=np.float32)
    taught = np.flatnonzero(column != SILENT)
    mass[taught, column[taught]] = 1.0
    return mass
