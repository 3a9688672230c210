"""Images painted over in part, a batch at a time, on the device that trains.

Random erasing (Zhong et al., arXiv 1708.04896): in some images a rectangle of 2 to 20 % of the area, in one random
colour. Cutout (DeVries & Taylor, arXiv 1708.04552): in every image a square of one size, in grey, whose centre may be
any pixel, so that part of it may lie outside. FixMatch (arXiv 2001.07685) ends with a Cutout of half the side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from nstudent.data.transfer import array_sent
from nstudent.noise.draws import GREY
from nstudent.randomness import Key, generator
from torch import Tensor

_SHARE, _RATIO = (0.02, 0.2), (0.3, 3.3)
"""Ranges that random erasing draws from: share of the image's area, and ratio of width to height."""


@dataclass(frozen=True)
class Holes:
    """Where the images of a batch are painted over, and with what."""

    hole: npt.NDArray[np.int64]
    """(b, 4): left, top, right and bottom of the rectangle, the last two not in it; all zero: none."""
    colour: npt.NDArray[np.uint8]
    """(b, 3)."""


class Painting:
    """Paints over a part of some images, decided by a key alone."""

    def __init__(self, draw: Callable[[int, int, Key], Holes]) -> None:
        """Make the step from a function (images of a batch, their side in pixels, key) -> the holes of the batch."""
        self._draw = draw

    def __call__(self, images: Tensor, key: Key, places: npt.NDArray[np.int64], batch: int) -> Tensor:
        """uint8 (b, side, side, 3) -> the same shape: those at ``places`` of a whole ``batch``, however it is divided.

        The images that are given stay as they are.
        """
        return self.together(images, [key], places, batch)

    def together(self, images: Tensor, keys: Sequence[Key], places: npt.NDArray[np.int64], batch: int) -> Tensor:
        """The same for several batches that lie end to end, uint8 (keys * b, side, side, 3), each with its own key."""
        drawn = [self._draw(batch, images.shape[1], key) for key in keys]
        hole, colour = (np.concatenate([getattr(each, name)[places] for each in drawn]) for name in ("hole", "colour"))
        return erased(images, Holes(hole, colour))


def erasing(probability: float) -> Painting:
    """Random erasing of an image with this probability."""
    return Painting(partial(draw_holes, probability))


def cutout(share: float) -> Painting:
    """Cutout of a square whose side is this share of the image's."""
    return Painting(partial(draw_squares, share))


def draw_holes(probability: float, batch: int, side_px: int, key: Key) -> Holes:
    """The rectangles of random erasing of the batch with this key; every image's is independent of the others'."""
    random = generator(*key)
    chosen = random.random(batch) < probability
    area = random.uniform(*_SHARE, batch) * side_px**2
    ratio = random.uniform(*_RATIO, batch)
    height, width = (np.rint(np.sqrt(sides)).astype(np.int64) for sides in (area / ratio, area * ratio))
    top, left = (random.integers(0, side_px - size + 1) for size in (height, width))
    hole = np.stack([left, top, left + width, top + height], axis=1) * chosen[:, None]
    return Holes(hole, random.integers(0, 256, (batch, 3), dtype=np.uint8))


def draw_squares(share: float, batch: int, side_px: int, key: Key) -> Holes:
    """The squares of Cutout of the batch with this key; every image's is independent of the others'."""
    size = round(share * side_px)
    first = generator(*key).integers(0, side_px, (batch, 2)) - size // 2
    hole = np.concatenate([first, first + size], axis=1).clip(0, side_px)
    return Holes(hole, np.full((batch, 3), GREY, np.uint8))


def erased(images: Tensor, holes: Holes) -> Tensor:
    """The images, uint8 (b, side, side, 3), with their holes."""
    rows = np.flatnonzero((holes.hole[:, :2] < holes.hole[:, 2:]).all(axis=1))
    if not len(rows):
        return images
    index, colour = (array_sent(array, images.device) for array in (rows, holes.colour[rows]))
    left, top, right, bottom = array_sent(holes.hole[rows], images.device).T[..., None]
    at = torch.arange(images.shape[1], device=images.device)
    inside = ((at >= top) & (at < bottom))[:, :, None] & ((at >= left) & (at < right))[:, None, :]
    painted = torch.where(inside[..., None], colour[:, None, None, :], images.index_select(0, index))
    return images.index_copy(0, index, painted)
