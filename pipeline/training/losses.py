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
from nstudent.taxonomy.tree import LabelArray
from nstudent.training.binary_cross_entropy import BinaryCrossEntropy, MaxConstrained
from nstudent.training.class_weights import class_shares, class_weights, heap_weights
from nstudent.training.cross_entropy import CrossEntropy
from nstudent.training.tree_losses import HierarchicalCrossEntropy, SoftLabels, TreePathKL
from torch import Tensor


class Loss(Protocol):
    """The loss of every level of a tree. A level's loss may depend on the logits and the mass of all levels.

    The logits are those of a softmax over the outputs of a level, which is how they are read when the trained network
    is used: ``link`` of a recipe. A loss that means another link has it in ``models/links.py``.
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
    logits_added: Sequence[Tensor] | None = None
    """What is added to the logits before the loss sees them, per level (outputs,); ``None``: nothing."""


class LogitAdjusted:
    """A loss of a softmax that sees logits to which something was added: logit adjustment.

    Menon et al., arXiv 2007.07314, equation 10: the cross-entropy of f_y(x) + tau * log pi_y, where pi_y is the share
    of the class among the labels. The network is used with f alone, whose softmax is that of evenly frequent classes.
    """

    def __init__(self, loss: Loss, added: Sequence[Tensor]) -> None:
        """``added``: tau * log pi, per level (outputs,)."""
        self._loss = loss
        self._added = list(added)

    def __call__(self, logits: Logits, mass: Sequence[Tensor]) -> Sequence[Tensor]:
        """The loss at the adjusted logits, per level, float32 (b,)."""
        return self._loss(tuple(said + added for said, added in zip(logits, self._added, strict=True)), mass)

    def weight(self, mass: Sequence[Tensor]) -> Sequence[Tensor]:
        """As of the loss itself, per level: (..., outputs) -> (...,)."""
        return self._loss.weight(mass)


def _cross_entropy(settings: LossSettings) -> Loss:
    return CrossEntropy(settings.class_weights, settings.smoothing)


def _bce(settings: LossSettings) -> Loss:
    return BinaryCrossEntropy(settings.class_weights, settings.smoothing)


def _hxe(settings: LossSettings) -> Loss:
    alpha, first = settings.config.hxe_alpha, settings.config.hxe_first or "top"
    given = settings.outputs, settings.class_weights, settings.smoothing
    return HierarchicalCrossEntropy(*given, 0.1 if alpha is None else alpha, first)


def _soft_labels(settings: LossSettings) -> Loss:
    given = settings.outputs, settings.class_weights, settings.smoothing
    return SoftLabels(*given, settings.config.soft_label_beta or 10.0)


def _tree_path_kl(settings: LossSettings) -> Loss:
    return TreePathKL(settings.class_weights, settings.smoothing, settings.config.tree_path_weight or 1.0)


def _mcm(settings: LossSettings) -> Loss:
    return MaxConstrained(settings.outputs, settings.class_weights, settings.smoothing)


LOSSES: dict[str, Callable[[LossSettings], Loss]] = {
    "cross_entropy": _cross_entropy,
    "bce": _bce,
    "hxe": _hxe,
    "soft_labels": _soft_labels,
    "tree_path_kl": _tree_path_kl,
    "mcm": _mcm,
}
"""By the name in the configuration (``loss``)."""


def build_losses(
    config: TrainingConfig, labels: LabelArray, outputs: Outputs, device: torch.device
) -> tuple[Loss, Loss]:
    """The loss of the labelled images of a training, and that of its pseudo-labels.

    What makes up for rare classes, and smoothing, are for given labels alone: the classes of pseudo-labels are balanced
    by copies, and their targets are soft. Only classes without a labelled image may weigh something else there.

    Args:
        config: How the network is trained.
        labels: Labels of the labelled training images, (images, levels).
        outputs: Outputs of the network that is trained.
        device: Where it is trained.

    Raises:
        ConfigError: There is no such loss; the message lists those that there are.
    """
    weights = [weight.to(device) for weight in class_weights(labels, outputs, config)]
    of_heap = even_weights(outputs, device)
    if config.class_weights != "none":
        of_heap = [weight.to(device) for weight in heap_weights(labels, outputs, config)]
    added = None
    if config.logit_adjustment:
        shares = class_shares(labels, outputs)
        added = [(config.logit_adjustment * share.log()).to(device) for share in shares]
    return (
        build_loss(LossSettings(outputs, weights, config, config.label_smoothing, added)),
        build_loss(LossSettings(outputs, of_heap, config)),
    )


def build_loss(settings: LossSettings) -> Loss:
    """Make the loss that the configuration of the training names.

    Raises:
        ConfigError: There is no such loss; the message lists those that there are.
    """
    loss = chosen(LOSSES, settings.config.loss, "loss")(settings)
    return loss if settings.logits_added is None else LogitAdjusted(loss, settings.logits_added)


def even_weights(outputs: Outputs, device: torch.device) -> list[Tensor]:
    """The weight 1 for every class, per level (outputs,)."""
    return [torch.ones(size, device=device) for size in outputs.sizes]
