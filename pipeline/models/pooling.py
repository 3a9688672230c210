"""How the distributions of several members become one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Pooling = Callable[[Sequence[Tensor], Sequence[float] | None], Tensor]
"""Distributions of one level, float32 (images, outputs), of every member, and the weights of their votes (``None``: all
count the same), to one distribution of the same shape."""


_SMALLEST = 1e-12


def tempered(distribution: Tensor, temperature: float) -> Tensor:
    """A distribution to the power 1 / temperature, normalised: what dividing logits by the temperature does.

    Above 1 it becomes less sure, below 1 surer (Guo et al., arXiv 1706.04599), and the order of the classes stays.

    Args:
        distribution: float32 (images, outputs), on any device.
        temperature: Above 0.
    """
    if temperature == 1:
        return distribution
    return distribution.add(_SMALLEST).log_().div_(temperature).softmax(dim=1)


def mean(votes: Sequence[Tensor], weights: Sequence[float] | None) -> Tensor:
    """The mean of the probabilities, (images, outputs) a vote, weighted if there are weights."""
    if len(votes) == 1:
        return votes[0]
    if weights is None or len(set(weights)) == 1:
        return torch.stack(list(votes)).mean(dim=0)
    # Weights stay numbers of the host: to make a tensor of them is to wait for a GPU, at every batch.
    pooled = torch.zeros_like(votes[0])
    for vote, weight in zip(votes, weights, strict=True):
        pooled.add_(vote, alpha=weight / sum(weights))
    return pooled


POOLINGS: dict[str, Pooling] = {"mean": mean}
"""By the name in a recipe."""
