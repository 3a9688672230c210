"""What makes rare classes count, per level: weights of classes, and their shares of the labels."""

import numpy as np
import numpy.typing as npt
import torch
from nstudent.config.schema import TrainingConfig
from nstudent.taxonomy.outputs import SILENT, Outputs
from nstudent.taxonomy.tree import LabelArray
from torch import Tensor

_BETA = 0.999
"""``class_weight_beta`` where it is left open."""


def class_weights(labels: LabelArray, outputs: Outputs, config: TrainingConfig) -> tuple[Tensor, ...]:
    """Weight of every output: per level, float32 (outputs of the level,).

    Args:
        labels: Labels of the labelled training images, (images, levels).
        outputs: Outputs of the network that is trained.
        config: How classes are weighted.
    """
    missing = _of_missing(config)
    taught = outputs.indices(labels)
    weights = []
    for level, size in enumerate(outputs.sizes):
        if config.class_weights == "none":
            weights.append(torch.ones(size))
            continue
        target = taught[taught[:, level] != SILENT, level]
        weight = np.full(size, missing, dtype=np.float32)
        present = np.unique(target)
        if len(present):
            made = _balanced(target) if config.class_weights == "balanced" else _by_effective_number(target, config)
            weight[present] = np.minimum(made, config.class_weight_cap)
        weights.append(torch.from_numpy(weight))
    return tuple(weights)


def heap_weights(labels: LabelArray, outputs: Outputs, config: TrainingConfig) -> tuple[Tensor, ...]:
    """Weight of every output among pseudo-labels: per level, float32 (outputs of the level,).

    It is 1, as copies balance these labels. A class that no labelled image shows, which pseudo-labels alone can name,
    has the weight that ``class_weight_missing`` gives it.

    Args:
        labels: Labels of the labelled training images, (images, levels).
        outputs: Outputs of the network that is trained.
        config: How classes are weighted.
    """
    taught = outputs.indices(labels)
    weights = []
    for level, size in enumerate(outputs.sizes):
        weight = np.full(size, _of_missing(config), dtype=np.float32)
        weight[taught[taught[:, level] != SILENT, level]] = 1.0
        weights.append(torch.from_numpy(weight))
    return tuple(weights)


def _of_missing(config: TrainingConfig) -> float:
    """Weight of a class without a labelled image."""
    return {"one": 1.0, "cap": config.class_weight_cap, "zero": 0.0}[config.class_weight_missing]


def class_shares(labels: LabelArray, outputs: Outputs) -> tuple[Tensor, ...]:
    """Share of every output among the labels that name one: per level, float32 (outputs of the level,).

    A class without an image has the share that it would have with one: the logarithm of nothing is no number to add.
    """
    taught = outputs.indices(labels)
    shares = []
    for level, size in enumerate(outputs.sizes):
        target = taught[taught[:, level] != SILENT, level]
        counts = np.bincount(target, minlength=size)
        shares.append(torch.from_numpy((np.maximum(counts, 1) / max(1, len(target))).astype(np.float32)))
    return tuple(shares)


def _balanced(target: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Weights of the classes that occur: images / (classes * images of the class).

    ``compute_class_weight`` raises on -1 and on classes without an image, so it is asked about those there are.
    """
    # It takes a second to import, and only who asks for balanced weights waits for it.
    from sklearn.utils.class_weight import compute_class_weight

    balanced: npt.NDArray[np.float64] = compute_class_weight("balanced", classes=np.unique(target), y=target)
    return balanced


def _by_effective_number(target: npt.NDArray[np.int32], config: TrainingConfig) -> npt.NDArray[np.float64]:
    """Weights of the classes that occur, in proportion to (1 - beta) / (1 - beta^images), with the mean 1.

    Cui et al., arXiv 1901.05555, section 4, and normalised as there: the weights add up to the number of
    classes.
    """
    beta = _BETA if config.class_weight_beta is None else config.class_weight_beta
    counts = np.unique(target, return_counts=True)[1].astype(np.float64)
    # (1 - beta) is the same for all classes; expm1 keeps the digits of a beta next to 1.
    inverse = 1 / -np.expm1(counts * np.log(beta)) if beta else np.ones(len(counts))
    return np.asarray(inverse * len(counts) / inverse.sum())
