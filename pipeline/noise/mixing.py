"""CutMix (Yun et al., arXiv 1905.04899) and MixUp (Zhang et al., arXiv 1710.09412), with a target per level.

Targets are mass per class, so a level that one of two mixed images does not know contributes no mass, and the loss is
divided by what is really there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from nstudent.config.schema import NoiseConfig
from nstudent.data.transfer import array_sent
from nstudent.noise.steps import Mixture, Prepared
from nstudent.randomness import Key, generator
from torch import Tensor


class Mixing:
    """Mixes every image of a batch with another of its part, by the rectangle or as a whole, or leaves the batch."""

    def __init__(self, noise_at: Callable[[int], NoiseConfig], steps: int, key: Key) -> None:
        """Make the step.

        Args:
            noise_at: Number of a step -> its noise.
            steps: Number of steps of the training.
            key: Decides, together with the number of the step, what is mixed.
        """
        self._noise_at = noise_at
        self._steps = steps
        self._key = key

    def __call__(self, prepared: Prepared, step: int) -> Prepared:
        """The batch, mixed or not. Its labelled images stay apart from the others."""
        images, done = prepared.images, step / self._steps
        noise, random = self._noise_at(step), generator(*self._key, "cutmix", step)
        cutmix = noise.cutmix * mixing_height(noise.cutmix_schedule, done)
        mixup = noise.mixup * mixing_height(noise.mixup_schedule, done)
        drawn = random.random()
        if drawn >= cutmix + mixup:
            return prepared
        partner = array_sent(_partners(len(images), prepared.batch.num_labelled, random), images.device)
        if drawn < cutmix:
            mixed, share = _pasted(images, partner, noise.cutmix_alpha, random)
        else:
            mixed, share = _blended(images, partner, noise.mixup_alpha, random)
        mixture = Mixture(partner, share)
        return replace(prepared, images=mixed, targets=mixture.of(prepared.targets), mixture=mixture)


def mixing_height(schedule: str, done: float) -> float:
    """Share of its full probability that CutMix or MixUp has, from the fraction of the training that is done.

    ``late`` keeps the first half of training free of it, which is how the contest entry behind this project trained.
    """
    if schedule == "late":
        return float(done >= 0.5)
    if schedule == "early":
        return float(done < 0.5)
    if schedule == "ramp":
        return done
    return 1.0


def _pasted(images: Tensor, partner: Tensor, alpha: float, random: np.random.Generator) -> tuple[Tensor, float]:
    """CutMix, and the share of the area that is the partner's."""
    top, bottom, left, right = box(images.shape[2], images.shape[3], float(random.beta(alpha, alpha)), random)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    # The box is clipped at the border: what was really pasted decides.
    return mixed, (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])


def _blended(images: Tensor, partner: Tensor, alpha: float, random: np.random.Generator) -> tuple[Tensor, float]:
    """MixUp, and the weight of the partner: one a batch."""
    share = float(random.beta(alpha, alpha))
    return torch.lerp(images, images[partner], share), share


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


def _partners(batch: int, num_labelled: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """A partner for each image, from its own part of the batch."""
    labelled = random.permutation(num_labelled)
    rest = num_labelled + random.permutation(batch - num_labelled)
    return np.concatenate([labelled, rest])
