"""Random erasing (Zhong et al., arXiv 1708.04896) of a batch, on the device that trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from nstudent.data.transfer import array_sent
from nstudent.randomness import Key, generator
from torch import Tensor

_SHARE, _RATIO = (0.02, 0.2), (0.3, 3.3)
"""Ranges that are drawn from: share of the image's area, and ratio of width to height."""


@dataclass(frozen=True)
class Holes:
    """Where the images of a batch are painted over, and with what."""

    hole: npt.NDArray[np.int64]
    """(b, 4): left, top, right and bottom of the rectangle, the last two not in it; all zero: none."""
    colour: npt.NDArray[np.uint8]
    """(b, 3)."""


class Erasing:
    """Paints over a rectangle of some images, decided by a key alone."""

    def __init__(self, probability: float) -> None:
        self._probability = probability

    def __call__(self, images: Tensor, key: Key, places: npt.NDArray[np.int64], batch: int) -> Tensor:
        """uint8 (b, side, side, 3) -> the same shape: those at ``places`` of a whole ``batch``, however it is divided.

        The images that are given stay as they are.
        """
        return self.together(images, [key], places, batch)

    def together(self, images: Tensor, keys: Sequence[Key], places: npt.NDArray[np.int64], batch: int) -> Tensor:
        """The same for several batches that lie end to end, uint8 (keys * b, side, side, 3), each with its own key."""
        drawn = [draw_holes(self._probability, batch, images.shape[1], key) for key in keys]
        hole, colour = (np.concatenate([getattr(each, name)[places] for each in drawn]) for name in ("hole", "colour"))
        return erased(images, Holes(hole, colour))


def draw_holes(probability: float, batch: int, side_px: int, key: Key) -> Holes:
    """The rectangles of the batch with this key; every image's is independent of the others'."""
    random = generator(*key)
    chosen = random.random(batch) < probability
    area = random.uniform(*_SHARE, batch) * side_px**2
    ratio = random.uniform(*_RATIO, batch)
    height, width = (np.rint(np.sqrt(sides)).astype(np.int64) for sides in (area / ratio, area * ratio))
    top, left = (random.integers(0, side_px - size + 1) for size in (height, width))
    hole = np.stack([left, top, left + width, top + height], axis=1) * chosen[:, None]
    return Holes(hole, random.integers(0, 256, (batch, 3), dtype=np.uint8))


def erased(images: Tensor, holes: Holes) -> Tensor:
    """The images, uint8 (b, side, side, 3), with their holes."""
    rows = np.flatnonzero(holes.hole[:, 2] > 0)
    if not len(rows):
        return images
    index, colour = (array_sent(array, images.device) for array in (rows, holes.colour[rows]))
    left, top, right, bottom = array_sent(holes.hole[rows], images.device).T[..., None]
    at = torch.arange(images.shape[1], device=images.device)
    inside = ((at >= top) & (at < bottom))[:, :, None] & ((at >= left) & (at < right))[:, None, :]
    painted = torch.where(inside[..., None], colour[:, None, None, :], images.index_select(0, index))
    return images.index_copy(0, index, painted)
