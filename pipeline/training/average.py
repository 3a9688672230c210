"""The running average of a network's weights, which is what is kept of a training and what labels."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of weights and batch statistics, all of them in one operation a step.

    timm's does the same arithmetic, but walks through the whole network twice a step to find its tensors: for a small
    network that takes as long as the average itself, many times over.
    """

    def __init__(self, network: nn.Module) -> None:
        """Begins as a copy; tensors are followed by identity, so weights have to be loaded into a network in place."""
        self.module = deepcopy(network).eval()
        pairs = list(zip(_tensors(self.module), _tensors(network), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """average <- decay * average + (1 - decay) * network; counters are taken over."""
        average, now = ([pair[i] for pair in self._averaged] for i in (0, 1))
        torch._foreach_lerp_(average, now, weight=1.0 - decay)
        for counter, counted in self._copied:
            counter.copy_(counted)


def _tensors(network: nn.Module) -> list[Tensor]:
    return list(network.state_dict(keep_vars=True).values())
