"""What a model can say on a tree: per level, one output for every class and, if it was asked for, one for 'nothing'."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from nstudent.config.types import Absent
from nstudent.taxonomy.tree import ABSENT, LabelArray, Taxonomy

SILENT = -1
"""In place of the index of an output: there is none."""


@dataclass(frozen=True)
class Outputs:
    """The outputs of a model on a tree of classes, level by level, coarse first.

    Output ``i`` of a level speaks for class ``i`` of that level. If ``absent`` is ``class``, a level that the path
    to some terminal does not reach has one output more, the last one, which speaks for 'nothing'.
    """

    taxonomy: Taxonomy
    absent: Absent = "ignore"
    """``ignore`` or ``class``, as in the configuration: whether 'nothing' gets an output."""

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of outputs of each level."""
        return tuple(
            num_classes + int(self.has_nothing(level)) for level, num_classes in enumerate(self.taxonomy.num_classes)
        )

    def has_nothing(self, level: int) -> bool:
        """Whether a level has an output for 'nothing'."""
        return self.nothing(level) is not None

    def nothing(self, level: int) -> int | None:
        """Index of the output that says that the path ends above ``level``; ``None``: the level has no such output."""
        index = int(self._nothing[level])
        return None if index == SILENT else index

    @cached_property
    def _nothing(self) -> LabelArray:
        """The output for 'nothing' of each level, or ``SILENT``. Shape (levels,)."""
        may_end = (self.taxonomy.terminal_rows == ABSENT).any(axis=0) & (self.absent == "class")
        return np.where(may_end, self.taxonomy.num_classes, SILENT).astype(np.int32)

    def parents(self, level: int) -> npt.NDArray[np.int32]:
        """For each output of a level, the output of the level above that speaks for the parent of its class.

        Returns:
            (outputs of the level,); ``SILENT`` if there is none: on the first level, and for 'nothing'.
        """
        above = np.full(self.sizes[level], SILENT, dtype=np.int32)
        parents = self.taxonomy.parents[level]
        above[: len(parents)] = parents
        return above

    def indices(self, labels: LabelArray) -> npt.NDArray[np.int32]:
        """Index of the output that each entry of a label speaks for.

        Args:
            labels: Labels as the taxonomy encodes them, (rows, levels).

        Returns:
            (rows, levels); ``SILENT`` if a level teaches nothing: it is unknown, or absent and without an output.
        """
        return np.where(labels == ABSENT, self._nothing, np.maximum(labels, SILENT)).astype(np.int32, copy=False)
