"""The decoder of a path posterior: the path that is expected to score best."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nstudent.labels.decoding import Decoded
from nstudent.labels.path_tree import PathTree
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor


class ExpectedScore:
    """Finds the path with the highest expected score for each image, from the levels of one distribution over paths.

    The score of a path is the share of the levels of the true path that it matches, plus 1 if it is the true path: the
    two scores that classifiers are compared by (``evaluation.scores.COMPARED``). The most probable path alone ends too
    early, or errs at a coarse level, more often; the share of levels alone ends too late.

    The confidence of a path at a level is the mass of all paths that agree with it so far, so that it never rises on
    the way down: the probability of its class, and where it has ended its own mass if the model has an output for
    'nothing' there, else 0.
    """

    def __init__(self, outputs: Outputs) -> None:
        """``outputs``: of the model."""
        self._tree = PathTree.of(outputs)

    def decode(self, probabilities: Sequence[Tensor]) -> Decoded:
        """Find the path with the best expected score, from (images, outputs) per level; see ``Decoder``."""
        num_images, device = probabilities[0].shape[0], probabilities[0].device
        # Kept where it was used last: a labelling stays on one device.
        tree = self._tree = self._tree.to(device)
        best = torch.empty(num_images, dtype=torch.int64, device=device)
        mass = torch.empty(num_images, device=device)
        for rows in tree.portions(num_images):
            levels = [level[rows] for level in probabilities]
            masses = tree.masses(levels)
            best[rows] = _expected(tree, levels, masses).argmax(dim=1)
            mass[rows] = masses.gather(1, best[rows, None])[:, 0]
        paths = tree.terminals[best]
        ended = tree.speaks[best] * mass[:, None]
        said = [
            level.gather(1, paths[:, number, None].long().clamp_min(0))[:, 0]
            for number, level in enumerate(probabilities)
        ]
        return Decoded(paths, torch.where(paths >= 0, torch.stack(said, dim=1), ended))


def _expected(tree: PathTree, levels: Sequence[Tensor], masses: Tensor) -> Tensor:
    """Expected score of each path, or a multiple of it, (images, terminals)."""
    if tree.ends_together:
        return tree.matches(levels).add_(masses, alpha=len(levels))
    # What it is worth to match a level falls with the length of the true path.
    return tree.matches(tree.marginals(masses / tree.depths)).add_(masses)
