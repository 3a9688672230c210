"""The running average of a network's weights, which is what is kept of a training and what labels."""

from __future__ import annotations

from collections.abc import Iterable
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
        self._averaged = _columns(pair for pair in pairs if pair[0].is_floating_point())
        self._copied = _columns(pair for pair in pairs if not pair[0].is_floating_point())

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """average <- decay * average + (1 - decay) * network; counters are taken over."""
        torch._foreach_lerp_(*self._averaged, weight=1.0 - decay)
        # One operation too: a large network counts the batches of more than a hundred layers.
        if self._copied[0]:
            torch._foreach_copy_(*self._copied)


def _columns(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors of the average, and in the same order those of the network."""
    rows = list(pairs)
    return [average for average, _ in rows], [now for _, now in rows]


def _tensors(network: nn.Module) -> list[Tensor]:
    return list(network.state_dict(keep_vars=True).values())
