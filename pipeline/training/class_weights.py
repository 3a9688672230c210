"""Weights that make rare classes count, per level."""

import numpy as np
import torch
from nstudent.config import TrainingConfig
from nstudent.taxonomy import ABSENT, LabelArray, Taxonomy
from torch import Tensor


def class_weights(labels: LabelArray, taxonomy: Taxonomy, absent: str, config: TrainingConfig) -> tuple[Tensor, ...]:
    """Weight of every output of every level.

    ``compute_class_weight`` raises on -1 and on classes without an image, so it is asked about those there are.

    Args:
        labels: (images, levels) of the labelled training images.
    """
    missing = {"one": 1.0, "cap": config.class_weight_cap, "zero": 0.0}[config.class_weight_missing]
    weights = []
    for level, size in enumerate(taxonomy.columns(absent)):
        if config.class_weights == "none":
            weights.append(torch.ones(size))
            continue
        target = labels[:, level].copy()
        if size > taxonomy.num_classes[level]:
            target[target == ABSENT] = size - 1
        target = target[target >= 0]
        weight = np.full(size, missing, dtype=np.float32)
        present = np.unique(target)
        if len(present):
            # It takes a second to import, and only who asks for balanced weights waits for it.
            from sklearn.utils.class_weight import compute_class_weight

            balanced = compute_class_weight("balanced", classes=present, y=target)
            weight[present] = np.minimum(balanced, config.class_weight_cap)
        weights.append(torch.from_numpy(weight))
    return tuple(weights)
