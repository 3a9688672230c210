"""Decoders that weigh every path by what a rule says it is worth, from the levels of one distribution over paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

import torch
from nstudent.labels.decoding import Decoded
from nstudent.labels.path_tree import PathTree
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor


class Worth(Protocol):
    """A rule that says how good an answer each path is."""

    def to(self, device: torch.device) -> Self:
        """The same rule with all that it knows on a device."""

    def __call__(self, tree: PathTree, levels: Sequence[Tensor], masses: Tensor) -> Tensor:
        """Worth of each path, (images, terminals), in any unit: the path of greatest worth is the answer.

        Args:
            tree: The paths.
            levels: Distribution per level, (images, outputs); they are left as they are.
            masses: Probability of each path, (images, terminals); left as it is.
        """


class PosteriorDecoder:
    """Finds the path of greatest worth for each image.

    The confidence of a path at a level is the mass of all paths that agree with it so far, so that it never rises on
    the way down: the probability of its class, and where it has ended its own mass if the model has an output for
    'nothing' there, else 0.
    """

    def __init__(self, outputs: Outputs, worth: Worth) -> None:
        """``outputs``: of the model; ``worth``: the rule, for these outputs."""
        self._tree = PathTree.of(outputs)
        self._worth = worth

    def decode(self, probabilities: Sequence[Tensor]) -> Decoded:
        """Find the path of greatest worth, from (images, outputs) per level; see ``Decoder``."""
        num_images, device = probabilities[0].shape[0], probabilities[0].device
        # Kept where it was used last: a labelling stays on one device.
        tree, worth = self._tree, self._worth = self._tree.to(device), self._worth.to(device)
        best = torch.empty(num_images, dtype=torch.int64, device=device)
        mass = torch.empty(num_images, device=device)
        for rows in tree.portions(num_images):
            levels = [level[rows] for level in probabilities]
            masses = tree.masses(levels)
            best[rows] = worth(tree, levels, masses).argmax(dim=1)
            mass[rows] = masses.gather(1, best[rows, None])[:, 0]
        paths = tree.terminals[best]
        ended = tree.speaks[best] * mass[:, None]
        said = [
            level.gather(1, paths[:, number, None].long().clamp_min(0))[:, 0]
            for number, level in enumerate(probabilities)
        ]
        return Decoded(paths, torch.where(paths >= 0, torch.stack(said, dim=1), ended))
