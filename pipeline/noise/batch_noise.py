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
    COLOUR,
    CONTRAST,
    EQUALIZE,
    GREY,
    INVERT,
    MOVES,
    NOTHING,
    NUM_OPERATIONS,
    POSTERIZE,
    SHARPNESS,
    SOLARIZE,
    SOLARIZE_ADD,
    NoiseDraws,
    draw_noise,
    operation_matrix,
)
from nstudent.randomness import Key
from torch import Tensor

_Rows = slice | npt.NDArray[np.int64]

_GROUPS = (
    (INVERT, POSTERIZE, SOLARIZE, SOLARIZE_ADD, BRIGHTNESS),
    (AUTOCONTRAST,),
    (EQUALIZE,),
    (CONTRAST,),
    (COLOUR,),
    (SHARPNESS,),
    MOVES,
    (NOTHING,),
)
"""Operations that are done in the same way. Those of the first four groups give each value of a channel a new one,
wherever it stands: a table. In the first group the table is the same for every image."""
_GROUP_OF = np.array([next(n for n, group in enumerate(_GROUPS) if kind in group) for kind in range(NUM_OPERATIONS)])


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
        _operate(noised, draws.operation[:, turn], draws.strength[:, turn])
    return noised


def _mirrored(draws: NoiseDraws, side_px: int) -> npt.NDArray[np.float64]:
    """The matrices, reading from the mirrored image where it is to be flipped."""
    assert draws.matrix is not None
    if draws.flip is None:
        return draws.matrix
    mirror = np.array([[-1.0], [1.0]]) * draws.matrix + np.array([[0, 0, side_px - 1.0], [0, 0, 0]])
    return np.where(draws.flip[:, None, None], mirror, draws.matrix)


def _operate(images: Tensor, operation: npt.NDArray[np.int64], strength: npt.NDArray[np.float64]) -> None:
    """One operation an image, in place."""
    # Those that are done alike stand together, so that a slice of them is enough.
    group = _GROUP_OF[operation]
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group, minlength=len(_GROUPS)))
    index = array_sent(order, images.device)

    def change(first: int, last: int, by: Callable[[Tensor, npt.NDArray[np.int64]], Tensor]) -> None:
        if first < last:
            part = index[first:last]
            images.index_copy_(0, part, by(images.index_select(0, part), order[first:last]))

    def factor(rows: npt.NDArray[np.int64]) -> Tensor:
        return array_sent(strength[rows].astype(np.float32), images.device)

    def moved(part: Tensor, rows: npt.NDArray[np.int64]) -> Tensor:
        return _warp(part, operation_matrix(operation[rows], strength[rows], *images.shape[1:3]), outside=GREY)

    change(0, ends[3], lambda part, rows: _look_up(part, operation[rows], strength[rows]))
    change(ends[3], ends[4], lambda part, rows: _colour(part, factor(rows)))
    change(ends[4], ends[5], lambda part, rows: _sharpness(part, factor(rows)))
    change(ends[5], ends[6], moved)


def _warp(images: Tensor, matrix: npt.NDArray[np.float64], outside: int | None = None) -> Tensor:
    """Every pixel of the result from its place in the image, linear between pixels.

    ``outside`` is the value of what lies outside of the image; ``None``: the image is mirrored at its border.
    """
    side = images.shape[1]
    # To the units of grid_sample: -1 is the centre of the first pixel, 1 that of the last.
    unit = 2 / (side - 1) * matrix - np.array([[0, 0, 1.0], [0, 0, 1.0]])
    m = array_sent(unit.astype(np.float32), images.device)[..., None, None]
    at = torch.arange(side, dtype=torch.float32, device=images.device)
    columns, rows = at[None, None, None, :], at[None, None, :, None]
    grid = m[:, :, 0] * columns + (m[:, :, 1] * rows + m[:, :, 2])
    values, places = _channels_first(images), grid.permute(0, 2, 3, 1)
    if outside is None:
        warped = F.grid_sample(values, places, padding_mode="reflection", align_corners=True)
    else:
        # grid_sample's own outside is zero.
        warped = F.grid_sample(values.sub_(outside), places, align_corners=True).add_(outside)
    return warped.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _channels_first(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def _look_up(images: Tensor, operation: npt.NDArray[np.int64], strength: npt.NDArray[np.float64]) -> Tensor:
    """Operations that are a table per image and channel; rows in the order of ``_GROUPS``."""
    device = images.device
    fixed, stretched, equalized, _ = np.cumsum(np.bincount(_GROUP_OF[operation], minlength=4))
    tables = [array_sent(_fixed_tables(operation[:fixed], strength[:fixed]), device)[:, None].expand(-1, 3, -1)]
    if fixed < stretched:
        tables.append(_stretching_tables(images[fixed:stretched]))
    if stretched < equalized:
        tables.append(_equalizing_tables(images[stretched:equalized]))
    if equalized < len(images):
        factor = array_sent(strength[equalized:].astype(np.float32), device)
        tables.append(_contrast_tables(images[equalized:], factor)[:, None].expand(-1, 3, -1))
    # Where in the row of all tables that of each image and channel begins.
    begin = 256 * torch.arange(3 * len(images), device=device).reshape(-1, 1, 1, 3)
    return torch.cat(tables).reshape(-1).take(images + begin)


def _fixed_tables(operation: npt.NDArray[np.int64], strength: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """(m, 256) of the operations that do not depend on the image."""
    values, s, kind = np.arange(256), strength[:, None], operation[:, None]
    kept = np.where(operation == POSTERIZE, strength, 8).astype(np.int64)[:, None]
    tables = [
        (INVERT, 255 - values),
        (POSTERIZE, values & (256 - 2 ** (8 - kept))),
        (SOLARIZE, np.where(values >= s, 255 - values, values)),
        (SOLARIZE_ADD, np.where(values < 128, np.minimum(values + s, 255), values)),
        (BRIGHTNESS, np.minimum(np.float32(s) * np.float32(values), 255)),
    ]
    chosen: npt.NDArray[np.float64] = np.select([kind == each for each, _ in tables], [table for _, table in tables])
    return chosen.astype(np.uint8)


def _stretching_tables(images: Tensor) -> Tensor:
    """(m, 3, 256) that make the lowest value of a channel 0 and its highest 255: AutoContrast."""
    values = images.flatten(1, 2).int()
    low, high = values.amin(1)[..., None], values.amax(1)[..., None]
    every = torch.arange(256, dtype=torch.int32, device=images.device)
    # Whole numbers: the same on every device.
    stretched = ((every - low) * 255).div((high - low).clamp(min=1), rounding_mode="floor").clamp(0, 255)
    return torch.where(high > low, stretched, every).to(torch.uint8)


def _equalizing_tables(images: Tensor) -> Tensor:
    """(m, 3, 256) that spread the values of a channel evenly: Equalize, by Pillow's rule, in whole numbers."""
    values = images.permute(0, 3, 1, 2).flatten(2).long()
    # An integer sum: the order in which a GPU adds does not matter.
    histogram = values.new_zeros((*values.shape[:2], 256)).scatter_add_(2, values, torch.ones_like(values))
    highest = histogram.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - highest).div(255, rounding_mode="floor")
    below = histogram.cumsum(2) - histogram
    spread = (below + step // 2).div(step.clamp(min=1), rounding_mode="floor").clamp(max=255)
    return torch.where(step > 0, spread, torch.arange(256, device=images.device)).to(torch.uint8)


def _contrast_tables(images: Tensor, factor: Tensor) -> Tensor:
    """(m, 256) that bring values nearer to the image's mean grey, or away from it."""
    pixels = images.shape[1] * images.shape[2]
    mean = (2 * _grey(images).sum(dim=(1, 2, 3)) + pixels).div(2 * pixels, rounding_mode="floor")[:, None]
    return _blended(mean, torch.arange(256, device=images.device), factor[:, None])


def _grey(images: Tensor) -> Tensor:
    """int32 (m, side, side, 1): the luma of ITU-R 601-2 in whole numbers, as Pillow rounds it."""
    red, green, blue = images.int().unbind(3)
    return (19595 * red + 38470 * green + 7471 * blue + 32768).bitwise_right_shift(16)[..., None]


def _blended(plain: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """uint8 of ``plain`` where ``factor`` is 0, the images where it is 1, and beyond them where it is more."""
    return torch.lerp(plain.float(), images.float(), factor).clamp_(0, 255).to(torch.uint8)


def _colour(images: Tensor, factor: Tensor) -> Tensor:
    return _blended(_grey(images), images, factor[:, None, None, None])


def _sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blended with a smoothed image, whose outermost pixels are not smoothed; images below 3 pixels stay."""
    if images.shape[1] < 3:
        return images
    values = _channels_first(images)
    inner = values[..., 1:-1, 1:-1]
    # A pixel weighs 5, its eight neighbours 1 each.
    smooth = F.avg_pool2d(values, 3, stride=1, divisor_override=1).add_(inner, alpha=4).div_(13).round_()
    sharp = torch.lerp(smooth, inner, factor[:, None, None, None]).clamp_(0, 255)
    inner.copy_(sharp)
    return values.to(torch.uint8).permute(0, 2, 3, 1)
