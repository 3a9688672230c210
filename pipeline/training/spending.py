"""What a training costs, counted where it is spent: never a product of its settings."""

from __future__ import annotations

from nstudent.models.cost import Spent, gmacs
from torch import nn

_FORWARD_AND_BACKWARD = 3
"""Forward passes that one training pass costs: itself, and one each for the gradients of activations and of weights."""


class Spending:
    """Counts what every step of a training costs."""

    def __init__(self, network: nn.Module, *, computes_twice: bool) -> None:
        """``computes_twice``: whether activations are computed once more in the backward pass."""
        self.spent = Spent()
        self._network = network
        self._forwards = _FORWARD_AND_BACKWARD + int(computes_twice)
        self._gmacs: dict[int, float] = {}
        """Multiply-adds of one forward pass, in billions, by the side of the image in pixels."""

    def go_on_from(self, spent: Spent) -> None:
        """Count on from what a training had cost when it was interrupted."""
        self.spent = spent

    def add(self, images: int, side_px: int, *, averaged: int, late_layers_alone: bool = False) -> None:
        """Count a step.

        Args:
            images: Number of images in the whole batch, whichever process has them.
            side_px: Side of the images.
            averaged: Number of images that went through the averaged network, too, without gradient.
            late_layers_alone: Whether only the last layers learn, to which the way back costs next to nothing.
        """
        if side_px not in self._gmacs:
            self._gmacs[side_px] = gmacs([self._network], side_px)
        passes = images * (1 if late_layers_alone else self._forwards) + averaged
        gmacs_now = self.spent.training_gmacs + passes * self._gmacs[side_px]
        self.spent = Spent(self.spent.image_passes + images, gmacs_now)
