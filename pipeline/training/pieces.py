"""Looking at images without gradient, in as many pieces as the memory of the device needs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from nstudent.models.device import Placement
from nstudent.models.heads import Logits
from nstudent.models.resizing import resized
from nstudent.training.portions import halved
from nstudent.training.revision import Believe
from torch import Tensor


class InPieces:
    """Asks a network that is not in training about images; where memory is short, about some of them at a time."""

    def __init__(self, sizes: Sequence[int], where: Placement) -> None:
        """Begin with all images at once.

        Args:
            sizes: Number of outputs of the network, a level.
            where: The device that it is on.
        """
        self._sizes = tuple(sizes)
        self._placement = where
        self._pieces = 1

    def __call__(self, believe: Believe, pixels: Tensor, side: int) -> Logits:
        """What a network says of images.

        Args:
            believe: Asks the network, without gradient.
            pixels: uint8 (b, side, side, 3).
            side: Side that they are brought to, in pixels.

        Raises:
            RefusedError: Not even one image fits into the memory.
        """
        if not len(pixels):
            # Of several processes one may have none.
            return tuple(torch.zeros((0, size), device=self._placement.device) for size in self._sizes)
        while True:
            with suppress(torch.OutOfMemoryError):
                size = -(-len(pixels) // self._pieces)
                parts = [believe(resized(self._placement.images(part), side)) for part in torch.split(pixels, size)]
                return tuple(torch.cat(list(level)) for level in zip(*parts, strict=True))
            # Only here: while it is handled, the error's traceback keeps what there was.
            self._pieces = halved(self._pieces, len(pixels), self._placement.device, side)
