"""The noise of a whole batch, drawn at once on the host: what `image_noise.py` draws image by image, as arrays.

The distributions are those of `image_noise.py`, number for number: tests compare the two. A batch's noise is a
function of one key, of a step, so that no two steps share noise and nothing has a past.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nstudent.config.schema import NoiseConfig
from nstudent.randomness import Key, generator

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

NOTHING, AUTOCONTRAST, EQUALIZE, POSTERIZE, SOLARIZE, SATURATION = range(6)
CONTRAST, BRIGHTNESS, SHARPEN, ROTATE, SHEAR, TRANSLATE = range(6, 12)
NUM_OPERATIONS = 12
"""In the order in which an image undergoes those it has drawn, which is the order of the list in `image_noise.py`."""

_ROTATE_DEGREES, _SHEAR_DEGREES, _TRANSLATE_SHARE = 30.0, 17.0, 0.3


@dataclass(frozen=True)
class NoiseDraws:
    """What happens to each image of a batch. ``b`` images, ``n`` operations each."""

    matrix: Floats | None
    """(b, 2, 3): from a pixel (x, y, 1) of the result to the place in the image that it shows; ``None``: it stays."""
    flip: npt.NDArray[np.bool_] | None
    """(b,): mirrored left and right, before anything else."""
    operation: Integers
    """(b, n): ascending in each row."""
    strength: Floats
    """(b, n): bits, threshold, factor or share, as the operation means it."""
    moves: Floats
    """(b, n, 2, 3): like ``matrix``, for the operations that move pixels."""


@dataclass(frozen=True)
class _Drawn:
    """What a generator gives for one batch, in this order."""

    flip: Floats | None
    affine: Floats | None
    """(5, b), in -1..1."""
    operation: Integers
    level: Floats

    @classmethod
    def of(cls, noise: NoiseConfig, batch: int, key: Key) -> _Drawn:
        random = generator(*key)
        return cls(
            flip=random.random(batch) if noise.flip else None,
            affine=random.uniform(-1, 1, (5, batch)) if noise.shift or noise.zoom or noise.rotate else None,
            operation=random.integers(NUM_OPERATIONS, size=(batch, noise.operations)),
            level=random.random((batch, noise.operations, 2)),
        )


def draw_noise(noise: NoiseConfig, batch: int, side_px: int, *keys: Key) -> NoiseDraws:
    """The noise of one batch a key, end to end; every image's is independent of the others'.

    What is drawn is a function of each key alone; what follows from it is worked out for all batches at once.
    """
    drawn = [_Drawn.of(noise, batch, key) for key in keys]
    operation = np.sort(np.concatenate([each.operation for each in drawn]), axis=1)
    level = np.concatenate([each.level for each in drawn])
    flips = [each.flip for each in drawn if each.flip is not None]
    affine = [each.affine for each in drawn if each.affine is not None]
    return NoiseDraws(
        matrix=_affine(np.concatenate(affine, axis=1), noise, side_px) if affine else None,
        flip=np.concatenate(flips) < 0.5 if flips else None,
        operation=operation,
        strength=_strength(operation, level[..., 0], noise.magnitude / 10),
        moves=_moves(operation, 2 * level - 1, side_px, noise.magnitude / 10),
    )


def _affine(u: Floats, noise: NoiseConfig, side_px: int) -> Floats:
    batch = u.shape[1]
    return affine_matrix(
        side_px,
        shift_px=np.trunc(noise.shift * side_px * u[:2].T),
        scale=1 + noise.zoom * u[2:4].T,
        rotate=noise.rotate * u[4],
        shear=np.zeros((batch, 2)),
    )


def affine_matrix(side_px: int, *, shift_px: Floats, scale: Floats, rotate: Floats, shear: Floats) -> Floats:
    """(..., 2, 3) from places in the result to places in the image: scaled, rotated, sheared, then shifted.

    ``shift_px``, ``scale`` and ``shear`` (degrees) are (..., 2) for x and y, ``rotate`` (...) degrees; the centre of
    the image is what they turn around.
    """
    cos, sin = np.cos(np.deg2rad(rotate)), np.sin(np.deg2rad(rotate))
    turn = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)
    tilt = np.zeros_like(turn)
    tilt[..., 0, 0] = tilt[..., 1, 1] = 1.0
    tilt[..., 0, 1], tilt[..., 1, 0] = np.moveaxis(np.tan(np.deg2rad(shear)), -1, 0)
    inverse = np.linalg.inv((tilt @ turn) * scale[..., None, :])
    centre = side_px / 2 - 0.5
    offset = centre - (inverse @ (centre + shift_px)[..., None])
    return np.concatenate([inverse, offset], axis=-1)


def _strength(operation: Integers, level: Floats, strength: float) -> Floats:
    """(b, n): where between the ends of its operation's range each draw lies."""
    colour = 0.9 * strength
    low, high = np.zeros(NUM_OPERATIONS), np.zeros(NUM_OPERATIONS)
    low[POSTERIZE], high[POSTERIZE] = 8 - round(4 * strength), 9
    low[SOLARIZE], high[SOLARIZE] = 255 * (1 - 0.5 * strength), 255
    for each in (SATURATION, CONTRAST, BRIGHTNESS):
        low[each], high[each] = 1 - colour, 1 + colour
    high[SHARPEN] = colour
    drawn = low[operation] + level * (high - low)[operation]
    return np.where(operation == POSTERIZE, np.floor(drawn), drawn)


def _moves(operation: Integers, sign: Floats, side_px: int, strength: float) -> Floats:
    """(b, n, 2, 3), from ``sign``, (b, n, 2) in -1..1; zeros where an operation moves nothing."""
    moves = np.zeros((*operation.shape, 2, 3))
    moving = np.isin(operation, (ROTATE, SHEAR, TRANSLATE))
    operation, sign = operation[moving], sign[moving]
    pair = operation[..., None]
    moves[moving] = affine_matrix(
        side_px,
        shift_px=np.where(pair == TRANSLATE, np.trunc(_TRANSLATE_SHARE * strength * side_px * sign), 0.0),
        scale=np.ones_like(sign),
        rotate=np.where(operation == ROTATE, _ROTATE_DEGREES * strength * sign[..., 0], 0.0),
        shear=np.where(pair == SHEAR, _SHEAR_DEGREES * strength * sign, 0.0),
    )
    return moves
