"""The decoder that scores whole paths, and takes the best one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nstudent.labels.decoding import Decoded, path_confidence
from nstudent.labels.path_tree import PathTree, logarithms
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor


class BestPath:
    """Finds the path to a terminal with the highest mean of log-probabilities, for each image.

    A label's score is the geometric mean of its probabilities over the levels that have a say (``PathTree``). The mean,
    not the product, so that short paths are not preferred for being short. The decoding is done on the device that
    holds the distributions.
    """

    def __init__(self, outputs: Outputs) -> None:
        """``outputs``: of the model."""
        self._outputs = outputs
        self._tree = PathTree.of(outputs)

    def decode(self, probabilities: Sequence[Tensor]) -> Decoded:
        """Find the most probable path to a terminal, from (images, outputs) per level; see ``Decoder``."""
        num_images, device = probabilities[0].shape[0], probabilities[0].device
        # Kept where it was used last: a labelling stays on one device.
        tree = self._tree = self._tree.to(device)
        says = tree.speaks.sum(dim=1)
        best = torch.empty(num_images, dtype=torch.int64, device=device)
        for rows in tree.portions(num_images):
            scores = tree.scores([logarithms(level[rows]) for level in probabilities])
            best[rows] = scores.div_(says).argmax(dim=1)
        paths = tree.terminals[best]
        return Decoded(paths, path_confidence(probabilities, paths, self._outputs))
