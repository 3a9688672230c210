"""Members that vote, and the files they are kept in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from nstudent.errors import ArtifactError, ConfigError
from nstudent.models.device import Placement
from nstudent.models.kinds import kind_for
from nstudent.models.members import Levels, Member
from nstudent.models.network_member import NetworkMember
from nstudent.models.pooling import POOLINGS
from nstudent.models.recipe import MODEL, Recipe
from nstudent.models.temperature import apply_temperature
from nstudent.storage.artifact import Artifact
from nstudent.storage.files import atomic_write, write_json
from safetensors.torch import save
from torch import Tensor, nn

Probabilities = tuple[npt.NDArray[np.float32], ...]
"""Distributions per level, coarse first: (images, outputs of the level), on the host."""


class Ensemble:
    """Members, un-noised, whose distributions are pooled as the recipe says."""

    def __init__(self, recipe: Recipe, members: Sequence[Member], placement: Placement) -> None:
        """``members``: as many as the recipe has, in its order, on the device of ``placement``."""
        self.recipe = recipe
        self.members = list(members)
        self._placement = placement

    @classmethod
    def of_networks(cls, recipe: Recipe, networks: Sequence[nn.Module], placement: Placement) -> Ensemble:
        """An ensemble of networks that give logits per level; they are put to the device, in evaluation mode."""
        return cls(recipe, [NetworkMember(network, recipe.link, placement) for network in networks], placement)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._placement.device

    @property
    def gmacs(self) -> float:
        """Billions of multiply-adds that all members together need for one image of the recipe's size."""
        return sum(member.gmacs(self.recipe.image_size) for member in self.members)

    def compile(self) -> None:
        """Let the members be compiled, where the configuration asks for it: worth it for many images."""
        for member in self.members:
            member.compile()

    def images(self, pixels: Tensor) -> Tensor:
        """uint8 (images, side, side, 3), anywhere -> what the members look at, on their device."""
        return self._placement.images(pixels)

    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> Probabilities:
        """uint8 (images, side, side, 3) -> pooled distributions per level."""
        return tuple(level.cpu().numpy() for level in self.vote(self.images(torch.from_numpy(pixels))))

    @torch.inference_mode()
    def vote(self, images: Tensor) -> Levels:
        """Pooled distributions per level, (images, outputs), at the recipe's temperatures, on their device.

        ``images``, float32 (images, 3, side, side), are as the method of that name gives them.
        """
        pool, weights = POOLINGS[self.recipe.pooling], self.recipe.weights
        votes = [member.distributions(images) for member in self.members]
        pooled = [pool(level, weights) for level in zip(*votes, strict=True)]
        temperatures = self.recipe.temperatures or (1.0,) * len(pooled)
        return tuple(
            level if temperature == 1 else apply_temperature(level, temperature)
            for level, temperature in zip(pooled, temperatures, strict=True)
        )

    def save(self, folder: Path) -> None:
        """Write ``model.json`` and one safetensors file a member."""
        write_json(folder / MODEL, self.recipe.to_json())
        for number, member in enumerate(self.members):
            tensors = {name: tensor.cpu().contiguous() for name, tensor in member.tensors().items()}
            atomic_write(folder / _weights_file(number), save(tensors))

    @classmethod
    def load(cls, artifact: Artifact, placement: Placement) -> Ensemble:
        """Build the ensemble of a committed step, after checking the hash of every file.

        Raises:
            ArtifactError: a file is missing, damaged, or does not fit the description.
        """
        recipe = Recipe.read(artifact)
        members = []
        for number, settings in enumerate(recipe.members):
            path = artifact.path(_weights_file(number))
            try:
                members.append(kind_for(settings).load(settings, path, recipe.outputs, recipe.link, placement))
            except ConfigError as error:
                raise ArtifactError(f"{artifact.folder / MODEL}: {error}") from error
        return cls(recipe, members, placement)


def _weights_file(number: int) -> str:
    return f"member-{number}.safetensors"
