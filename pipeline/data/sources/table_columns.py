"""Which columns of somebody's table hold paths, classes and splits, where they have other names than ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from nstudent.data.sources.csv_table import PATH, PATH_WORDS, SPLIT, has_usual_levels, rows
from nstudent.data.sources.source import printable
from nstudent.data.sources.splits import says_split, split_named
from nstudent.errors import DataError
from nstudent.taxonomy.spelling import alike, spelled

_CLASS_WORDS = frozenset({"label", "labels", "category", "categories", "target", "species", "classname", "y"})
"""What others call the column of the finest classes, without blanks and marks; ``class`` and the like count, too."""
_MOST_ROWS = 20_000
"""Rows that are looked at."""
_SAID_NOTHING = frozenset({"", "-"})

_Cells = Mapping[str, Sequence[str]]
"""The cells of each column, row by row, by the name of the column."""


def column_keys(table: Path) -> dict[str, Any]:
    """The keys of `data` that name the columns of a table, less those that have our names.

    Columns of classes are the one that is called so, or the only one left, and before it those that it determines: all
    rows of a species are of one genus.

    Raises:
        DataError: The table cannot be read, or it is not clear which column holds the classes.
    """
    lines = rows(table)
    _, cells = next(lines, (0, []))
    header = [spelled(cell) for cell in cells]
    some = [row for _, row in islice(lines, _MOST_ROWS)]
    columns = {name: [spelled(row[i]) for row in some if i < len(row)] for i, name in enumerate(header) if name}
    found: dict[str, Any] = {}
    path = _path_in(columns)
    if path != PATH:
        found["path_column"] = path
    split = SPLIT if SPLIT in columns else _split_in(columns)
    if split not in (None, SPLIT):
        found["split_column"] = split
    if not has_usual_levels(header):
        left = {name: each for name, each in columns.items() if name not in (path, split)}
        found["levels"] = _levels_in(left, table)
    return found


def _path_in(columns: _Cells) -> str:
    """The column of the paths; ours if no other is clearly meant."""
    named = [name for name in columns if _word(name) in PATH_WORDS]
    return named[0] if PATH not in columns and len(named) == 1 else PATH


def _split_in(columns: _Cells) -> str | None:
    """The column in which every cell names a split, and more than one of them is named."""
    for name, cells in columns.items():
        said = {cell for cell in cells if cell}
        if all(map(says_split, said)) and len({split_named(cell) or cell for cell in said}) > 1:
            return name
    return None


def _levels_in(columns: _Cells, table: Path) -> list[str]:
    """The columns of the classes, coarse first."""
    named = [name for name in columns if _word(name) in _CLASS_WORDS or _word(name) in ("class", "classes")]
    finest = named[0] if len(named) == 1 else next(iter(columns)) if len(columns) == 1 else None
    if finest is None:
        there = f"holds classes in none or several of its columns ({printable(', '.join(columns)[:200])})"
        raise DataError(
            f"{printable(table)} {there if columns else 'has no column of classes'}: call the one with the classes "
            "'class' (of two or three levels coarse, mid, fine), or write a page with data.levels=[...] (docs/DATA.md)"
        )
    above: list[str] = []
    sizes = {name: len(set(cells) - _SAID_NOTHING) for name, cells in columns.items()}
    for name in sorted(columns, key=lambda each: (sizes[each], _is_numbers(columns[each]))):
        coarser = 1 < sizes[name] < sizes[finest]
        is_new = not above or sizes[name] > sizes[above[-1]]
        is_above = _determines(columns[finest], columns[name])
        fits = not above or _determines(columns[name], columns[above[-1]])
        if coarser and is_new and is_above and fits:
            above.append(name)
    return [*above, finest]


def _determines(fine: Sequence[str], coarse: Sequence[str]) -> bool:
    """Whether rows of one class in the first column are of one in the second, as far as both are named."""
    found: dict[str, str] = {}
    pairs = ((a, b) for a, b in zip(fine, coarse, strict=False) if not _SAID_NOTHING & {a, b})
    return all(found.setdefault(a, b) == b for a, b in pairs)


def _is_numbers(cells: Sequence[str]) -> bool:
    return all(cell.isdecimal() for cell in cells if cell)


def _word(name: str) -> str:
    return "".join(c for c in alike(name) if c.isalnum())
