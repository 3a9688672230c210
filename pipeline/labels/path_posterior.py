"""One distribution over the paths of the tree, from which every level is read.

A network says one distribution a level, and nothing makes these agree: a fine class can be more probable than the class
above it. Here they are factors of one distribution over the paths to terminals, so that the probability of a class is
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
    """What a path posterior was fitted with."""

    temperatures: tuple[float, ...]
    """By level, coarse first: what a level says counts 1 / temperature."""
    ends: tuple[float, ...]
    """By depth, from paths of one class to those that reach the last level: what is added to the log-probability of
    the paths that end there."""


class PathPosterior:
    """Turns pooled distributions into the levels of a calibrated one.

    For a path t of depth d, with the classes (or 'nothing') t_l at the levels that have a say,

        log q(t) = sum over l of log p_l(t_l) / temperature_l + end_d + constant,

    and the probability of a class is the sum of q over the paths through it. What depends on the tree alone is worked
    out once; the work is done on the device that holds the distributions, which is not waited for.
    """

    def __init__(self, outputs: Outputs, calibration: Calibration) -> None:
        """``outputs``: of the model; ``calibration``: as many temperatures and ends as it has levels."""
        self._tree = PathTree.of(outputs)
        self._weights = tuple(1 / temperature for temperature in calibration.temperatures)
        self._bias = torch.tensor(calibration.ends)[self._tree.depths - 1]
        self._sizes = outputs.sizes

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
        num_images, device = len(pooled[0]), pooled[0].device
        tree = self._tree = self._tree.to(device)
        bias = self._bias = self._bias.to(device)
        found = tuple(torch.empty((num_images, size), device=device) for size in self._sizes)
        for rows in tree.portions(num_images):
            logs = [logarithms(level[rows]).mul_(w) for level, w in zip(pooled, self._weights, strict=True)]
            paths = tree.scores(logs).add_(bias).softmax(dim=1)
            for level, part in zip(found, tree.marginals(paths), strict=True):
                level[rows] = part
        return found
