"""Shortening a gradient that is too long, before the optimiser takes it in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from nstudent.config.schema import TrainingConfig
from nstudent.models.network import is_of_classifier
from nstudent.tables import chosen
from timm.utils import adaptive_clip_grad
from torch import Tensor, nn

_AGC_FACTOR = 0.01
_SHORTEST_ROW = 1e-3
"""Length that a row of weights counts as at least, so that one that starts at zero can learn (eps in the paper)."""

Weights = Mapping[str, nn.Parameter]
"""The weights of a network, by name: a clip that leaves out the classifier asks ``is_of_classifier`` of the name."""


class Clip(Protocol):
    """Shortens the gradient that lies at the weights of one network."""

    def __call__(self) -> Tensor:
        """Shorten it; returns a scalar, the norm that the gradient of all weights had before.

        The norm is what says whether a step is finite (``training/finite.py``): it is taken of all weights, also of
        those that are not shortened. On a GPU the call may not wait for a number, or no step could be recorded.
        """


class NormClip:
    """Shortens the gradient to a norm, all weights by the same factor (Pascanu et al., arXiv 1211.5063)."""

    def __init__(self, weights: Weights, limit: float | None) -> None:
        """``limit``: largest norm; ``None``: the norm is measured, and nothing is shortened."""
        self._weights = list(weights.values())
        self._limit = math.inf if limit is None else limit
        self._on_cpu = self._weights[0].device.type == "cpu"

    def __call__(self) -> Tensor:
        """Shorten the gradient where it is longer than the limit; returns the norm that it had before."""
        norm = _norm_of(self._weights)
        # To look at the norm is to wait for a GPU; a CPU saves the way through all gradients.
        if self._limit < math.inf and not (self._on_cpu and bool(norm <= self._limit)):
            nn.utils.clip_grads_with_norm_(self._weights, self._limit, norm, foreach=True if self._on_cpu else None)
        return norm


class AdaptiveClip:
    """Shortens each row of a gradient to a share of the row of weights (Brock et al., arXiv 2102.06171, equation 3).

    A row holds what leads to one output: of a convolution all numbers of one filter. Biases and scales are one row
    each. What gives the logits is left alone, as section 4.1 of the paper has it.
    """

    def __init__(self, weights: Weights, factor: float) -> None:
        """``factor``: largest length of a row's gradient, as a share of the row's own, which counts as 1e-3 or more."""
        self._weights = list(weights.values())
        self._clipped = [weight for name, weight in weights.items() if not is_of_classifier(name)]
        self._factor = factor

    def __call__(self) -> Tensor:
        """Shorten the rows that are too long; returns the norm that the gradient of all weights had before."""
        norm = _norm_of(self._weights)
        adaptive_clip_grad(self._clipped, clip_factor=self._factor, eps=_SHORTEST_ROW)
        return norm


def _norm_of(weights: Sequence[nn.Parameter]) -> Tensor:
    """Scalar: length of the gradient of all weights."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    # On a CPU torch would go through the weights one by one in Python, unless it is told.
    return nn.utils.get_total_norm(gradients, foreach=True if weights[0].device.type == "cpu" else None)


CLIPS: dict[str, Callable[[Weights, TrainingConfig], Clip]] = {
    "norm": lambda weights, config: NormClip(weights, config.clip_norm),
    "agc": lambda weights, config: AdaptiveClip(
        weights, _AGC_FACTOR if config.agc_factor is None else config.agc_factor
    ),
}
"""By the name in the configuration (``clip``); the keys that are a clip's own stand there too."""


def build_clip(network: nn.Module, config: TrainingConfig) -> Clip:
    """Make the clip that a configuration names, for the weights of a network on its device.

    Raises:
        ConfigError: There is no clip of that name.
    """
    return chosen(CLIPS, config.clip, "clip")(dict(network.named_parameters()), config)
