"""The finish of a training: only what lies late in the network learns on (FixRes, arXiv 1906.06423, section 4.2)."""

from __future__ import annotations

from collections.abc import Iterator

from nstudent.models.network import Network
from nstudent.models.normalisation import is_normalisation
from torch import nn

_BESIDE = ("downsample", "shortcut")
"""Words in the names of layers that lie beside a block, and are put together after it."""


def late_layers(network: Network) -> Iterator[nn.Module]:
    """The head, and the last normalisation of each backbone, which lies right before or after the pooling.

    A backbone without one, such as an NFNet, gives fixed features to the head.
    """
    yield network.head
    for backbone in network.backbones:
        # In the order in which networks are put together, which is that of their layers.
        named = [(name, layer) for name, layer in backbone.named_modules() if is_normalisation(layer)]
        yield from [layer for name, layer in named if not any(word in name for word in _BESIDE)][-1:]


def train_late_layers(network: Network) -> None:
    """Let nothing but the late layers learn, and nothing else take in batch statistics or drop anything."""
    network.requires_grad_(False).eval()
    for layer in late_layers(network):
        layer.requires_grad_(True).train()
