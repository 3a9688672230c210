"""Losses on the tree, an image at a time and for each of its levels.

A loss says how bad an image's logits are and how much the image counts. It never divides: a batch may be worked on in
portions, and in several processes, and what its images count together is added up in one place (``objective.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from nstudent.config.schema import TrainingConfig
from nstudent.models.heads import Logits
from nstudent.tables import chosen
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor

_NO_MASS = 1e-12
"""Below this an image has nothing to teach at a level."""


class Loss(Protocol):
    """The loss of every level of a tree. A level's loss may depend on the logits and the mass of all levels.

    The logits are those of a softmax over the outputs of a level: ``link`` of a recipe, which is how they are read when
    the trained network is used.
    """

    def __call__(self, logits: Logits, mass: Sequence[Tensor]) -> Sequence[Tensor]:
        """Loss of each image at each level, already times what the image counts there.

        Args:
            logits: Per level, coarse first, float32 (b, outputs).
            mass: Per level, float32 (b, outputs): what is to be learnt, see ``labels/targets.py``; zeros teach nothing.

        Returns:
            Per level, float32 (b,).
        """

    def weight(self, mass: Sequence[Tensor]) -> Sequence[Tensor]:
        """What images count that have this mass: linear in it, so that a sum over images can be asked about.

        Args:
            mass: Per level, float32 (..., outputs): of images, or summed over images.

        Returns:
            Per level, float32 (...,).
        """


@dataclass(frozen=True)
class LossSettings:
    """What a loss may depend on."""

    outputs: Outputs
    """What the model can say, and with it the tree."""
    class_weights: Sequence[Tensor]
    """Weight of every class, per level (outputs,), on the device."""
    config: TrainingConfig
    """How the network is trained: which loss is meant, and the keys that are its own."""
    smoothing: float = 0.0
    """Share of an image's mass that is spread over all classes of the level; not that of ``config``, which is for given
    labels alone."""


class CrossEntropy:
    """Cross-entropy against mass on classes, with a weight for every class.

    An image counts as much as the classes that its mass names: mass * class weight, summed. Label smoothing (arXiv
    1512.00567) comes after that and spreads evenly what is to be learnt. If the classes were weighted after it, as in
    torch's own cross-entropy, smoothing would draw every image towards the rare classes. Without smoothing and with one
    class an image, or without class weights, it is torch's own.
    """

    def __init__(self, class_weights: Sequence[Tensor], smoothing: float = 0.0) -> None:
        """``class_weights``: per level (outputs,)."""
        self.class_weights = list(class_weights)
        self.smoothing = smoothing

    def __call__(self, logits: Logits, mass: Sequence[Tensor]) -> Sequence[Tensor]:
        """What the image counts * its cross-entropy against the smoothed mass, per level, float32 (b,)."""
        rows = zip(logits, mass, self.weight(mass), strict=True)
        return [-(self._taught(level, counted) * said.log_softmax(dim=1)).sum(dim=1) for said, level, counted in rows]

    def weight(self, mass: Sequence[Tensor]) -> Sequence[Tensor]:
        """Sum over classes of mass * class weight, per level: (..., outputs) -> (...,)."""
        return [(level * weights).sum(dim=-1) for level, weights in zip(mass, self.class_weights, strict=True)]

    def _taught(self, mass: Tensor, counted: Tensor) -> Tensor:
        """The mass, (b, outputs), smoothed and brought to what the image counts, (b,), in all."""
        total = mass.sum(dim=1, keepdim=True)
        if self.smoothing:
            mass = (1 - self.smoothing) * mass + self.smoothing * total / mass.shape[1]
        # An image without mass counts nothing, so that what it is divided by does not matter.
        return mass * (counted[:, None] / total.clamp_min(_NO_MASS))


LOSSES: dict[str, Callable[[LossSettings], Loss]] = {
    "cross_entropy": lambda settings: CrossEntropy(settings.class_weights, settings.smoothing),
}
"""By the name in the configuration (``loss``)."""


def build_loss(settings: LossSettings) -> Loss:
    """Make the loss that the configuration of the training names.

    Raises:
        ConfigError: There is no such loss; the message lists those that there are.
    """
    return chosen(LOSSES, settings.config.loss, "loss")(settings)


def even_weights(outputs: Outputs, device: torch.device) -> list[Tensor]:
    """The weight 1 for every class, per level (outputs,)."""
    return [torch.ones(size, device=device) for size in outputs.sizes]
