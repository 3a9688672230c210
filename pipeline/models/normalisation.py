"""Which layers normalise what passes through a network: torch's, and those that only timm has. And what batch
normalisation knows of the activations, estimated anew for weights that no training has come by.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial

import torch
from nstudent.models.precision import in_full
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

with warnings.catch_warnings():
    # torch deprecates what timm decorates at import; nothing here uses it.
    warnings.simplefilter("ignore")
    from timm.layers import (
        EvoNorm2dB0,
        EvoNorm2dB1,
        EvoNorm2dB2,
        EvoNorm2dS0,
        EvoNorm2dS1,
        EvoNorm2dS2,
        FilterResponseNormAct2d,
        FilterResponseNormTlu2d,
        FrozenBatchNormAct2d,
        InplaceAbn,
        RmsNorm,
        RmsNorm2d,
        RmsNorm2dFp32,
        RmsNormFp32,
        SimpleNorm,
        SimpleNorm2d,
        SimpleNorm2dFp32,
        SimpleNormFp32,
    )
    from timm.models.mlp_mixer import Affine

_OF_TORCH = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""The first is the batch and instance normalisation of any number of dimensions."""
_OF_TIMM = (
    *(RmsNorm, RmsNormFp32, RmsNorm2d, RmsNorm2dFp32, SimpleNorm, SimpleNormFp32, SimpleNorm2d, SimpleNorm2dFp32),
    *(EvoNorm2dB0, EvoNorm2dB1, EvoNorm2dB2, EvoNorm2dS0, EvoNorm2dS1, EvoNorm2dS2),
    *(FilterResponseNormAct2d, FilterResponseNormTlu2d, FrozenBatchNormAct2d, InplaceAbn),
    # What ResMLP has in place of a normalisation: its scales and shifts alone.
    Affine,
)
"""Normalisations that torch has not. The responses of GRN are a layer of their own between two convolutions."""


def is_normalisation(layer: nn.Module) -> bool:
    """Whether a layer normalises its input, or only has the scales and shifts of such a layer."""
    return isinstance(layer, (*_OF_TORCH, *_OF_TIMM))


_OF_BATCHES = (_BatchNorm, EvoNorm2dB0, EvoNorm2dB1, EvoNorm2dB2, InplaceAbn)
"""Normalisations that keep the statistics of batches. A frozen one has some, too, which are weights like any others."""


class _Moments:
    """Mean and sum of squared deviations of what a layer was given, by channel, float64 (channels,)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.float64)
        self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, activations: Tensor) -> None:
        """Take in a batch, (images, channels, ...), by the pairwise rule of Chan et al. (1979)."""
        exact = in_full(activations)
        variance, mean = torch.var_mean(exact, dim=[0, *range(2, exact.ndim)], correction=0)
        count = exact.numel() // exact.shape[1]
        away, total = mean.cpu().double() - self.mean, self.count + count
        self.mean = self.mean + away * (count / total)
        self.squares = self.squares + variance.cpu().double() * count + away**2 * (self.count * count / total)
        self.count = total


@torch.no_grad()
def estimate_statistics(network: nn.Module, batches: Callable[[], Iterable[Tensor]]) -> None:
    """Give the batch normalisations of a network the mean and variance of what they are given for some images.

    The images go through the network once, in batches that normalise by themselves, as in training; dropout and
    stochastic depth are off. Mean and variance are those over all images together, in double precision ("PreciseBN",
    Wu & Johnson, arXiv 2105.07576, section 3), so that the first such layer does not depend on the batches at all, and
    later ones only by what the layers before them make of a batch.

    Args:
        network: Is left in evaluation mode. Without such a layer it is not called.
        batches: Gives the images, each (images, 3, side, side) in 0..1 on the network's device, two or more a batch.
    """
    found = {layer: _Moments() for layer in network.eval().modules() if _keeps_statistics(layer)}
    if not found:
        return
    counters = [(each, each.clone()) for layer in found for each in layer.buffers() if not each.is_floating_point()]

    def look(moments: _Moments, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        moments.add(inputs[0])

    hooks = [layer.train().register_forward_pre_hook(partial(look, moments)) for layer, moments in found.items()]
    try:
        for images in batches():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
        network.eval()
    for layer, moments in found.items():
        for name, value in (("mean", moments.mean), ("var", moments.squares / max(1, moments.count - 1))):
            if isinstance(kept := getattr(layer, f"running_{name}", None), Tensor):
                kept.copy_(value)
    for counter, before in counters:
        counter.copy_(before)


def _keeps_statistics(layer: nn.Module) -> bool:
    return isinstance(layer, _OF_BATCHES) and isinstance(getattr(layer, "running_var", None), Tensor)
