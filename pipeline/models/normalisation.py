"""Which layers normalise what passes through a network: torch's, and those that only timm has."""

from __future__ import annotations

import warnings

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

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
"""Those that are no kinds of torch's. The responses of GRN are a layer of their own between two convolutions."""


def is_normalisation(layer: nn.Module) -> bool:
    """Whether a layer normalises its input, or only has the scales and shifts of such a layer."""
    return isinstance(layer, (*_OF_TORCH, *_OF_TIMM))
