"""Heads: pooled features in, logits for every level out."""

from functools import partial
from typing import Protocol

import torch
from nstudent.config.members import HeadName
from nstudent.tables import chosen
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor, nn
from torch.nn.functional import normalize

Logits = tuple[Tensor, ...]
"""Per level, coarse first: (batch, outputs of the level)."""
LAST_LAYERS = "classify"
"""Name, in every head, of the layer or layers that give the logits: what treats a classifier apart goes by it."""


class CascadeHead(nn.Module):
    """Each level projects features of its own, and also reads those of the levels before it, detached.

    With ``fine_to_coarse`` the order starts at the finest level: coarse decisions profit from what tells fine classes
    apart, while their gradients leave the fine features alone ("Your 'Flamingo' is My 'Bird'", arXiv 2011.09040).
    ``coarse_to_fine`` is the reverse: a fine decision is conditioned on what tells coarse classes apart.
    """

    def __init__(self, num_features: int, outputs: Outputs, width: int, *, fine_first: bool) -> None:
        super().__init__()
        num_levels = len(outputs.sizes)
        self._order = tuple(reversed(range(num_levels)) if fine_first else range(num_levels))
        self.project = nn.ModuleList(
            nn.Sequential(nn.Linear(num_features, width), nn.LayerNorm(width), nn.GELU()) for _ in outputs.sizes
        )
        self.classify = nn.ModuleList(
            nn.Linear(width * (self._order.index(level) + 1), size) for level, size in enumerate(outputs.sizes)
        )

    def forward(self, features: Tensor) -> Logits:
        """(batch, features) -> logits per level."""
        logits: dict[int, Tensor] = {}
        read: list[Tensor] = []
        for level in self._order:
            own = self.project[level](features)
            logits[level] = self.classify[level](torch.cat([own, *read], dim=1))
            read.append(own.detach())
        return tuple(logits[level] for level in range(len(self._order)))


class IndependentHead(nn.Module):
    """One linear layer a level, all on the same features."""

    def __init__(self, num_features: int, outputs: Outputs) -> None:
        super().__init__()
        self.classify = nn.ModuleList(nn.Linear(num_features, size) for size in outputs.sizes)

    def forward(self, features: Tensor) -> Logits:
        """(batch, features) -> logits per level."""
        return tuple(layer(features) for layer in self.classify)


class HeadBuilder(Protocol):
    """Anything that makes a head: a module that turns features, (batch, num_features), into ``Logits``.

    The layers that give the logits stand in its attribute ``classify`` (``LAST_LAYERS``).
    """

    def __call__(self, num_features: int, outputs: Outputs, width: int) -> nn.Module:
        """Make a head with random weights, drawn from torch's generator.

        Args:
            num_features: Number of pooled features of the backbones.
            outputs: What the network is to say, and on which tree.
            width: Features that a level projects for itself, if the head has projections.
        """


HEADS: dict[HeadName, HeadBuilder] = {
    "fine_to_coarse": partial(CascadeHead, fine_first=True),
    "coarse_to_fine": partial(CascadeHead, fine_first=False),
    "independent": lambda num_features, outputs, width: IndependentHead(num_features, outputs),
}
"""The heads by their names in the configuration (``head`` of a model): all of those that ``HeadName`` lists."""


def build_head(name: str, num_features: int, outputs: Outputs, width: int) -> nn.Module:
    """Make the head that has this name in the configuration; the parameters are those of ``HeadBuilder``.

    Raises:
        ConfigError: There is no such head; the message lists those that there are.
    """
    return chosen(HEADS, name, "head")(num_features, outputs, width)


def normalised(logits: Logits, temperature: float) -> Logits:
    """LogitNorm (Wei et al., arXiv 2205.09310, equation 5): logits / (temperature * their length), level by level.

    The paper normalises in the loss alone, where the length of the logits is then never learnt. Here the network gives
    normalised logits whenever it is asked: the answers are the same, and their probabilities those that were trained.

    Args:
        logits: Per level (batch, outputs).
        temperature: Above 0. The smaller it is, the surer the network can be.

    Returns:
        Float32, of the same shapes and of the length 1 / temperature.
    """
    return tuple(normalize(level.float(), dim=1, eps=1e-7) / temperature for level in logits)
