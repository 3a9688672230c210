"""Gradient orientations of an image, pooled in cells: features that are fixed, and not learnt from anything."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from nstudent.config.members import GRADIENTS_PX
from nstudent.models.resizing import resized
from torch import Tensor, nn


class _Cells(NamedTuple):
    """How a map is pooled into cells that overlap by half; all in pixels."""

    window: int
    stride: int
    padding: int


_SCALES = (_Cells(4, 2, 1), _Cells(8, 4, 2))
_ORIENTATIONS = 9
_LEAST_NORM = 0.03
"""Added to the norm of a cell: where there is next to no gradient, noise is not made large."""
_COLOUR_CELL_PX = 4
_COLOUR_WEIGHT = 1.3 / 8


class Gradients(nn.Module):
    """Histograms of gradient orientations at two sizes of cells, and a thumbnail.

    After Dalal & Triggs (CVPR 2005, doi:10.1109/CVPR.2005.177): nine unsigned orientations, each gradient shared by the
    two next to it, cells of 4 and of 8 pixels that overlap by half, each divided by its norm. The square root makes
    distances those of Hellinger. Each scale has the norm 1, so that they count alike.
    """

    width = _ORIENTATIONS * (16**2 + 8**2) + 3 * 8**2
    """Number of features."""

    def forward(self, images: Tensor) -> Tensor:
        """float32 (b, 3, side, side) in 0..1 -> float32 (b, features)."""
        images = resized(images, GRADIENTS_PX)
        maps = _oriented(_smoothed(images))
        scales = [_cells(maps, cells) for cells in _SCALES]
        thumbnail = F.avg_pool2d(images, _COLOUR_CELL_PX).flatten(1) * (_COLOUR_WEIGHT / math.sqrt(3))
        return torch.cat([*scales, thumbnail], dim=1)


def _smoothed(images: Tensor) -> Tensor:
    """Half of each pixel, and half of the mean around it."""
    around = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return (images + around) / 2


def _oriented(images: Tensor) -> Tensor:
    """The strength of the gradient in each orientation, (b, orientations, side, side): of the colour where it is
    strongest."""
    across, down = torch.zeros_like(images), torch.zeros_like(images)
    across[..., 1:-1] = images[..., 2:] - images[..., :-2]
    down[..., 1:-1, :] = images[..., 2:, :] - images[..., :-2, :]
    strength, colour = (across**2 + down**2).max(dim=1, keepdim=True)
    across, down = across.gather(1, colour), down.gather(1, colour)
    # Unsigned: an edge from dark to light counts as one from light to dark.
    angle = torch.remainder(torch.atan2(down, across) * (_ORIENTATIONS / math.pi), _ORIENTATIONS)
    away = (angle - torch.arange(_ORIENTATIONS, device=images.device).reshape(1, -1, 1, 1)).abs()
    share = (1 - torch.minimum(away, _ORIENTATIONS - away)).clamp_min_(0)
    return strength.sqrt() * share


def _cells(maps: Tensor, cells: _Cells) -> Tensor:
    """The cells of one scale, (b, features), with norm 1."""
    pooled = F.avg_pool2d(maps, cells.window, cells.stride, cells.padding)
    pooled = pooled / (pooled.norm(dim=1, keepdim=True) + _LEAST_NORM)
    return F.normalize(pooled.clamp_min(0).sqrt().flatten(1), dim=1)
