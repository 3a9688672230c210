"""Images of another size than the one they were loaded in."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resized(images: Tensor, side: int) -> Tensor:
    """float32 (b, 3, height, width) -> (b, 3, side, side), smoothed if they become smaller."""
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
