"""One distribution over the paths of the tree, from which every level is read.

A network says one distribution a level, and nothing makes these agree: a fine class can be more probable than the class
above it. Here they are evidence for one distribution over the paths to terminals, so that the probability of a class is
that of all paths through it: never more than that of the class above it, and comparable between levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from nstudent.labels.path_tree import PathTree, logarithms
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor


@dataclass(frozen=True)
class Calibration:
    """The numbers of a path posterior, fitted on held-out images by ``evaluation.calibration``."""

    temperatures: tuple[float, ...]
    """By level, coarse first: what a level says counts 1 / temperature."""
    ends: tuple[float, ...]
    """By depth, from paths of one class to those that reach the last level: what is added to the log-probability of
    the paths that end there."""


class PathPosterior:
    """Turns pooled distributions into the levels of a calibrated one.

    Let w_l = 1 / temperature_l be the weight of level l, and w the sum of all weights. For a path t of depth d, with
    the class (or 'nothing') t_l at each level l that has a say for it,

        log q(t) = w * (sum over these l of w_l log p_l(t_l)) / (sum over these l of w_l) + end_d + constant,

    and the probability of a class is the sum of q over the paths through it. Where all levels have a say the fraction
    is the plain sum. Where some have none, because a path ends above them and the model has no output for 'nothing',
    the others count for them too: a path is not more probable for being short. With equal temperatures, of as much as
    there are levels, it is the geometric mean that ``BestPath`` goes by; with one level it is temperature scaling.

    What depends on the tree alone is worked out once; the work is done on the device that holds the distributions,
    which is not waited for.
    """

    def __init__(self, outputs: Outputs, calibration: Calibration) -> None:
        """``outputs``: of the model; ``calibration``: as many temperatures and ends as it has levels."""
        self._tree = PathTree.of(outputs)
        self._sizes = outputs.sizes
        self._weights = tuple(1 / temperature for temperature in calibration.temperatures)
        self._scale = path_scale(self._tree, torch.tensor(self._weights))
        self._bias = torch.tensor(calibration.ends)[self._tree.depths - 1]

    def marginals(self, pooled: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The calibrated distribution of each level.

        At a level that some paths do not reach, the marginals of the classes sum to less than one. The output for
        'nothing' gets the rest, if the model has one.

        Args:
            pooled: Distribution per level, coarse first: float32 (images, outputs), on any device. They are left as
                they are.

        Returns:
            New tensors of the same shapes, on the same device.
        """
        num_images, device = pooled[0].shape[0], pooled[0].device
        # Kept where they were used last: an ensemble stays on one device.
        tree = self._tree = self._tree.to(device)
        scale = self._scale = None if self._scale is None else self._scale.to(device)
        bias = self._bias = self._bias.to(device)
        found = tuple(torch.empty((num_images, size), device=device) for size in self._sizes)
        for rows in tree.portions(num_images):
            logs = [logarithms(level[rows]).mul_(w) for level, w in zip(pooled, self._weights, strict=True)]
            for level, part in zip(found, tree.marginals(path_masses(tree, logs, scale, bias)), strict=True):
                level[rows] = part
        return found


def path_scale(tree: PathTree, weights: Tensor) -> Tensor | None:
    """What makes up for the levels that have no say for a path, (terminals,); ``None``: they all have.

    ``weights``: (levels,).
    """
    if bool(tree.speaks.all()):
        return None
    return weights.sum() / (tree.speaks.to(weights.dtype) @ weights)


def path_masses(tree: PathTree, logs: Sequence[Tensor], scale: Tensor | None, bias: Tensor) -> Tensor:
    """The posterior over the paths, (images, terminals).

    Args:
        tree: The paths.
        logs: Per level, (images, outputs), the logarithms times the weight of the level; they are overwritten.
        scale: As ``path_scale`` gives it.
        bias: The end of each path, (terminals,).
    """
    scores = tree.scores(logs)
    if scale is not None:
        scores.mul_(scale)
    return scores.add_(bias).softmax(dim=1)
