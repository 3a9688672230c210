"""From one distribution per level to one path in the tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from nstudent.taxonomy import ABSENT, LabelArray, Taxonomy

_CELLS_AT_ONCE = 1 << 18
_SMALLEST = 1e-12


class PathDecoder:
    """Finds the most probable legal final label of each image.

    A label's score is the geometric mean of its probabilities over the levels that have a say: those where it names a
    class, and those where it ends and the model has an output for 'nothing'. The mean, not the product, so that short
    paths are not preferred for being short. A label that ends above a class's children is only considered where the
    model has that output: without it nothing speaks for going on, and every path would end as early as it may.

    What depends on the tree alone is worked out once, here, and not for every batch.
    """

    def __init__(self, taxonomy: Taxonomy, outputs: Sequence[int]) -> None:
        """``outputs``: of the model, per level."""
        self._terminals = _speakable(taxonomy, outputs)
        self._levels: list[_Level] = []
        self._says = np.zeros(len(self._terminals), dtype=np.float32)
        """How many levels have a say for each terminal."""
        above = np.zeros(len(self._terminals), dtype=np.intp)
        for level, size in enumerate(outputs):
            column = self._terminals[:, level]
            speaks = (column != ABSENT) | (size > taxonomy.num_classes[level])
            self._says += speaks
            # Terminals with the same beginning share its score, so that only the last level is as wide as the tree.
            _, first, beginning = np.unique(
                self._terminals[:, : level + 1], axis=0, return_index=True, return_inverse=True
            )
            output = np.where(column == ABSENT, size - 1, column)[first].astype(np.intp)
            self._levels.append(_Level(above[first], output, None if speaks[first].all() else ~speaks[first]))
            above = beginning.reshape(-1)
        self._order = above
        """Where each terminal stands among the beginnings of the last level, which are whole."""

    def __call__(self, probabilities: Sequence[npt.NDArray[np.float32]]) -> LabelArray:
        """Per level (images, outputs) -> paths (images, levels), ``ABSENT`` below their end."""
        num_images = len(probabilities[0])
        best = np.empty(num_images, dtype=np.int64)
        rows = max(1, _CELLS_AT_ONCE // len(self._terminals))
        for first in range(0, num_images, rows):
            part = [_logarithm(level[first : first + rows]) for level in probabilities]
            best[first : first + rows] = self._scores(part).argmax(axis=1)
        labels: LabelArray = self._terminals[best]
        return labels

    def _scores(self, log_probabilities: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """(images, terminals)."""
        total = np.zeros((len(log_probabilities[0]), 1), dtype=np.float32)
        for logs, level in zip(log_probabilities, self._levels, strict=True):
            said = _taken(logs, level.output)
            if level.silent is not None:
                said[:, level.silent] = 0.0
            said += total.take(level.above, axis=1)
            total = said
        total = _taken(total, self._order)
        total /= self._says
        return total


@dataclass(frozen=True)
class _Level:
    """How the scores of the beginnings of paths, down to one level, come from those of the level above."""

    above: npt.NDArray[np.intp]
    """For each beginning: that of the level above."""
    output: npt.NDArray[np.intp]
    """For each: the model's output that speaks for it."""
    silent: npt.NDArray[np.bool_] | None
    """For which none does; ``None``: one does for all."""


def _taken(table: npt.NDArray[np.float32], columns: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """These columns of a table: where they are all of them in their order, that table."""
    if len(columns) == table.shape[1] and np.array_equal(columns, np.arange(len(columns))):
        return table
    return table.take(columns, axis=1)


def _logarithm(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    # torch's takes half as long as numpy's.
    logs: npt.NDArray[np.float32] = torch.from_numpy(probabilities).add(_SMALLEST).log_().numpy()
    return logs


def best_paths(probabilities: Sequence[npt.NDArray[np.float32]], taxonomy: Taxonomy) -> LabelArray:
    """The most probable legal final label of each image, as ``PathDecoder`` finds it: (images, levels)."""
    return PathDecoder(taxonomy, [level.shape[1] for level in probabilities])(probabilities)


def _speakable(taxonomy: Taxonomy, outputs: Sequence[int]) -> LabelArray:
    """Terminal labels that end at a leaf, or at a level below which the model can say 'nothing'."""
    rows = taxonomy.terminal_rows
    allowed = [
        depth == taxonomy.num_levels
        or outputs[depth] > taxonomy.num_classes[depth]
        or not taxonomy.has_children(depth - 1, row[depth - 1])
        for row, depth in zip(rows.tolist(), (rows != ABSENT).sum(axis=1).tolist(), strict=True)
    ]
    speakable: LabelArray = rows[np.array(allowed)]
    return speakable


def path_confidence(
    probabilities: Sequence[npt.NDArray[np.float32]], paths: LabelArray, taxonomy: Taxonomy
) -> npt.NDArray[np.float32]:
    """Probability of what the path says at each level, (images, levels).

    Where the path has ended that is the probability of 'nothing', or 0 in a model without an output for it.
    """
    confidence = np.zeros(paths.shape, dtype=np.float32)
    rows = np.arange(len(paths))
    for level, distribution in enumerate(probabilities):
        path = paths[:, level]
        said = distribution[rows, np.maximum(path, 0)]
        has_nothing = distribution.shape[1] > taxonomy.num_classes[level]
        nothing = distribution[:, -1] if has_nothing else np.zeros(len(paths), dtype=np.float32)
        confidence[:, level] = np.where(path >= 0, said, nothing)
    return confidence
