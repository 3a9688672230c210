"""CutMix (Yun et al., arXiv 1905.04899) on batches with a target per level."""

from __future__ import annotations

import numpy as np
import torch
from nstudent.config import NoiseConfig
from nstudent.data.transfer import sent
from nstudent.randomness import Key, generator
from nstudent.training.schedules import cutmix_height
from torch import Tensor

Targets = tuple[Tensor, ...]


class CutMix:
    """Pastes a rectangle of one image onto another, and mixes their targets by area.

    Targets are mass per class, so a level that one of the two images does not know contributes no mass, and the loss
    is divided by what is really there.
    """

    def __init__(self, noise: NoiseConfig, key: Key) -> None:
        self._noise = noise
        self._key = key

    def __call__(
        self, images: Tensor, targets: Targets, num_labelled: int, step: int, progress: float
    ) -> tuple[Tensor, Targets]:
        """(batch, 3, side, side) and targets per level -> the same, mixed or not. Parts of a batch stay apart."""
        random = generator(*self._key, "cutmix", step)
        probability = self._noise.cutmix * cutmix_height(self._noise.cutmix_schedule, progress)
        if random.random() >= probability:
            return images, targets
        partner = sent(_partners(len(images), num_labelled, random), images.device)
        kept = float(random.beta(self._noise.cutmix_alpha, self._noise.cutmix_alpha))
        top, bottom, left, right = box(images.shape[2], images.shape[3], kept, random)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
        # The box is clipped at the border: what was really pasted decides.
        pasted = (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
        return mixed, tuple((1 - pasted) * level + pasted * level[partner] for level in targets)


def box(height: int, width: int, kept: float, random: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of a box of area ``1 - kept`` around a random centre, clipped to the image."""
    side = float(np.sqrt(1.0 - kept))
    centre_y, centre_x = random.integers(height), random.integers(width)
    half_y, half_x = round(height * side / 2), round(width * side / 2)
    return (
        max(0, int(centre_y) - half_y),
        min(height, int(centre_y) + half_y),
        max(0, int(centre_x) - half_x),
        min(width, int(centre_x) + half_x),
    )


def _partners(batch: int, num_labelled: int, random: np.random.Generator) -> Tensor:
    """A partner for each image, from its own part of the batch."""
    labelled = random.permutation(num_labelled)
    rest = num_labelled + random.permutation(batch - num_labelled)
    return torch.from_numpy(np.concatenate([labelled, rest]))
