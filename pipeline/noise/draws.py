"""The noise of a whole batch, drawn at once on the host, as arrays.

A batch's noise is a function of one key, of a step, so that no two steps share noise and nothing has a past. What an
operation is and how strong it is are drawn here for `image_noise.py` too; only what moves an image before RandAugment
is drawn there by albumentations, from the same distributions: tests compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nstudent.config.schema import NoiseConfig
from nstudent.randomness import Key, generator

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

NOTHING, AUTOCONTRAST, EQUALIZE, INVERT, POSTERIZE, SOLARIZE, SOLARIZE_ADD = range(7)
COLOUR, CONTRAST, BRIGHTNESS, SHARPNESS = range(7, 11)
ROTATE, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y = range(11, 16)
NUM_OPERATIONS = 16
"""The 14 operations of RandAugment (Cubuk et al., arXiv 1909.13719, section 3), and the two that the code of Noisy
Student and of FixMatch adds (github.com/google-research/fixmatch, imagenet/augment/rand_augment.py): Invert and
SolarizeAdd. They are equally probable."""

_RANGES = {
    POSTERIZE: (8, -4, False),
    SOLARIZE: (256, -256, False),
    SOLARIZE_ADD: (0, 110, False),
    COLOUR: (1, 0.9, True),
    CONTRAST: (1, 0.9, True),
    BRIGHTNESS: (1, 0.9, True),
    SHARPNESS: (1, 0.9, True),
    ROTATE: (0, 30, True),
    SHEAR_X: (0, 0.3, True),
    SHEAR_Y: (0, 0.3, True),
    TRANSLATE_X: (0, 0.45, True),
    TRANSLATE_Y: (0, 0.45, True),
}
"""Strength at magnitude 0, what magnitude 10 adds to it, and whether that may be subtracted instead: number of bits
kept; value from which on values are inverted; what is added to values below 128; factors; degrees; shares. The numbers
are those of timm's operations that grow with the magnitude (timm/data/auto_augment.py, ``inc1``), but for the bits:
4 at least as in AutoAugment (arXiv 1805.09501) and FixMatch (arXiv 2001.07685), where timm goes down
to none and so to black images."""
_AT_ZERO, _ADDED, _SIGNED = (
    np.array([_RANGES.get(kind, (0, 0, False))[part] for kind in range(NUM_OPERATIONS)], dtype=float)
    for part in range(3)
)

MOVES = (ROTATE, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y)
"""Operations that move pixels."""
GREY = 128
"""Value of what is moved in from outside of the image. Mirroring, as smaller moves do, would show an object twice where
half of the image is moved out of sight: a 0 would become an 8."""


@dataclass(frozen=True)
class NoiseDraws:
    """What happens to each image of a batch. ``b`` images, ``n`` operations each."""

    matrix: Floats | None
    """(b, 2, 3): from a pixel (x, y, 1) of the result to the place in the image that it shows; ``None``: it stays."""
    flip: npt.NDArray[np.bool_] | None
    """(b,): mirrored left and right, before anything else."""
    operation: Integers
    """(b, n): in the order in which they are applied, which is the order in which they were drawn."""
    strength: Floats
    """(b, n): bits, threshold, factor, degrees or share, as the operation means it (``_RANGES``)."""


@dataclass(frozen=True)
class _Drawn:
    """What a generator gives for one batch, in this order."""

    flip: Floats | None
    affine: Floats | None
    """(5, b), in -1..1."""
    operation: Integers
    strength: Floats

    @classmethod
    def of(cls, noise: NoiseConfig, batch: int, key: Key) -> _Drawn:
        random = generator(*key)
        flip = random.random(batch) if noise.flip else None
        affine = random.uniform(-1, 1, (5, batch)) if noise.shift or noise.zoom or noise.rotate else None
        return cls(flip, affine, *draw_operations(noise, batch, random))


def draw_noise(noise: NoiseConfig, batch: int, side_px: int, *keys: Key) -> NoiseDraws:
    """The noise of one batch a key, end to end; every image's is independent of the others'.

    What is drawn is a function of each key alone; what follows from it is worked out for all batches at once.
    """
    drawn = [_Drawn.of(noise, batch, key) for key in keys]
    flips = [each.flip for each in drawn if each.flip is not None]
    affine = [each.affine for each in drawn if each.affine is not None]
    return NoiseDraws(
        matrix=_affine(np.concatenate(affine, axis=1), noise, side_px) if affine else None,
        flip=np.concatenate(flips) < 0.5 if flips else None,
        operation=np.concatenate([each.operation for each in drawn]),
        strength=np.concatenate([each.strength for each in drawn]),
    )


def draw_operations(noise: NoiseConfig, batch: int, random: np.random.Generator) -> tuple[Integers, Floats]:
    """RandAugment: the operations of each image, (b, n), with replacement, and the strength of each, (b, n).

    The magnitude is the same for all, as in the paper, unless ``magnitude_spread`` lets it vary (timm's ``mstd``).
    """
    shape = (batch, noise.operations)
    operation = random.integers(NUM_OPERATIONS, size=shape)
    negative = random.random(shape) < 0.5
    magnitude = np.full(shape, float(noise.magnitude))
    if noise.magnitude_spread:
        magnitude = np.clip(random.normal(magnitude, noise.magnitude_spread), 0, 10)
    return operation, strengths(operation, magnitude, negative)


def strengths(operation: Integers, magnitude: Floats, negative: npt.NDArray[np.bool_]) -> Floats:
    """What a magnitude of 0..10 means for each operation, as in ``_RANGES``; those with a sign take ``negative``."""
    sign = np.where(negative, 1 - 2 * _SIGNED[operation], 1.0)
    found = _AT_ZERO[operation] + sign * _ADDED[operation] * magnitude / 10
    whole: Floats = np.where(operation == POSTERIZE, np.rint(found), found)
    return whole


def operation_matrix(operation: Integers, strength: Floats, height_px: int, width_px: int) -> Floats:
    """(m, 2, 3): like `NoiseDraws.matrix`, of m operations that move pixels.

    The places are those of Pillow's ``Image.rotate`` and ``Image.transform``, which the papers use: a rotation turns
    around the centre, and a shear leaves the upper or the left edge in its place. A translation is by whole pixels.
    """
    angle, shear_x, shear_y, right, down = (np.where(operation == kind, strength, 0.0) for kind in MOVES)
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    centre_x, centre_y = (width_px - 1) / 2, (height_px - 1) / 2
    # The edge that a shear leaves in its place is half a pixel before the centres of the first pixels.
    offset_x = (1 - cos) * centre_x + sin * centre_y + shear_x / 2 + np.rint(width_px * right)
    offset_y = (1 - cos) * centre_y - sin * centre_x + shear_y / 2 + np.rint(height_px * down)
    return np.stack([np.stack([cos, shear_x - sin, offset_x], -1), np.stack([shear_y + sin, cos, offset_y], -1)], -2)


def _affine(u: Floats, noise: NoiseConfig, side_px: int) -> Floats:
    return affine_matrix(
        side_px,
        shift_px=np.trunc(noise.shift * side_px * u[:2].T),
        scale=1 + noise.zoom * u[2:4].T,
        rotate=noise.rotate * u[4],
    )


def affine_matrix(side_px: int, *, shift_px: Floats, scale: Floats, rotate: Floats) -> Floats:
    """(..., 2, 3) from places in the result to places in the image: scaled, rotated, then shifted.

    ``shift_px`` and ``scale`` are (..., 2) for x and y, ``rotate`` (...) degrees; the centre of the image is what they
    turn around.
    """
    cos, sin = np.cos(np.deg2rad(rotate)), np.sin(np.deg2rad(rotate))
    turn = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)
    inverse = np.linalg.inv(turn * scale[..., None, :])
    centre = side_px / 2 - 0.5
    offset = centre - (inverse @ (centre + shift_px)[..., None])
    return np.concatenate([inverse, offset], axis=-1)
