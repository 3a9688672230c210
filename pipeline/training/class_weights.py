"""Weights that make rare classes count, per level."""

import numpy as np
import torch
from nstudent.config.schema import TrainingConfig
from nstudent.taxonomy.outputs import SILENT, Outputs
from nstudent.taxonomy.tree import LabelArray
from torch import Tensor


def class_weights(labels: LabelArray, outputs: Outputs, config: TrainingConfig) -> tuple[Tensor, ...]:
    """Weight of every output: per level, float32 (outputs of the level,).

    ``compute_class_weight`` raises on -1 and on classes without an image, so it is asked about those there are.

    Args:
        labels: Labels of the labelled training images, (images, levels).
        outputs: Outputs of the network that is trained.
        config: How classes are weighted.
    """
    missing = {"one": 1.0, "cap": config.class_weight_cap, "zero": 0.0}[config.class_weight_missing]
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
            # It takes a second to import, and only who asks for balanced weights waits for it.
            from sklearn.utils.class_weight import compute_class_weight

            balanced = compute_class_weight("balanced", classes=present, y=target)
            weight[present] = np.minimum(balanced, config.class_weight_cap)
        weights.append(torch.from_numpy(weight))
    return tuple(weights)
