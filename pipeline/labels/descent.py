"""Decoders that walk down the tree, and decide at each class whether the path ends there or which way it goes on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nstudent.labels.decoding import Decoded, path_confidence
from nstudent.labels.path_tree import PathTree
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor


class Descent:
    """Goes from each class to the most probable one below it, or ends, where a label may end there.

    Ending is as good as the probability of 'nothing' at the next level says: so each level is decided by its own most
    probable output, among those that the levels above have left. With ``majority`` ending is as good as a probability
    of one half: the path goes on where most of all probability lies on one class below, and only there (the majority
    rule of arXiv 2210.10929, for labels that may end at some classes alone).
    """

    def __init__(self, outputs: Outputs, *, majority: bool = False) -> None:
        """``outputs``: of the model."""
        self._outputs = outputs
        self._majority = majority
        self._tree = PathTree.of(outputs)
        self._columns = torch.from_numpy(outputs.indices(self._tree.terminals.numpy())).long()

    def decode(self, probabilities: Sequence[Tensor]) -> Decoded:
        """Walk down the tree, by (images, outputs) per level; see ``Decoder``."""
        num_images, device = probabilities[0].shape[0], probabilities[0].device
        # Kept where they were used last: a labelling stays on one device.
        tree = self._tree = self._tree.to(device)
        columns = self._columns = self._columns.to(device)
        best = torch.empty(num_images, dtype=torch.int64, device=device)
        for rows in tree.portions(num_images):
            left = torch.ones((1, len(tree.terminals)), dtype=torch.bool, device=device)
            for number, level in enumerate(probabilities):
                ends = tree.depths <= number
                said = level[rows].index_select(1, columns[:, number].clamp_min(0))
                said = torch.where(ends, 0.5, said) if self._majority else said.where(columns[:, number] >= 0, 0.0)
                said = said.where(left, -1.0)
                left = left & (said == said.amax(dim=1, keepdim=True))
            # Of equals the first: of those that end and those that go on, the one that ends.
            best[rows] = left.to(torch.uint8).argmax(dim=1)
        paths = tree.terminals[best]
        return Decoded(paths, path_confidence(probabilities, paths, self._outputs))
