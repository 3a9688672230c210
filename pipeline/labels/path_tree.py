"""The tree of paths, walked for a batch at a time: down it for the scores of paths, up it for the mass of classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import ABSENT, LabelArray
from torch import Tensor

_CELLS_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 28}
"""Number of scores that are computed together: as many as a CPU's cache holds, or a gigabyte of a GPU's memory."""
_SMALLEST = 1e-12


def logarithms(probabilities: Tensor) -> Tensor:
    """Logarithms of probabilities, of which none is zero; a new tensor of the same shape."""
    return probabilities.add(_SMALLEST).log_()


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

    def summed(self, columns: Tensor, width: int) -> Tensor:
        """(rows, columns) -> (rows, width): the reverse of ``taken``; columns that stand for one are added up."""
        if self.are_all:
            return columns
        return columns.new_zeros((columns.shape[0], width)).index_add_(1, self.index, columns)


@dataclass(frozen=True)
class _Level:
    """How the beginnings of paths, down to one level, come from those of the level above."""

    above: _Columns
    """For each beginning, that of the level above."""
    output: _Columns
    """For each beginning, the model's output that speaks for it."""
    silent: Tensor | None
    """int64: the beginnings for which no output speaks; ``None``: there is one for all."""
    num_outputs: int
    nothing: int | None
    """The output for 'nothing'; ``None``: there is none."""

    def to(self, device: torch.device) -> _Level:
        silent = None if self.silent is None else self.silent.to(device)
        return _Level(self.above.to(device), self.output.to(device), silent, self.num_outputs, self.nothing)


@dataclass(frozen=True)
class _Ends:
    """Where the paths end, in a table of the outputs of all levels side by side."""

    column: Tensor
    """int64 (terminals,): the class where each path ends."""
    child: Tensor
    """int64: the classes below one where a path ends."""
    path: Tensor
    """int64: for each of these, that path."""

    @classmethod
    def of(cls, outputs: Outputs, terminals: LabelArray, depths: npt.NDArray[np.int64]) -> _Ends:
        firsts = np.cumsum([0, *outputs.sizes])
        column = firsts[depths - 1] + terminals[np.arange(len(terminals)), depths - 1]
        path_at = np.full(firsts[-1], -1, dtype=np.int64)
        path_at[column] = np.arange(len(terminals))
        children, paths = [], []
        for level, parents in enumerate(outputs.taxonomy.parents):
            path = path_at[firsts[level - 1] + np.array(parents, dtype=np.int64)]
            below = np.flatnonzero(path >= 0)
            children.append(firsts[level] + below)
            paths.append(path[below])
        return cls(*(torch.from_numpy(each) for each in (column, np.concatenate(children), np.concatenate(paths))))

    def to(self, device: torch.device) -> _Ends:
        return _Ends(self.column.to(device), self.child.to(device), self.path.to(device))


@dataclass(frozen=True)
class PathTree:
    """The paths that a model can say, on a device, worked out once and not for every batch.

    A path can be said if it leads to a terminal that has no classes below it, or at a level below which the model has
    an output for 'nothing'. Without that output nothing speaks for going on, and every path would end as early as it
    may. The levels that have a say for a path are those where it names a class, and those where it ends and the model
    has that output.
    """

    terminals: Tensor
    """int32 (terminals, levels): the paths, in ascending order; ``ABSENT`` below the end of a path."""
    depths: Tensor
    """int64 (terminals,): the number of classes on each path."""
    speaks: Tensor
    """float32 (terminals, levels): 1 where a level has a say for a path, else 0."""
    _levels: tuple[_Level, ...]
    _ends: _Ends

    ends_together: bool
    """Whether all paths reach the last level."""

    @classmethod
    def of(cls, outputs: Outputs) -> PathTree:
        """The paths for a model with these outputs, on the CPU."""
        terminals = np.unique(_speakable(outputs), axis=0)
        levels: list[_Level] = []
        speaks = np.zeros(terminals.shape, dtype=np.float32)
        above, num_above = np.zeros(len(terminals), dtype=np.int64), 1
        for level, size in enumerate(outputs.sizes):
            column = terminals[:, level]
            says = (column != ABSENT) | outputs.has_nothing(level)
            speaks[:, level] = says
            # Terminals with the same beginning share its score, so that only the last level is as wide as the tree.
            _, first, beginning = np.unique(terminals[:, : level + 1], axis=0, return_index=True, return_inverse=True)
            output = np.where(column == ABSENT, size - 1, column)[first].astype(np.int64)
            silent = None if says[first].all() else torch.from_numpy(np.flatnonzero(~says[first]))
            nothing = outputs.nothing(level)
            levels.append(
                _Level(_Columns.of(above[first], num_above), _Columns.of(output, size), silent, size, nothing)
            )
            above, num_above = beginning.reshape(-1).astype(np.int64), len(first)
        depths = (terminals != ABSENT).sum(axis=1).astype(np.int64)
        known = torch.from_numpy(terminals), torch.from_numpy(depths), torch.from_numpy(speaks)
        ends_together = bool((depths == len(levels)).all())
        return cls(*known, tuple(levels), _Ends.of(outputs, terminals, depths), ends_together)

    def to(self, device: torch.device) -> PathTree:
        """The same tree on a device; itself where it is there already."""
        if self.terminals.device == device:
            return self
        levels = tuple(level.to(device) for level in self._levels)
        known = self.terminals.to(device), self.depths.to(device), self.speaks.to(device)
        return PathTree(*known, levels, self._ends.to(device), self.ends_together)

    def portions(self, num_images: int) -> Iterator[slice]:
        """Rows that are worked on together, so that a batch needs little memory however many paths there are."""
        if torch.compiler.is_exporting():
            # A program is one piece, for any number of images.
            return iter((slice(None),))
        kind = self.terminals.device.type
        rows = max(1, _CELLS_AT_ONCE.get(kind, _CELLS_AT_ONCE["cpu"]) // max(1, len(self.terminals)))
        return (slice(first, min(first + rows, num_images)) for first in range(0, num_images, rows))

    def scores(self, logs: Sequence[Tensor]) -> Tensor:
        """The sum along each path of what its levels say.

        Args:
            logs: Per level, (images, outputs); they are overwritten.

        Returns:
            (images, terminals).
        """
        total = logs[0].new_zeros((logs[0].shape[0], 1))
        for level, said in zip(self._levels, logs, strict=True):
            said = level.output.taken(said)
            if level.silent is not None:
                said.index_fill_(1, level.silent, 0.0)
            total = said.add_(level.above.taken(total))
        return total

    def marginals(self, paths: Tensor) -> tuple[Tensor, ...]:
        """The mass of each output, from that of each path.

        The output for 'nothing' gets the mass of all paths that end above its level; of a path for which no output
        speaks at a level, the mass goes nowhere there.

        Args:
            paths: (images, terminals).

        Returns:
            Per level, (images, outputs); some may be ``paths`` itself.
        """
        levels: list[Tensor] = []
        mass = paths
        for number in range(len(self._levels) - 1, -1, -1):
            level = self._levels[number]
            speaking = mass if level.silent is None else mass.index_fill(1, level.silent, 0.0)
            levels.append(level.output.summed(speaking, level.num_outputs))
            if number:
                mass = level.above.summed(mass, len(self._levels[number - 1].output.index))
        return tuple(reversed(levels))

    def masses(self, marginals: Sequence[Tensor]) -> Tensor:
        """The mass of each path, from those of the outputs: what ``marginals`` was given.

        Args:
            marginals: Per level, (images, outputs).

        Returns:
            (images, terminals): of the class where the path ends, what its children leave. It may be the last level.
        """
        if self.ends_together:
            return self._levels[-1].output.taken(marginals[-1])
        table = torch.cat(list(marginals), dim=1)
        masses = table.index_select(1, self._ends.column)
        if len(self._ends.child):
            masses.index_add_(1, self._ends.path, table.index_select(1, self._ends.child), alpha=-1).clamp_min_(0)
        return masses

    def matches(self, marginals: Sequence[Tensor]) -> Tensor:
        """The sum along each path of the mass of its classes, (images, terminals), from (images, outputs) per level."""
        # New tensors, which are overwritten: two levels may be one and the same.
        classes = [masses.clone() for masses in marginals]
        for level, masses in zip(self._levels, classes, strict=True):
            if level.nothing is not None:
                masses[:, level.nothing] = 0.0
        return self.scores(classes)


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
