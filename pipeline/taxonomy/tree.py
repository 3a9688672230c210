"""The tree of classes, and labels as one entry per level.

A label is a row with one entry per level, coarse first: the index of a class in that level, ``ABSENT`` (the path ends
above this level) or ``UNKNOWN`` (there is a class, nobody said which). The two are never mixed up: a model may learn
from an absent level that there is nothing, and may not learn anything from an unknown one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from nstudent.errors import DataError
from nstudent.taxonomy.reading import ABSENT_ENTRY, Entries, Paths, is_name, paths_of_labels, paths_of_tree
from nstudent.taxonomy.spelling import alike

ABSENT = -1
UNKNOWN = -2

LabelArray = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Taxonomy:
    """Levels, the classes of each level, and the parent of each class.

    ``parents[level][c]`` is the index, in the level above, of the parent of class ``c``; ``parents[0]`` is empty.
    ``terminals`` lists the path to every class where a label may end, as a row of class indices padded with ``ABSENT``:
    to all classes that have none below them, and to those others that were seen as the end of a label.
    """

    levels: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]
    parents: tuple[tuple[int, ...], ...]
    terminals: tuple[tuple[int, ...], ...]

    @classmethod
    def from_labels(cls, labels: Iterable[Entries], levels: Sequence[str]) -> Taxonomy:
        """Infer the tree from labels. Only labels with no gap above their deepest name can add a class.

        Raises:
            DataError: A label has another number of entries than there are levels, or none names a class.
        """
        paths = paths_of_labels(labels, len(levels))
        if not paths:
            raise DataError("no label names a class: label some images, or give data.taxonomy")
        return cls._from_paths(paths, levels)

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any] | Sequence[Any], levels: Sequence[str]) -> Taxonomy:
        """Read a nested mapping (or list, for leaves) of class names, as written in a YAML page.

        Raises:
            DataError: It holds no class, is deeper than there are levels, or holds what is not the name of a class.
        """
        paths = paths_of_tree(tree, len(levels))
        if not paths:
            raise DataError("the taxonomy has no class: write one name per class under data.taxonomy")
        return cls._from_paths(paths, levels)

    @classmethod
    def _from_paths(cls, paths: Paths, levels: Sequence[str]) -> Taxonomy:
        ordered = sorted(paths)
        rank: dict[tuple[str, ...], int] = {}
        classes: list[list[str]] = [[] for _ in levels]
        parents: list[list[int]] = [[] for _ in levels]
        for path in sorted(ordered, key=lambda path: (len(path), path)):
            level = len(path) - 1
            rank[path] = len(classes[level])
            classes[level].append(path[-1])
            if level:
                parents[level].append(rank[path[:-1]])
        inner = {path[:-1] for path in ordered}
        ends = [path for path in ordered if paths[path] or path not in inner]
        terminals = [
            tuple([rank[path[: i + 1]] for i in range(len(path))] + [ABSENT] * (len(levels) - len(path)))
            for path in ends
        ]
        return cls(
            levels=tuple(levels),
            classes=tuple(map(tuple, classes)),
            parents=tuple(map(tuple, parents)),
            terminals=tuple(sorted(terminals)),
        )

    @property
    def num_levels(self) -> int:
        """Number of levels, the coarsest first."""
        return len(self.levels)

    @property
    def num_classes(self) -> tuple[int, ...]:
        """Number of classes of each level."""
        return tuple(map(len, self.classes))

    @cached_property
    def terminal_rows(self) -> LabelArray:
        """The paths to the terminals, int32 (terminals, levels); ``ABSENT`` below the end of a path."""
        return np.array(self.terminals, dtype=np.int32).reshape(-1, self.num_levels)

    def encode(self, entries: Entries) -> tuple[int, ...]:
        """Class indices for one written label; fills in unnamed ancestors of a named class.

        Raises:
            DataError: the label contradicts the tree, names an unknown class, or fits several classes.
        """
        if len(entries) != self.num_levels:
            raise DataError(f"label {list(entries)} has {len(entries)} entries for {self.num_levels} levels")
        depth = max((i + 1 for i, entry in enumerate(entries) if is_name(entry)), default=0)
        if ABSENT_ENTRY in entries[:depth]:
            raise DataError(f"label {list(entries)} names a class below a level marked absent ('{ABSENT_ENTRY}')")
        if depth == 0:
            if ABSENT_ENTRY in entries:
                raise DataError(f"label {list(entries)} is absent at every level: leave it empty if nobody labelled it")
            return (UNKNOWN,) * self.num_levels
        row = self._find(entries, depth)
        rest = UNKNOWN if self.has_children(depth - 1, row[-1]) else ABSENT
        if depth < self.num_levels and entries[depth] == ABSENT_ENTRY:
            rest = ABSENT
        return row + (rest,) * (self.num_levels - depth)

    def _find(self, entries: Entries, depth: int) -> tuple[int, ...]:
        level, name = depth - 1, entries[depth - 1]
        candidates = [self.ancestors(level, c) for c in self._named(level, name)]
        if not candidates:
            near = next((other for other in self.classes[level] if alike(other) == alike(name)), None)
            hint = f", but '{near}': write both alike" if near is not None else ""
            kind = "class" if self.levels[level] == "class" else f"{self.levels[level]} class"
            raise DataError(f"label {list(entries)}: the taxonomy has no {kind} '{name}'{hint}")
        fitting = [
            row
            for row in candidates
            if all(not e or self.classes[i][row[i]] == e for i, e in enumerate(entries[:depth]))
        ]
        if not fitting:
            said = "/".join(self.classes[i][c] for i, c in enumerate(candidates[0]))
            raise DataError(f"label {list(entries)} contradicts the taxonomy, where '{name}' is {said}")
        if len(fitting) > 1:
            raise DataError(f"label {list(entries)} fits {len(fitting)} classes named '{name}': name its parents too")
        return fitting[0]

    @cached_property
    def _by_name(self) -> tuple[dict[str, list[int]], ...]:
        tables: tuple[dict[str, list[int]], ...] = tuple({} for _ in self.levels)
        for table, names in zip(tables, self.classes, strict=True):
            for index, name in enumerate(names):
                table.setdefault(name, []).append(index)
        return tables

    def _named(self, level: int, name: str) -> list[int]:
        return self._by_name[level].get(name, [])

    @cached_property
    def _inner(self) -> tuple[frozenset[int], ...]:
        return tuple(frozenset(below) for below in (*self.parents[1:], ()))

    def has_children(self, level: int, index: int) -> bool:
        """Whether a class has classes below it."""
        return index in self._inner[level]

    def ancestors(self, level: int, index: int) -> tuple[int, ...]:
        """The path from the root to class ``index`` of ``level``, both ends included."""
        row = [index]
        for above in range(level, 0, -1):
            row.append(self.parents[above][row[-1]])
        return tuple(reversed(row))

    @cached_property
    def heights(self) -> tuple[tuple[int, ...], ...]:
        """Number of levels from every class down to the deepest class below it, by level and class; 0: none is below.

        The root is one higher than the highest class of the first level.
        """
        levels: list[list[int]] = [[0] * size for size in self.num_classes]
        for level in range(self.num_levels - 1, 0, -1):
            for parent, height in zip(self.parents[level], levels[level], strict=True):
                levels[level - 1][parent] = max(levels[level - 1][parent], height + 1)
        return tuple(map(tuple, levels))

    def including(self, labels: LabelArray) -> Taxonomy:
        """The same tree, with every complete label in ``labels``, (images, levels), made a terminal."""
        complete = labels[(labels != UNKNOWN).all(axis=1)]
        rows = {tuple(row) for row in np.unique(complete, axis=0).tolist()} | set(self.terminals)
        # UNKNOWN and ABSENT sort before any class: a node stands before what is below it.
        return replace(self, terminals=tuple(sorted(rows)))

    def names(self, row: Sequence[int]) -> dict[str, str]:
        """Class name per level that exists in ``row``."""
        return {
            level: names[index]
            for level, names, index in zip(self.levels, self.classes, row, strict=True)
            if index >= 0
        }

    def terminal_of(self, labels: LabelArray) -> npt.NDArray[np.int32]:
        """Index into ``terminals`` of each label, -1 where a level is unknown. (images, levels) -> (images,)"""
        # A path is known by its deepest class: one look into a table, and then whether the rest of the path is right.
        firsts = np.cumsum([0, *self.num_classes])
        depth = np.maximum((labels >= 0).sum(axis=1) - 1, 0)
        deepest = labels[np.arange(len(labels)), depth]
        exists = (deepest >= 0) & (deepest < np.asarray(self.num_classes)[depth])
        found = self._terminal_at[np.where(exists, firsts[depth] + deepest, -1)]
        found[(self.terminal_rows[found] != labels).any(axis=1)] = -1
        return found

    @cached_property
    def _terminal_at(self) -> npt.NDArray[np.int32]:
        """Index of the terminal at each class, the classes of all levels in a row; -1: none, and last."""
        at = np.full(sum(self.num_classes) + 1, -1, dtype=np.int32)
        rows = self.terminal_rows
        depth = (rows != ABSENT).sum(axis=1) - 1
        firsts = np.cumsum([0, *self.num_classes])
        at[firsts[depth] + rows[np.arange(len(rows)), depth]] = np.arange(len(rows))
        return at

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads back."""
        return {
            "levels": list(self.levels),
            "classes": [list(names) for names in self.classes],
            "parents": [list(above) for above in self.parents],
            "terminals": [list(row) for row in self.terminals],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Taxonomy:
        """Read what ``to_json`` wrote, checking that it is a tree.

        Raises:
            DataError: It is not a tree, or not of this shape.
        """
        try:
            fields = {key: tuple(map(tuple, data[key])) for key in ("classes", "parents", "terminals")}
            taxonomy = cls(levels=tuple(data["levels"]), **fields)
            _check(taxonomy)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"not a taxonomy: {error!r}") from error
        return taxonomy


def _check(taxonomy: Taxonomy) -> None:
    """Refuse what is not a tree, with a line that says where.

    Raises:
        TypeError, ValueError, IndexError: It is not one.
    """
    if not len(taxonomy.levels) == len(taxonomy.classes) == len(taxonomy.parents):
        raise ValueError("levels, classes and parents tell different numbers of levels")
    if not all(isinstance(name, str) for names in (taxonomy.levels, *taxonomy.classes) for name in names):
        raise TypeError("a name is not text")
    for level in range(1, taxonomy.num_levels):
        above = taxonomy.num_classes[level - 1]
        if len(taxonomy.parents[level]) != taxonomy.num_classes[level]:
            raise ValueError(f"level {level} has {len(taxonomy.parents[level])} parents")
        if any(not 0 <= parent < above for parent in taxonomy.parents[level]):
            raise ValueError(f"level {level} names a parent that does not exist")
    for row in taxonomy.terminals:
        depth = sum(index != ABSENT for index in row)
        if len(row) != taxonomy.num_levels or not depth or min(row) < ABSENT:
            raise ValueError(f"terminal {row} is no path")
        if any(not 0 <= index < size for index, size in zip(row[:depth], taxonomy.num_classes, strict=False)):
            raise ValueError(f"terminal {row} names a class that does not exist")
        if taxonomy.ancestors(depth - 1, row[depth - 1]) != row[:depth]:
            raise ValueError(f"terminal {row} is not a path of the tree")
