"""Noise on a whole batch of small images, on the device that trains: what `image_noise.py` does one image at a time.

A GPU learns from small images faster than processes can noise them one by one, and a CPU spends more on the calls than
on the pixels. So all of a batch's noise is drawn at once, and each operation is applied to the images that drew it.
Nothing here waits for the device: which image undergoes what is known on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from nstudent.config.schema import NoiseConfig
from nstudent.data.transfer import array_sent
from nstudent.noise.draws import (
    AUTOCONTRAST,
    BRIGHTNESS,
    CONTRAST,
    EQUALIZE,
    NOTHING,
    POSTERIZE,
    ROTATE,
    SATURATION,
    SHARPEN,
    SHEAR,
    SOLARIZE,
    TRANSLATE,
    NoiseDraws,
    draw_noise,
)
from nstudent.randomness import Key
from torch import Tensor

_Rows = slice | npt.NDArray[np.int64]

_TABLES = (POSTERIZE, SOLARIZE, BRIGHTNESS, AUTOCONTRAST, EQUALIZE, CONTRAST)
"""Operations that give each value of a channel a new one, wherever it stands."""
_PLACE = np.argsort([*_TABLES, SATURATION, SHARPEN, ROTATE, SHEAR, TRANSLATE, NOTHING])
"""By operation: where in this order it stands."""
_GROUP_ENDS = (6, 7, 8, 11)
"""Ends, in that order, of what is done in the same way: tables, saturation, sharpening, moves."""
_GREY = (0.299, 0.587, 0.114)


class BatchNoise:
    """Noise for a batch of images, decided by a key alone."""

    def __init__(self, noise: NoiseConfig) -> None:
        self._noise = noise

    def __call__(self, images: Tensor, key: Key, places: _Rows = slice(None), batch: int | None = None) -> Tensor:
        """uint8 (b, side, side, 3) -> the same shape, on the same device. Equal keys give equal noise.

        Where several processes share a batch, ``images`` are those at ``places`` of a whole ``batch``: an image's noise
        does not depend on how it is divided.
        """
        return self.together(images, [key], places, len(images) if batch is None else batch)

    def together(self, images: Tensor, keys: Sequence[Key], places: _Rows, batch: int) -> Tensor:
        """Noise several batches that lie end to end, uint8 (keys * b, side, side, 3), each with its own key.

        The host launches as much as for one. ``places``, (b,), are those of the images in a whole ``batch``.
        """
        draws = draw_noise(self._noise, batch, images.shape[1], *keys)
        here = np.arange(batch)[places]
        return apply_noise(images, _at(draws, np.concatenate([here + batch * number for number in range(len(keys))])))


def _at(draws: NoiseDraws, places: npt.NDArray[np.int64]) -> NoiseDraws:
    parts = {name: part[places] for name, part in vars(draws).items() if part is not None}
    return replace(draws, **parts)


def apply_noise(images: Tensor, draws: NoiseDraws) -> Tensor:
    """The images, uint8 (b, side, side, 3), with what was drawn for them; those given stay as they are."""
    if draws.matrix is not None:
        noised = _warp(images, _mirrored(draws, images.shape[1]))
    elif draws.flip is not None:
        flip = array_sent(draws.flip, images.device)
        noised = torch.where(flip[:, None, None, None], images.flip(2), images)
    else:
        noised = images.clone()
    for turn in range(draws.operation.shape[1]):
        _operate(noised, draws.operation[:, turn], draws.strength[:, turn], draws.moves[:, turn])
    return noised


def _mirrored(draws: NoiseDraws, side_px: int) -> npt.NDArray[np.float64]:
    """The matrices, reading from the mirrored image where it is to be flipped."""
    assert draws.matrix is not None
    if draws.flip is None:
        return draws.matrix
    mirror = np.array([[-1.0], [1.0]]) * draws.matrix + np.array([[0, 0, side_px - 1.0], [0, 0, 0]])
    return np.where(draws.flip[:, None, None], mirror, draws.matrix)


def _operate(
    images: Tensor,
    operation: npt.NDArray[np.int64],
    strength: npt.NDArray[np.float64],
    moves: npt.NDArray[np.float64],
) -> None:
    """One operation an image, in place."""
    # Those that share an operation stand together, so that a slice of them is enough.
    order = np.argsort(_PLACE[operation], kind="stable")
    ends = np.searchsorted(_PLACE[operation[order]], _GROUP_ENDS)
    index = array_sent(order, images.device)

    def change(first: int, last: int, by: Callable[[Tensor, npt.NDArray[np.int64]], Tensor]) -> None:
        if first < last:
            part = index[first:last]
            images.index_copy_(0, part, by(images.index_select(0, part), order[first:last]))

    def level(rows: npt.NDArray[np.int64]) -> Tensor:
        return array_sent(strength[rows].astype(np.float32), images.device)

    change(0, ends[0], lambda part, rows: _look_up(part, operation[rows], strength[rows]))
    change(ends[0], ends[1], lambda part, rows: _saturate(part, level(rows)))
    change(ends[1], ends[2], lambda part, rows: _sharpen(part, level(rows)))
    change(ends[2], ends[3], lambda part, rows: _warp(part, moves[rows]))


def _warp(images: Tensor, matrix: npt.NDArray[np.float64]) -> Tensor:
    """Every pixel of the result from its place in the image, linear between pixels, mirrored at the border."""
    side = images.shape[1]
    # To the units of grid_sample: -1 is the centre of the first pixel, 1 that of the last.
    unit = 2 / (side - 1) * matrix - np.array([[0, 0, 1.0], [0, 0, 1.0]])
    m = array_sent(unit.astype(np.float32), images.device)[..., None, None]
    at = torch.arange(side, dtype=torch.float32, device=images.device)
    columns, rows = at[None, None, None, :], at[None, None, :, None]
    grid = m[:, :, 0] * columns + (m[:, :, 1] * rows + m[:, :, 2])
    warped = F.grid_sample(
        _channels_first(images), grid.permute(0, 2, 3, 1), padding_mode="reflection", align_corners=True
    )
    return warped.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _channels_first(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def _look_up(images: Tensor, operation: npt.NDArray[np.int64], strength: npt.NDArray[np.float64]) -> Tensor:
    """Operations that are a table per image and channel; rows in the order of ``_TABLES``."""
    device, count = images.device, [int((operation == kind).sum()) for kind in _TABLES]
    fixed, spread, contrast = sum(count[:3]), sum(count[3:5]), count[5]
    tables = [array_sent(_fixed_tables(operation[:fixed], strength[:fixed]), device)[:, None].expand(-1, 3, -1)]
    if spread:
        tables.append(_equalizing_tables(images[fixed : fixed + spread], without_white=count[3]))
    if contrast:
        factor = array_sent(strength[fixed + spread :].astype(np.float32), device)
        tables.append(_contrast_tables(images[fixed + spread :], factor)[:, None].expand(-1, 3, -1))
    # Where in the row of all tables that of each image and channel begins.
    begin = 256 * torch.arange(3 * len(images), device=device).reshape(-1, 1, 1, 3)
    return torch.cat(tables).reshape(-1).take(images + begin)


def _fixed_tables(operation: npt.NDArray[np.int64], strength: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """(m, 256) of posterize, solarize and brightness, which do not depend on the image."""
    values, s = np.arange(256), strength[:, None]
    kept = np.where(operation == POSTERIZE, strength, 8).astype(np.int64)[:, None]
    posterized = values & (256 - 2 ** (8 - kept))
    solarized = np.where(values >= s, 255 - values, values)
    brightened = np.minimum(np.float32(s) * np.float32(values), 255)
    chosen = np.where(operation[:, None] == POSTERIZE, posterized, solarized)
    return np.where(operation[:, None] == BRIGHTNESS, brightened, chosen).astype(np.uint8)


def _equalizing_tables(images: Tensor, without_white: int) -> Tensor:
    """(m, 3, 256) that spread the values evenly; white counts for nothing in the first ``without_white`` images."""
    values = images.permute(0, 3, 1, 2).flatten(2).long()
    # An integer sum: the order in which a GPU adds does not matter.
    histogram = values.new_zeros((*values.shape[:2], 256)).scatter_add_(2, values, torch.ones_like(values))
    histogram[:without_white, :, 255] = 0
    below = histogram.cumsum(2)
    total = below[..., -1:]
    first = histogram.gather(2, (histogram > 0).byte().argmax(2, keepdim=True))
    spread = ((below - first).float() * (255 / (total - first).float())).round().clamp(0, 255)
    return torch.where(total > first, spread, torch.arange(256, device=images.device)).to(torch.uint8)


def _contrast_tables(images: Tensor, factor: Tensor) -> Tensor:
    """(m, 256) that bring values nearer to the image's mean grey, or away from it."""
    mean = _grey(images.float()).mean(dim=(1, 2, 3))
    values = torch.arange(256, dtype=torch.float32, device=images.device)
    return (values * factor[:, None] + (mean * (1 - factor))[:, None]).clamp(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(3)
    return (_GREY[0] * red + _GREY[1] * green + _GREY[2] * blue).round()[..., None]


def _saturate(images: Tensor, factor: Tensor) -> Tensor:
    colour = images.float()
    return torch.lerp(_grey(colour), colour, factor[:, None, None, None]).round_().clamp_(0, 255).to(torch.uint8)


def _sharpen(images: Tensor, share: Tensor) -> Tensor:
    """Mixed by ``share`` with nine times itself less its eight neighbours."""
    values, share = _channels_first(images), share[:, None, None, None]
    around = 9 * F.avg_pool2d(F.pad(values, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    sharp = (values * (1 + 9 * share) - share * around).round_().clamp_(0, 255)
    return sharp.to(torch.uint8).permute(0, 2, 3, 1)
