"""Losses of one level of the tree, an image at a time.

A loss says how bad an image's logits are and how much the image counts. It never divides: a batch may be worked on in
portions, and in several processes, and what its images count together is added up in one place (``objective.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from nstudent.tables import chosen
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor


class Loss(Protocol):
    """The loss of every level of a tree."""

    def __call__(self, logits: Tensor, mass: Tensor, level: int) -> Tensor:
        """Loss of each image, already times what the image counts.

        Args:
            logits: float32 (b, outputs).
            mass: float32 (b, outputs): what is to be learnt, see ``labels/targets.py``; zeros teach nothing.
            level: Number of the level, 0 the coarsest.

        Returns:
            float32 (b,).
        """

    def weight(self, mass: Tensor, level: int) -> Tensor:
        """What images count that have this mass: linear in it, so that a sum over images can be asked about.

        Args:
            mass: float32 (..., outputs): of images, or summed over images.
            level: Number of the level.

        Returns:
            float32 (...,).
        """


@dataclass(frozen=True)
class LossSettings:
    """What a loss may depend on."""

    outputs: Outputs
    """What the model can say, and with it the tree."""
    class_weights: Sequence[Tensor]
    """Weight of every class, per level (outputs,), on the device."""
    smoothing: float = 0.0
    """Share of an image's mass that is spread over all classes of the level."""


class CrossEntropy:
    """Cross-entropy against mass on classes, with a weight for every class.

    With one class an image it is that of torch, with its weights and its label smoothing (arXiv 1512.00567).
    """

    def __init__(self, class_weights: Sequence[Tensor], smoothing: float = 0.0) -> None:
        """``class_weights``: per level (outputs,)."""
        self.class_weights = list(class_weights)
        self.smoothing = smoothing

    def __call__(self, logits: Tensor, mass: Tensor, level: int) -> Tensor:
        """-sum of mass * weight * log softmax; float32 (b,)."""
        return -(self._weighted(mass, level) * logits.log_softmax(dim=1)).sum(dim=1)

    def weight(self, mass: Tensor, level: int) -> Tensor:
        """Sum over classes of mass * weight: (..., outputs) -> (...,)."""
        return self._weighted(mass, level).sum(dim=-1)

    def _weighted(self, mass: Tensor, level: int) -> Tensor:
        if self.smoothing:
            spread = mass.sum(dim=-1, keepdim=True) / mass.shape[-1]
            mass = (1 - self.smoothing) * mass + self.smoothing * spread
        return mass * self.class_weights[level]


LOSSES: dict[str, Callable[[LossSettings], Loss]] = {
    "cross_entropy": lambda settings: CrossEntropy(settings.class_weights, settings.smoothing),
}
"""By the name in the configuration (``loss``)."""


def build_loss(name: str, settings: LossSettings) -> Loss:
    """Make the loss of this name.

    Raises:
        ConfigError: There is no such loss; the message lists those that there are.
    """
    return chosen(LOSSES, name, "loss")(settings)


def even_weights(outputs: Outputs, device: torch.device) -> list[Tensor]:
    """The weight 1 for every class, per level (outputs,)."""
    return [torch.ones(size, device=device) for size in outputs.sizes]
