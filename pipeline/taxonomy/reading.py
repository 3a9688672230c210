"""Classes as people write them: in labels, one entry a level, and in a page, as a tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nstudent.errors import DataError
from nstudent.taxonomy.spelling import spelled

Entries = Sequence[str]
"""A label as a person writes it: a class name, ``-`` (absent) or an empty string (unknown) per level."""

ABSENT_ENTRY = "-"
UNKNOWN_ENTRY = ""

Path = tuple[str, ...]
"""Names of classes from the coarsest level down."""
Paths = dict[Path, bool]
"""Every path that exists, and whether it was seen as a whole label."""


def is_name(entry: str) -> bool:
    """Whether an entry names a class."""
    return entry not in (ABSENT_ENTRY, UNKNOWN_ENTRY)


def paths_of_labels(labels: Iterable[Entries], num_levels: int) -> Paths:
    """The paths that labels name. Only a label with no gap above its deepest name can add a class.

    Raises:
        DataError: A label has another number of entries than there are levels.
    """
    paths: Paths = {}
    for entries in labels:
        if len(entries) != num_levels:
            raise DataError(f"label {list(entries)} has {len(entries)} entries for {num_levels} levels")
        named = _named_prefix(entries)
        for depth in range(1, len(named) + 1):
            paths.setdefault(named[:depth], False)
        ends_here = len(named) < len(entries) and entries[len(named)] == ABSENT_ENTRY
        if named and (ends_here or len(named) == num_levels):
            paths[named] = True
    return paths


def paths_of_tree(tree: Any, num_levels: int) -> Paths:
    """The paths of a nested mapping (or list, for leaves) of class names, as written in a YAML page.

    Raises:
        DataError: It is deeper than there are levels, or holds what is not the name of a class.
    """
    paths: Paths = {}
    _walk(tree, (), paths, num_levels)
    return paths


def _named_prefix(entries: Entries) -> Path:
    named: list[str] = []
    for entry in entries:
        if not is_name(entry):
            break
        named.append(entry)
    return tuple(named)


def _walk(tree: Any, path: Path, paths: Paths, num_levels: int) -> None:
    if tree is None or tree == []:
        return
    if len(path) >= num_levels:
        raise DataError(f"the taxonomy is deeper at '{'/'.join(path)}' than its {num_levels} levels")
    if isinstance(tree, Mapping):
        children = list(tree.items())
    elif isinstance(tree, Sequence) and not isinstance(tree, str):
        children = [(name, None) for name in tree]
    else:
        children = [(tree, None)]
    for name, below in children:
        if isinstance(name, (Mapping, list)):
            raise DataError(f"the taxonomy mixes a list with a mapping under '{'/'.join(path)}'")
        if not isinstance(name, str | int | float) or isinstance(name, bool):
            raise DataError(f"the taxonomy has '{name}' for a name under '{'/'.join(path)}': put it in quotes")
        written = spelled(str(name))
        if not is_name(written):
            raise DataError(f"the taxonomy names a class '{name}', which means absent or unknown: rename it")
        here = (*path, written)
        if here in paths:
            raise DataError(f"the taxonomy names '{'/'.join(here)}' twice")
        paths[here] = False
        _walk(below, here, paths, num_levels)
