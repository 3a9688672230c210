"""Which pseudo-labels are used, how deep, and how often.

Two decisions: how far down a path the labeller is sure (an image whose fine class is doubtful keeps its mid class), and
how many copies of an image bring all classes to the same size (Noisy Student, arXiv 1911.04252, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nstudent.artifact import Artifact
from nstudent.config import PseudolabelConfig
from nstudent.hdf5 import mapped, write
from nstudent.randomness import Key, generator

SELECTION = "selection.h5"
GIVEN = "labelled.h5"
_GRID_STEP = 0.05
_HIGHEST_THRESHOLD = 0.95


@dataclass(frozen=True)
class Selection:
    """What the student sees of the heap."""

    keep: npt.NDArray[np.bool_]
    """(rows, levels): the level teaches."""
    copies: npt.NDArray[np.int64]
    """(rows,): how often an image is shown each pass; 0: not at all."""

    def save(self, folder: Path) -> None:
        """Write ``selection.h5``."""
        write(folder / SELECTION, {"keep": self.keep.astype(np.uint8), "copies": self.copies}, {})

    @classmethod
    def load(cls, artifact: Artifact) -> Selection:
        """Read it from a committed step."""
        arrays = mapped(artifact.path(SELECTION))
        return cls(np.asarray(arrays["keep"]).astype(bool), np.asarray(arrays["copies"]).astype(np.int64))


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
    """Probability of the deepest kept class of each row; 0 where nothing is kept."""
    depth = keep.sum(axis=1)
    deepest = confidence[np.arange(len(confidence)), np.maximum(depth - 1, 0)]
    return np.where(depth > 0, deepest, np.float32(0.0))


def balanced_share(
    confidence: npt.NDArray[np.float32], wanted: int, floor: float, max_copies: float
) -> tuple[float, float]:
    """(threshold, copies) for the images of one class.

    The threshold is the highest of a grid that still leaves ``wanted`` images, and not below ``floor``; the images
    above it are shown ``wanted / their number`` times each, at most ``max_copies``.
    """
    ordered = np.sort(confidence)
    grid = np.append(np.arange(_HIGHEST_THRESHOLD, floor + _GRID_STEP / 2, -_GRID_STEP), floor)
    # A hundred-thousandth below, so that .90 on a grid made of floats still takes in a stored .9.
    counts = len(ordered) - np.searchsorted(ordered, grid - 1e-5)
    enough = np.flatnonzero(counts >= wanted)
    chosen = int(enough[0]) if len(enough) else len(grid) - 1
    return float(grid[chosen]), min(max_copies, wanted / max(1, int(counts[chosen])))


def select(
    terminal: npt.NDArray[np.int64],
    confidence: npt.NDArray[np.float32],
    keep: npt.NDArray[np.bool_],
    config: PseudolabelConfig,
    key: Key,
) -> Selection:
    """Copies of every image whose path is kept at some level.

    Args:
        terminal: Class of the most probable path, (rows,).
        confidence: Probability along that path, (rows, levels).
        keep: (rows, levels).
        key: For the rounding of fractional copies.
    """
    eligible = keep.any(axis=1)
    if not config.balance:
        once = np.asarray(eligible, dtype=np.int64)
        return Selection(keep, once)
    sure = kept_confidence(confidence, keep)
    groups = np.unique(terminal[eligible])
    wanted = config.images_per_class or max(1, round(int(eligible.sum()) / max(1, len(groups))))
    exact = np.zeros(len(terminal), dtype=np.float64)
    for group in groups:
        rows = np.flatnonzero(eligible & (terminal == group))
        threshold, copies = balanced_share(sure[rows], wanted, config.confidence_floor, config.max_copies)
        exact[rows[sure[rows] >= threshold - 1e-5]] = copies
    # Stochastic rounding: an image with 1.3 copies is shown twice with probability 0.3.
    drawn = generator(*key, "copies").random(len(exact))
    rounded: npt.NDArray[np.int64] = np.floor(exact + drawn).astype(np.int64)
    return Selection(keep, rounded)
