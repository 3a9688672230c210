"""Whether what the levels say, each by itself, is a path of the tree at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from nstudent.labels.path_tree import PathTree
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor

CONSISTENT = "consistent"
"""Name of the column that ``Consistency`` gives."""


class Consistency:
    """Tells whether the most probable outputs of all levels agree.

    They do if there is a path to a terminal that every level which has a say for it names. Levels that have none, below
    the end of a path in a model without an output for 'nothing', are not asked: there is nothing that they could say.
    """

    def __init__(self, outputs: Outputs) -> None:
        """``outputs``: of the model."""
        self._tree = PathTree.of(outputs)
        self._columns = torch.from_numpy(outputs.indices(self._tree.terminals.numpy())).long()

    def __call__(self, levels: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Distribution per level, (images, outputs) -> ``CONSISTENT``: uint8 (images,), 1 if the levels agree."""
        num_images, device = levels[0].shape[0], levels[0].device
        # Kept where they were used last: a walk through images stays on one device.
        tree = self._tree = self._tree.to(device)
        columns = self._columns = self._columns.to(device)
        found = torch.empty(num_images, dtype=torch.uint8, device=device)
        for rows in tree.portions(num_images):
            agree = torch.ones((1, len(columns)), dtype=torch.bool, device=device)
            for number, level in enumerate(levels):
                said = level[rows].argmax(dim=1, keepdim=True)
                agree = agree & ((columns[:, number] == said) | (columns[:, number] < 0))
            found[rows] = agree.any(dim=1).to(torch.uint8)
        return {CONSISTENT: found}
