"""Which pseudo-labels are used, how deep, and how often.

Two decisions: how far down a path the labeller is sure (an image whose fine class is doubtful keeps its mid class), and
how many copies of an image bring all classes of a level to the same size (Noisy Student, arXiv 1911.04252, section
3.1).
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
from nstudent.taxonomy.tree import ABSENT, Taxonomy

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
    counts: npt.NDArray[np.int64],
    grid: npt.NDArray[np.float64],
    wanted: npt.NDArray[np.int64] | int,
    max_copies: float,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(threshold, copies) for the images of each group, (groups,) each.

    The threshold is the highest of the grid that still leaves ``wanted`` images, or its last; the images above it are
    shown ``wanted / their number`` times each, at most ``max_copies``.

    Args:
        counts: Images of each group that reach each threshold, (groups, thresholds).
        grid: Thresholds, descending.
        wanted: Images each group is to have: one number, or (groups,).
        max_copies: Of one image.
    """
    aims = np.broadcast_to(np.asarray(wanted), len(counts))
    enough = counts >= aims[:, None]
    chosen = np.where(enough.any(axis=1), enough.argmax(axis=1), len(grid) - 1)
    left = np.maximum(1, counts[np.arange(len(counts)), chosen])
    return grid[chosen], np.minimum(max_copies, aims / left)


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
    taxonomy: Taxonomy,
    config: PseudolabelConfig,
    key: Key,
) -> Selection:
    """Copies of every image whose path is kept at some level.

    Images are balanced among those that are kept down to the same depth, by the node where their label ends, so that
    doubtful images of a class never stand in for sure ones. An image whose label is cut short is shown at most as often
    as it would be if it were just sure enough of the next node of its path: to be surer never costs an image a copy.

    Walks the rows twice and sorts nothing: the time grows with the rows, whatever the number of classes.

    Args:
        terminal: Index of the terminal that the path of the label leads to, (rows,).
        confidence: Probability of its deepest kept class, (rows,), as ``kept_confidence`` gives it.
        keep: (rows, levels).
        taxonomy: The tree.
        config: How they are balanced, and the threshold from which on a level is kept.
        key: For the rounding of fractional copies.
    """
    if not config.balance:
        return Selection(keep, np.asarray(keep.any(axis=1)).view(np.uint8))
    ends = _LabelEnds(taxonomy)
    place = ends.places(terminal, keep)
    floor = _floor(config)
    grid = threshold_grid(floor)
    counts = ends.by_node(reaching(place, confidence, grid, ends.num_places))
    threshold, shown = balanced_shares(counts[:, :-1], grid, ends.wanted(counts[:, -1], config), config.max_copies)
    # What is compared is float32, and so has to be what it is compared with.
    least = (threshold - _SLACK).astype(np.float32)[ends.node]
    shown = np.minimum(shown[ends.node], ends.limits(counts, grid, floor, config))
    # Where nothing is kept.
    shown[ends.depth == 0] = 0.0
    return Selection(keep, _rounded(place, confidence, least, shown, key))


def _floor(config: PseudolabelConfig) -> float:
    """Confidence below which no image is shown.

    What reaches the threshold of its level is never below it: an image that is cut short would be shown, and the same
    image, surer of the next class, would not.
    """
    thresholds = config.threshold if isinstance(config.threshold, tuple) else (config.threshold,)
    return min([config.confidence_floor, *(each for each in thresholds if each)])


class _LabelEnds:
    """Where labels can end: a *place* is a terminal and the number of levels that are kept of the path to it; places
    whose labels are the same share a *node*."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        rows = taxonomy.terminal_rows
        num_terminals, self._num_levels = rows.shape
        node = np.zeros((num_terminals, self._num_levels + 1), dtype=np.int64)
        depths = [0]
        for depth in range(1, self._num_levels + 1):
            _, which = np.unique(rows[:, :depth], axis=0, return_inverse=True)
            node[:, depth] = len(depths) + which.reshape(-1)
            depths += [depth] * (int(which.max(initial=-1)) + 1)
        self._goes_on = rows != ABSENT
        self._depths = np.array(depths)
        self.num_places = node.size
        self.node = node.reshape(-1)
        """Node of each place, (places,)."""
        self.depth = self._depths[self.node]
        """Number of kept levels of each place, (places,)."""

    def places(self, terminal: npt.NDArray[np.int32], keep: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
        """Place of each row, (rows,)."""
        place = terminal * np.int32(self._num_levels + 1)
        for level in range(self._num_levels):
            place += keep[:, level]
        return place

    def by_node(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Sums over the places of each node: (places, n) -> (nodes, n)."""
        summed = np.zeros((len(self._depths), counts.shape[1]), dtype=np.int64)
        np.add.at(summed, self.node, counts)
        return summed

    def wanted(
        self, images: npt.NDArray[np.int64], config: PseudolabelConfig, *, one_more: bool = False
    ) -> npt.NDArray[np.int64]:
        """How many images each node is to have, (nodes,); ``one_more``: if it had one more than its ``images``."""
        if config.images_per_class:
            return np.full(len(images), config.images_per_class)
        total = np.bincount(self._depths, images).astype(np.int64)[self._depths] + one_more
        nodes = np.bincount(self._depths, images > 0).astype(np.int64)[self._depths] + (one_more & (images == 0))
        aims: npt.NDArray[np.int64] = np.maximum(1, np.rint(total / np.maximum(1, nodes)).astype(np.int64))
        return aims

    def limits(
        self, counts: npt.NDArray[np.int64], grid: npt.NDArray[np.float64], floor: float, config: PseudolabelConfig
    ) -> npt.NDArray[np.float64]:
        """Most copies of the images of each place, (places,): what each node further down their paths would give them.

        ``counts`` are those of ``reaching``, by node.
        """
        thresholds = np.broadcast_to(np.asarray(config.threshold, dtype=np.float64), self._num_levels)
        # An image that goes on to a node reaches at least the threshold of its level. Where there is none, the floor.
        entry = np.maximum(thresholds, floor)[np.maximum(self._depths - 1, 0)]
        joined = counts[:, :-1] + (grid[None, :] - _SLACK <= entry[:, None])
        wanted = self.wanted(counts[:, -1], config, one_more=True)
        threshold, copies = balanced_shares(joined, grid, wanted, config.max_copies)
        given = np.where(entry >= threshold - _SLACK, copies, 0.0)[self.node].reshape(-1, self._num_levels + 1)
        limits = np.full_like(given, np.inf)
        for depth in reversed(range(self._num_levels)):
            below = np.where(self._goes_on[:, depth], given[:, depth + 1], np.inf)
            limits[:, depth] = np.minimum(limits[:, depth + 1], below)
        return limits.reshape(-1)


def _rounded(
    place: npt.NDArray[np.int32],
    confidence: npt.NDArray[np.float32],
    least: npt.NDArray[np.float32],
    shown: npt.NDArray[np.float64],
    key: Key,
) -> npt.NDArray[Any]:
    """Whole copies of each row: an image with 1.3 copies is shown twice with probability 0.3."""
    copies = np.zeros(len(place), dtype=np.uint8 if shown.max(initial=0.0) < np.iinfo(np.uint8).max else np.int32)
    random = generator(*key, "copies")
    for first in range(0, len(place), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        exact = np.where(confidence[part] >= least[place[part]], shown[place[part]], 0.0)
        copies[part] = np.floor(exact + random.random(len(exact)))
    return copies
