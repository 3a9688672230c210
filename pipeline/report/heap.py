"""The labels of the unlabelled images, class by class: as they were made, and what each rule left of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nstudent.labels.heap_labels import HeapLabels
from nstudent.report.limits import Limits
from nstudent.report.material import Material, Round
from nstudent.taxonomy.tree import UNKNOWN

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class HeapRow:
    """The labels of one class in one round; numbers of images."""

    name: str
    made: int
    sure: int
    """After the threshold."""
    balanced: int
    """Number of these that balancing shows at least once."""
    filtered: int
    """Number of the sure ones that the filter leaves."""
    shown: int
    """Number of these that a student is shown at least once."""
    right_made: float | None
    """Share of the labels as they were made that is right; ``None`` if the truth of none is known."""
    right_shown: float | None
    """The same of those that are shown."""


@dataclass(frozen=True)
class HeapLevel:
    """The labels of one level in one round, by class, and together in the first row."""

    round: int
    level: str
    rows: tuple[HeapRow, ...]
    rows_left_out: int
    truth_known: bool
    has_filter: bool


def heap_levels(material: Material, limits: Limits) -> list[HeapLevel]:
    """Every level of every round."""
    found = []
    for each in material.rounds:
        levels = range(material.images.taxonomy.num_levels)
        found += [_level(material, each, level, limits) for level in levels]
    return found


def taught(material: Material) -> list[Counts]:
    """By level, the number of images that are taught as each class in the last round; empty if there is no round."""
    if not material.rounds:
        return []
    last = material.rounds[-1]
    heap, found = last.filtered or last.made, []
    for level, size in enumerate(material.images.taxonomy.num_classes):
        found.append(_counted(heap, level, size, heap.keep[:, level] & (heap.copies > 0)))
    return found


def _level(material: Material, each: Round, level: int, limits: Limits) -> HeapLevel:
    taxonomy = material.images.taxonomy
    names, last = taxonomy.classes[level], each.filtered or each.made
    everything = np.ones(len(each.made), dtype=bool)
    sure, left = each.made.keep[:, level], last.keep[:, level]
    chosen = (everything, sure, sure & (each.made.copies > 0), left, left & (last.copies > 0))
    counts = [_counted(each.made, level, len(names), rows) for rows in chosen]
    right = [_right(material, each.made, level, rows) for rows in (chosen[0], chosen[-1])]
    rows = [
        _row(name, [int(count[i]) for count in counts], [(int(r[i]), int(k[i])) for r, k in right])
        for i, name in enumerate(names)
    ]
    # The classes that lose most of their labels first.
    rows.sort(key=lambda row: (row.shown / row.made if row.made else 2.0, -row.made))
    whole = _row(
        "all classes", [int(count.sum()) for count in counts], [(int(r.sum()), int(k.sum())) for r, k in right]
    )
    return HeapLevel(
        round=each.number,
        level=taxonomy.levels[level],
        rows=(whole, *rows[: limits.rows]),
        rows_left_out=max(0, len(rows) - limits.rows),
        truth_known=whole.right_made is not None,
        has_filter=each.filtered is not None,
    )


def _row(name: str, counts: list[int], right: list[tuple[int, int]]) -> HeapRow:
    shares = [number / known if known else None for number, known in right]
    return HeapRow(name, *counts, *shares)


def _counted(heap: HeapLabels, level: int, size: int, chosen: npt.NDArray[np.bool_]) -> Counts:
    """Number of the chosen rows, (rows,), whose label names each class of a level, (classes,)."""
    found = np.zeros(size, dtype=np.int64)
    for part in heap.labels.parts():
        said = part.paths[:, level]
        found += np.bincount(said[(said >= 0) & chosen[part.rows]], minlength=size)
    return found


def _right(material: Material, heap: HeapLabels, level: int, chosen: npt.NDArray[np.bool_]) -> tuple[Counts, Counts]:
    """By class of a level, how many of the chosen labels are right, and of how many the truth is known."""
    size = material.images.taxonomy.num_classes[level]
    right, known = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    for part in heap.labels.parts():
        said, truth = part.paths[:, level], material.images.truth[part.images, level]
        judged = (said >= 0) & chosen[part.rows] & (truth != UNKNOWN)
        known += np.bincount(said[judged], minlength=size)
        right += np.bincount(said[judged & (said == truth)], minlength=size)
    return right, known
