"""Noise on images one by one: albumentations moves and mirrors them, Pillow does RandAugment's operations.

The only module that knows albumentations, of which 2.0.8 draws the same numbers in every worker and again in every
epoch; for a *noised* student that silently removes most of the noise. So a pipeline is never left to draw by itself:
every sample sets its random state from a key. It also asks the network for a newer version when it is imported, unless
told not to.
"""

import math
import os
import random
from collections.abc import Callable, Sequence

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A
import cv2
import numpy as np
from nstudent.config.schema import NoiseConfig
from nstudent.data.decode import Pixels
from nstudent.noise import draws
from nstudent.randomness import Key, generator
from PIL import Image, ImageEnhance, ImageOps

# OpenCV's own threads only get in the way of the loader's processes.
cv2.setNumThreads(0)

_OPERATIONS: dict[int, Callable[[Image.Image, float], Image.Image]] = {
    draws.NOTHING: lambda image, _: image,
    draws.AUTOCONTRAST: lambda image, _: ImageOps.autocontrast(image),
    draws.EQUALIZE: lambda image, _: ImageOps.equalize(image),
    draws.INVERT: lambda image, _: ImageOps.invert(image),
    draws.POSTERIZE: lambda image, bits: ImageOps.posterize(image, int(bits)),
    draws.SOLARIZE: lambda image, threshold: ImageOps.solarize(image, math.ceil(threshold)),
    draws.SOLARIZE_ADD: lambda image, more: image.point(
        3 * [min(value + int(more), 255) if value < 128 else value for value in range(256)]
    ),
    draws.COLOUR: lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    draws.CONTRAST: lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    draws.BRIGHTNESS: lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    draws.SHARPNESS: lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
}
"""The operations that leave pixels where they are: (image, strength as `draws.strengths` gives it) -> image."""


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
        (operations,), (strengths,) = draws.draw_operations(self._noise, 1, bits)
        for operation, strength in zip(operations, strengths, strict=True):
            noised = operated(noised, int(operation), float(strength))
        return noised


def operated(image: Pixels, operation: int, strength: float) -> Pixels:
    """The image, uint8 (height, width, 3), after one operation of RandAugment; the one given stays as it is."""
    if operation in draws.MOVES:
        (matrix,) = draws.operation_matrix(np.array([operation]), np.array([strength]), *image.shape[:2])
        moved: Pixels = cv2.warpAffine(
            image,
            matrix,
            image.shape[1::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=3 * (draws.GREY,),
        )
        return moved
    return np.asarray(_OPERATIONS[operation](Image.fromarray(image), strength))


def _transforms(noise: NoiseConfig) -> Sequence[A.BasicTransform]:
    steps: list[A.BasicTransform] = []
    if noise.flip:
        steps.append(A.HorizontalFlip(p=0.5))
    if noise.shift or noise.zoom or noise.rotate:
        affine = A.Affine(
            scale=(1 - noise.zoom, 1 + noise.zoom),
            translate_percent=(-noise.shift, noise.shift),
            rotate=(-noise.rotate, noise.rotate),
            border_mode=cv2.BORDER_REFLECT_101,
            p=1.0,
        )
        steps.append(affine)
    return steps
