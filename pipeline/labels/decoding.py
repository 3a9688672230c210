"""From one distribution per level to one path in the tree."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
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
        self._columns = []
        self._counts = []
        """Per level, the terminals for which it has a say; ``None``: all."""
        self._says = np.zeros(len(self._terminals), dtype=np.float32)
        for level, size in enumerate(outputs):
            column = self._terminals[:, level]
            counts = (column != ABSENT) | (size > taxonomy.num_classes[level])
            self._columns.append(np.where(column == ABSENT, size - 1, column).astype(np.intp))
            self._counts.append(None if counts.all() else counts)
            self._says += counts

    def __call__(self, probabilities: Sequence[npt.NDArray[np.float32]]) -> LabelArray:
        """Per level (images, outputs) -> paths (images, levels), ``ABSENT`` below their end."""
        num_images = len(probabilities[0])
        best = np.empty(num_images, dtype=np.int64)
        rows = max(1, _CELLS_AT_ONCE // len(self._terminals))
        for first in range(0, num_images, rows):
            part = [np.log(level[first : first + rows] + _SMALLEST) for level in probabilities]
            best[first : first + rows] = self._scores(part).argmax(axis=1)
        labels: LabelArray = self._terminals[best]
        return labels

    def _scores(self, log_probabilities: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """(images, terminals)."""
        total = np.zeros((len(log_probabilities[0]), len(self._terminals)), dtype=np.float32)
        for logs, column, counts in zip(log_probabilities, self._columns, self._counts, strict=True):
            said = logs.take(column, axis=1)
            if counts is not None:
                said[:, ~counts] = 0.0
            total += said
        total /= self._says
        return total


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
