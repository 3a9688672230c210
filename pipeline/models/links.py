"""Links: what turns the logits of a network into a distribution over the outputs of each level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor

Link = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
"""Float32 logits, (images, outputs) per level, coarse first, to probabilities of the same shapes."""

_LINK_OF_LOSS = {"mcm": "max_constrained"}


class MaxConstraint:
    """The largest logit of a class and of all classes below it, for every class.

    Giunchiglia & Lukasiewicz (C-HMCNN, arXiv 2010.10151, section 3): no class is then less likely than one below it.
    'Nothing' has no classes below it, and stands below none.
    """

    def __init__(self, outputs: Outputs, device: torch.device) -> None:
        """``device``: where the logits are."""
        self._children = [_children(outputs, level).to(device) for level in range(len(outputs.sizes) - 1)]

    def __call__(self, logits: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """(images, outputs) per level, coarse first, to the same."""
        found = [logits[-1]]
        for own, children in zip(reversed(logits[:-1]), reversed(self._children), strict=True):
            below = torch.cat([found[0], torch.full_like(found[0][:, :1], -torch.inf)], dim=1)
            found.insert(0, torch.maximum(own, below[:, children].amax(dim=2)))
        return tuple(found)


def _children(outputs: Outputs, level: int) -> Tensor:
    """Outputs one level below each output, int64 (outputs, most children); where there are fewer, the number of outputs
    below stands for none."""
    parents = outputs.parents(level + 1)
    below = [np.flatnonzero(parents == output) for output in range(outputs.sizes[level])]
    table = np.full((len(below), max(1, *map(len, below))), outputs.sizes[level + 1], dtype=np.int64)
    for output, children in enumerate(below):
        table[output, : len(children)] = children
    return torch.from_numpy(table)


def _each_softmax(logits: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(level.softmax(dim=1) for level in logits)


def _softmax(outputs: Outputs, device: torch.device) -> Link:
    return _each_softmax


def _max_constrained(outputs: Outputs, device: torch.device) -> Link:
    # No function within this one: a classifier is sent to other processes.
    return partial(_after, MaxConstraint(outputs, device))


def _after(constraint: MaxConstraint, logits: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return _each_softmax(constraint(logits))


LINKS: dict[str, Callable[[Outputs, torch.device], Link]] = {
    "softmax": _softmax,
    "max_constrained": _max_constrained,
}
"""By the name in a recipe: what makes the link of networks with these outputs, on a device."""


def link_of(loss: str) -> str:
    """Name of the link by which a network is read that was trained with this loss."""
    return _LINK_OF_LOSS.get(loss, "softmax")
