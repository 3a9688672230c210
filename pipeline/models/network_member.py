"""A trained network as a member of an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from nstudent.config.members import ModelConfig
from nstudent.models.cost import gmacs
from nstudent.models.device import Placement
from nstudent.models.links import LINKS, Link
from nstudent.models.members import FitInputs, Fitted, Levels, building_limit, read_tensors
from nstudent.models.network import Network, build_network
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor, nn


class _Distributions(nn.Module):
    """A network and its link."""

    def __init__(self, network: nn.Module, link: Link) -> None:
        super().__init__()
        self.network = network
        self._link = link

    def forward(self, images: Tensor) -> Levels:
        return self._link(self.network(images))


class NetworkMember:
    """A trained network, un-noised; the ``Member`` of most ensembles."""

    def __init__(self, network: nn.Module, link: str, outputs: Outputs, placement: Placement) -> None:
        """Put a network that gives logits per level to its device, and in evaluation mode."""
        self.network = placement.put(network).eval()
        self._link = LINKS[link](outputs, placement.device)
        self._placement = placement

    def distributions(self, images: Tensor) -> Levels:
        """The network's logits for (images, 3, side, side) as distributions, (images, outputs) per level."""
        with self._placement.autocast(self.network):
            logits = self.network(images)
        return self._link([level.float() for level in logits])

    def module(self) -> nn.Module:
        """The network with its link; see ``Exportable``."""
        return _Distributions(self.network, self._link)

    def compile(self) -> None:
        """Let torch compile the network, if the configuration asks for it."""
        self._placement.compile(self.network)

    def gmacs(self, image_size: int) -> float:
        """Multiply-adds for one image, counted; see ``Member``."""
        return gmacs([self.network], image_size)

    def tensors(self) -> Mapping[str, Tensor]:
        """Its weights and buffers."""
        return self.network.state_dict()


class NetworkKind:
    """The ``Kind`` of networks."""

    resumes = True

    def cost(self, settings: ModelConfig, inputs: FitInputs) -> Callable[[int], float]:
        """Multiply-adds of the network as it will be trained, counted."""
        return partial(gmacs, [inputs.networks.build(settings)])

    def fit(self, settings: ModelConfig, inputs: FitInputs) -> Fitted:
        """Train the network as the step trains networks."""
        return inputs.networks.train(settings)

    def load(
        self, settings: ModelConfig, path: Path, outputs: Outputs, link: str, placement: Placement
    ) -> NetworkMember:
        """Build a network, and lay its trained weights over it; see ``Kind``."""
        with building_limit(path):
            network: Network = build_network(settings, outputs, ("blank",), load_pretrained=False)
        network.load_state_dict(read_tensors(path, network.state_dict(), str(settings.backbones)))
        return NetworkMember(network, link, outputs, placement)
