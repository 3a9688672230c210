"""Which pseudo-labels are used, how deep, and how often.

Two decisions: how far down a path the labeller is sure (an image whose fine class is doubtful keeps its mid class), and
how many copies of an image bring all classes to the same size (Noisy Student, arXiv 1911.04252, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nstudent.config.schema import PseudolabelConfig
from nstudent.randomness import Key, generator
from nstudent.storage.artifact import Artifact
from nstudent.storage.hdf5 import mapped, write

SELECTION = "selection.h5"
GIVEN = "labelled.h5"
_GRID_STEP = 0.05
_HIGHEST_THRESHOLD = 0.95
_SLACK = 1e-5
"""So that .90 on a grid made of floats still takes in a stored .9."""
_ROWS_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class Selection:
    """What the student sees of the heap."""

    keep: npt.NDArray[np.bool_]
    """(rows, levels): the level teaches."""
    copies: npt.NDArray[Any]
    """uint8 or int32 (rows,): how often an image is shown each pass; 0: not at all."""

    def save(self, folder: Path) -> None:
        """Write ``selection.h5``."""
        write(folder / SELECTION, {"keep": self.keep.view(np.uint8), "copies": self.copies}, {})

    @classmethod
    def load(cls, artifact: Artifact) -> Selection:
        """Read it from a committed step."""
        arrays = mapped(artifact.path(SELECTION))
        return cls(np.asarray(arrays["keep"]).astype(bool), np.array(arrays["copies"]))


def save_given_keep(folder: Path, keep: npt.NDArray[np.bool_]) -> None:
    """Write which of the given labels stand: (labelled images, levels)."""
    write(folder / GIVEN, {"keep": keep.astype(np.uint8)}, {})


def load_given_keep(artifact: Artifact) -> npt.NDArray[np.bool_]:
    """Which of the given labels stand after a filter step: (labelled images, levels)."""
    return np.asarray(mapped(artifact.path(GIVEN))["keep"]).astype(bool)


def deep_enough(confidence: npt.NDArray[np.float32], threshold: Sequence[float] | float) -> npt.NDArray[np.bool_]:
    """Levels down to which every probability of the path reaches its threshold.

    Args:
        confidence: (rows, levels), 0 where the path has ended.
        threshold: One number, or one a level.
    """
    # Absent levels have confidence 0: a threshold of 0 must not keep them.
    sure = (confidence >= np.asarray(threshold, dtype=np.float32)) & (confidence > 0)
    return np.logical_and.accumulate(sure, axis=1)


def kept_confidence(confidence: npt.NDArray[np.float32], keep: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Probability of the deepest kept class of each row, from (rows, levels) both; 0 if nothing is kept."""
    depth = keep.sum(axis=1)
    deepest = confidence[np.arange(len(confidence)), np.maximum(depth - 1, 0)]
    return np.where(depth > 0, deepest, np.float32(0.0))


def balanced_shares(
    counts: npt.NDArray[np.int64], grid: npt.NDArray[np.float64], wanted: int, max_copies: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(threshold, copies) for the images of each class, (classes,) each.

    The threshold is the highest of the grid that still leaves ``wanted`` images, or its last; the images above it are
    shown ``wanted / their number`` times each, at most ``max_copies``.

    Args:
        counts: Images of each class that reach each threshold, (classes, thresholds).
        grid: Thresholds, descending.
        wanted: Images each class is to have.
        max_copies: Of one image.
    """
    enough = counts >= wanted
    chosen = np.where(enough.any(axis=1), enough.argmax(axis=1), len(grid) - 1)
    left = np.maximum(1, counts[np.arange(len(counts)), chosen])
    return grid[chosen], np.minimum(max_copies, wanted / left)


def threshold_grid(floor: float) -> npt.NDArray[np.float64]:
    """Thresholds that a class may get, descending, none below ``floor``."""
    return np.append(np.arange(_HIGHEST_THRESHOLD, floor + _GRID_STEP / 2, -_GRID_STEP), floor)


def reaching(
    group: npt.NDArray[np.int32], confidence: npt.NDArray[np.float32], grid: npt.NDArray[np.float64], num_groups: int
) -> npt.NDArray[np.int64]:
    """How many rows of each group reach each threshold, (groups, thresholds), and in one more column how many exist."""
    # Of each row the number of thresholds it reaches, counting from the lowest; then sums from the highest down.
    steps = len(grid) + 1
    counts = np.zeros(num_groups * steps, dtype=np.int64)
    ascending = grid[::-1] - _SLACK
    for first in range(0, len(group), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        reached = np.searchsorted(ascending, confidence[part], side="right")
        counts += np.bincount(group[part] * np.int64(steps) + reached, minlength=len(counts))
    table = counts.reshape(num_groups, steps)[:, ::-1]
    return table.cumsum(axis=1)


def select(
    terminal: npt.NDArray[np.int32],
    confidence: npt.NDArray[np.float32],
    keep: npt.NDArray[np.bool_],
    config: PseudolabelConfig,
    key: Key,
) -> Selection:
    """Copies of every image whose path is kept at some level.

    Walks the rows twice and sorts nothing: the time grows with the rows, whatever the number of classes.

    Args:
        terminal: Class of the most probable path, (rows,).
        confidence: Probability of its deepest kept class, (rows,), as ``kept_confidence`` gives it.
        keep: (rows, levels).
        key: For the rounding of fractional copies.
    """
    eligible: npt.NDArray[np.bool_] = np.asarray(keep.any(axis=1))
    if not config.balance:
        return Selection(keep, eligible.view(np.uint8))
    # Group 0 is of those that are not shown.
    group = (terminal + 1).astype(np.int32, copy=False)
    group[~eligible] = 0
    num_groups = int(group.max(initial=0)) + 1
    grid = threshold_grid(config.confidence_floor)
    counts = reaching(group, confidence, grid, num_groups)[1:]
    wanted = config.images_per_class or max(1, round(int(counts[:, -1].sum()) / max(1, int((counts[:, -1] > 0).sum()))))
    threshold, shown = balanced_shares(counts[:, :-1], grid, wanted, config.max_copies)
    # What is compared is float32, and so has to be what it is compared with.
    least = np.concatenate([[np.inf], threshold - _SLACK]).astype(np.float32)
    return Selection(keep, _rounded(group, confidence, least, np.concatenate([[0.0], shown]), key))


def _rounded(
    group: npt.NDArray[np.int32],
    confidence: npt.NDArray[np.float32],
    least: npt.NDArray[np.float32],
    shown: npt.NDArray[np.float64],
    key: Key,
) -> npt.NDArray[Any]:
    """Whole copies of each row: an image with 1.3 copies is shown twice with probability 0.3."""
    copies = np.zeros(len(group), dtype=np.uint8 if shown.max() < np.iinfo(np.uint8).max else np.int32)
    random = generator(*key, "copies")
    for first in range(0, len(group), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        exact = np.where(confidence[part] >= least[group[part]], shown[group[part]], 0.0)
        copies[part] = np.floor(exact + random.random(len(exact)))
    return copies
