"""The decoder that scores whole paths, and takes the best one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from nstudent.labels.decoding import Decoded, path_confidence
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import ABSENT, LabelArray
from torch import Tensor

_CELLS_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 28}
"""Number of scores that are computed together: as many as a CPU's cache holds, or a gigabyte of a GPU's memory."""
_SMALLEST = 1e-12


class BestPath:
    """Finds the most probable path to a terminal for each image.

    A label's score is the geometric mean of its probabilities over the levels that have a say: those where it names a
    class, and those where it ends and the model has an output for 'nothing'. The mean, not the product, so that short
    paths are not preferred for being short. A label that ends above a class's children is only considered where the
    model has that output: without it nothing speaks for going on, and every path would end as early as it may.

    What depends on the tree alone is worked out once, here, and not for every batch. The decoding is done on the device
    that holds the distributions.
    """

    def __init__(self, outputs: Outputs) -> None:
        """``outputs``: of the model."""
        self._outputs = outputs
        terminals = _speakable(outputs)
        levels: list[_Level] = []
        says = np.zeros(len(terminals), dtype=np.float32)
        above = np.zeros(len(terminals), dtype=np.int64)
        for level, size in enumerate(outputs.sizes):
            column = terminals[:, level]
            speaks = (column != ABSENT) | outputs.has_nothing(level)
            says += speaks
            # Terminals with the same beginning share its score, so that only the last level is as wide as the tree.
            _, first, beginning = np.unique(terminals[:, : level + 1], axis=0, return_index=True, return_inverse=True)
            output = np.where(column == ABSENT, size - 1, column)[first].astype(np.int64)
            silent = None if speaks[first].all() else torch.from_numpy(np.flatnonzero(~speaks[first]))
            levels.append(_Level(torch.from_numpy(above[first]), _Columns.of(output, size), silent))
            above = beginning.reshape(-1).astype(np.int64)
        order = _Columns.of(above, int(above.max(initial=-1)) + 1)
        self._tree = _Tree(torch.from_numpy(terminals), levels, order, torch.from_numpy(says))

    def decode(self, probabilities: Sequence[Tensor]) -> Decoded:
        """Find the most probable path to a terminal, from (images, outputs) per level; see ``Decoder``."""
        num_images, device = len(probabilities[0]), probabilities[0].device
        # Kept where it was used last: a labelling stays on one device.
        tree = self._tree = self._tree.to(device)
        best = torch.empty(num_images, dtype=torch.int64, device=device)
        at_once = _CELLS_AT_ONCE.get(device.type, _CELLS_AT_ONCE["cpu"])
        rows = max(1, at_once // len(tree.terminals))
        for first in range(0, num_images, rows):
            part = [level[first : first + rows].add(_SMALLEST).log_() for level in probabilities]
            best[first : first + rows] = tree.scores(part).argmax(dim=1)
        paths = tree.terminals[best]
        return Decoded(paths, path_confidence(probabilities, paths, self._outputs))


@dataclass(frozen=True)
class _Columns:
    """Some columns of a table, in an order."""

    index: Tensor
    """int64 (columns,)."""
    are_all: bool
    """Whether they are all columns in their own order: then the table itself will do."""

    @classmethod
    def of(cls, index: npt.NDArray[np.int64], width: int) -> _Columns:
        """``index``: the columns that are meant, of a table that has ``width`` of them."""
        return cls(torch.from_numpy(index), np.array_equal(index, np.arange(width)))

    def to(self, device: torch.device) -> _Columns:
        return _Columns(self.index.to(device), self.are_all)

    def taken(self, table: Tensor) -> Tensor:
        """(rows, width) -> (rows, columns): a copy, or the table where its columns are all wanted."""
        return table if self.are_all else table.index_select(1, self.index)


@dataclass(frozen=True)
class _Level:
    """How the scores of the beginnings of paths, down to one level, come from those of the level above."""

    above: Tensor
    """int64: for each beginning, that of the level above."""
    output: _Columns
    """For each beginning, the model's output that speaks for it."""
    silent: Tensor | None
    """int64: the beginnings for which no output speaks; ``None``: there is one for all."""

    def to(self, device: torch.device) -> _Level:
        silent = None if self.silent is None else self.silent.to(device)
        return _Level(self.above.to(device), self.output.to(device), silent)


@dataclass(frozen=True)
class _Tree:
    """What decoding has to know of the taxonomy, on a device."""

    terminals: Tensor
    """int32 (terminals, levels)."""
    levels: Sequence[_Level]
    order: _Columns
    """Where each terminal stands among the beginnings of the last level, which are whole."""
    says: Tensor
    """float32 (terminals,): how many levels have a say for each."""

    def to(self, device: torch.device) -> _Tree:
        if self.terminals.device == device:
            return self
        levels = [level.to(device) for level in self.levels]
        return _Tree(self.terminals.to(device), levels, self.order.to(device), self.says.to(device))

    def scores(self, log_probabilities: Sequence[Tensor]) -> Tensor:
        """(images, terminals), from the logarithms per level, which are overwritten."""
        total = log_probabilities[0].new_zeros((len(log_probabilities[0]), 1))
        for logs, level in zip(log_probabilities, self.levels, strict=True):
            said = level.output.taken(logs)
            if level.silent is not None:
                said.index_fill_(1, level.silent, 0.0)
            total = said.add_(total.index_select(1, level.above))
        return self.order.taken(total).div_(self.says)


def _speakable(outputs: Outputs) -> LabelArray:
    """Terminals that have no classes below them, or at a level below which the model can say 'nothing'."""
    taxonomy = outputs.taxonomy
    rows = taxonomy.terminal_rows
    allowed = [
        depth == taxonomy.num_levels
        or outputs.has_nothing(depth)
        or not taxonomy.has_children(depth - 1, row[depth - 1])
        for row, depth in zip(rows.tolist(), (rows != ABSENT).sum(axis=1).tolist(), strict=True)
    ]
    speakable: LabelArray = rows[np.array(allowed)]
    return speakable
