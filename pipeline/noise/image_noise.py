"""Noise on images, with albumentations. The only module that knows it.

albumentations 2.0.8 draws the same numbers in every worker and again in every epoch; for a *noised* student that
silently removes most of the noise. So a pipeline is never left to draw by itself: every sample sets its random state
from a key. It also asks the network for a newer version when it is imported, unless told not to.
"""

import os
import random
from collections.abc import Sequence

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A
import cv2
from nstudent.config.schema import NoiseConfig
from nstudent.data.decode import Pixels
from nstudent.randomness import Key, generator

# OpenCV's own threads only get in the way of the loader's processes.
cv2.setNumThreads(0)


class ImageNoise:
    """Noise for one image at a time, decided by a key alone."""

    def __init__(self, noise: NoiseConfig) -> None:
        self._noise = noise
        self._pipeline = A.Compose(_transforms(noise))

    def __reduce__(self) -> tuple[type, tuple[NoiseConfig]]:
        return ImageNoise, (self._noise,)

    def __call__(self, image: Pixels, key: Key) -> Pixels:
        """uint8 (height, width, 3) -> the same shape. Equal keys give equal noise."""
        bits = generator(*key)
        self._pipeline.set_random_state(bits, random.Random(int(bits.integers(2**63))))
        noised: Pixels = self._pipeline(image=image)["image"]
        return noised


def _transforms(noise: NoiseConfig) -> Sequence[A.BasicTransform | A.BaseCompose]:
    steps: list[A.BasicTransform | A.BaseCompose] = []
    if noise.flip:
        steps.append(A.HorizontalFlip(p=0.5))
    if noise.shift or noise.zoom or noise.rotate:
        steps.append(_affine(translate=noise.shift, zoom=noise.zoom, rotate=noise.rotate))
    if noise.operations:
        steps.append(A.SomeOf(_operations(noise.magnitude / 10), n=noise.operations, replace=True, p=1.0))
    return steps


def _affine(*, translate: float = 0.0, zoom: float = 0.0, rotate: float = 0.0, shear: float = 0.0) -> A.Affine:
    return A.Affine(
        scale=(1 - zoom, 1 + zoom),
        translate_percent=(-translate, translate),
        rotate=(-rotate, rotate),
        shear=(-shear, shear),
        border_mode=cv2.BORDER_REFLECT_101,
        p=1.0,
    )


def _operations(strength: float) -> list[A.BasicTransform]:
    """RandAugment's operations (arXiv 1909.13719, table 6), each at up to ``strength`` (0..1) of its full range."""
    colour = 0.9 * strength
    return [
        A.NoOp(p=1.0),
        A.AutoContrast(p=1.0),
        A.Equalize(p=1.0),
        A.Posterize(num_bits=(8 - round(4 * strength), 8), p=1.0),
        A.Solarize(threshold_range=(1 - 0.5 * strength, 1.0), p=1.0),
        A.ColorJitter(brightness=0, contrast=0, saturation=colour, hue=0, p=1.0),
        A.ColorJitter(brightness=0, contrast=colour, saturation=0, hue=0, p=1.0),
        A.ColorJitter(brightness=colour, contrast=0, saturation=0, hue=0, p=1.0),
        A.Sharpen(alpha=(0.0, colour), lightness=(1.0, 1.0), p=1.0),
        _affine(rotate=30 * strength),
        _affine(shear=17 * strength),
        _affine(translate=0.3 * strength),
    ]
