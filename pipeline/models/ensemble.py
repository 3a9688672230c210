"""Members that vote, and the files they are kept in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from nstudent.artifact import Artifact
from nstudent.config import ModelConfig
from nstudent.errors import ArtifactError, ConfigError, summary
from nstudent.models.allocation import AllocationLimit
from nstudent.models.device import Placement
from nstudent.models.links import LINKS
from nstudent.models.member import Member, build_member
from nstudent.models.recipe import MODEL, Recipe
from nstudent.models.temperature import apply_temperature
from nstudent.storage import atomic_write, write_json
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

_SPARE_BYTES = 256 << 20
"""What building a network may take beside twice its weights: tables of positions, starting values."""

Levels = tuple[Tensor, ...]
"""Distributions per level, coarse first: float32 (images, outputs of the level), on the device."""
Probabilities = tuple[npt.NDArray[np.float32], ...]
"""The same on the host."""


class Ensemble:
    """Trained members, un-noised: their probabilities are averaged."""

    def __init__(self, recipe: Recipe, members: Sequence[Member], placement: Placement) -> None:
        self.recipe = recipe
        self.members = [placement.put(member).eval() for member in members]
        self._placement = placement

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._placement.device

    def compile(self) -> None:
        """Let the members be compiled, where the configuration asks for it: worth it for many images."""
        for member in self.members:
            self._placement.compile(member)

    def images(self, pixels: Tensor) -> Tensor:
        """uint8 (images, side, side, 3), anywhere -> what the members look at, on their device."""
        return self._placement.images(pixels)

    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> Probabilities:
        """uint8 (images, side, side, 3) -> distributions per level, the mean over members."""
        return tuple(level.cpu().numpy() for level in self.vote(self.images(torch.from_numpy(pixels))))

    @torch.inference_mode()
    def vote(self, images: Tensor) -> Levels:
        """What ``images`` gave -> distributions per level, the mean over members, on their device.

        The mean is weighted if the recipe says so, and made more or less sure by its temperatures.
        """
        votes = [self._vote_of(member, images) for member in self.members]
        pooled = [_mean(level, self.recipe.weights) for level in zip(*votes, strict=True)]
        temperatures = self.recipe.temperatures or (1.0,) * len(pooled)
        return tuple(
            level if temperature == 1 else apply_temperature(level, temperature)
            for level, temperature in zip(pooled, temperatures, strict=True)
        )

    def _vote_of(self, member: torch.nn.Module, images: Tensor) -> list[Tensor]:
        with self._placement.autocast(member):
            logits = member(images)
        return [LINKS[self.recipe.link](level.float()) for level in logits]

    def save(self, folder: Path) -> None:
        """Write ``model.json`` and one safetensors file a member."""
        write_json(folder / MODEL, self.recipe.to_json())
        for number, member in enumerate(self.members):
            weights = {name: tensor.cpu().contiguous() for name, tensor in member.state_dict().items()}
            atomic_write(folder / _weights_file(number), save(weights))

    @classmethod
    def load(cls, artifact: Artifact, placement: Placement) -> Ensemble:
        """Build the ensemble of a committed step, after checking the hash of every file.

        Raises:
            ArtifactError: a file is missing, damaged, or does not fit the description.
        """
        recipe = Recipe.read(artifact)
        members = []
        for number, config in enumerate(recipe.members):
            path = artifact.path(_weights_file(number))
            try:
                with AllocationLimit(2 * path.stat().st_size + _SPARE_BYTES, str(artifact.folder / MODEL)):
                    member = build_member(config, recipe.outputs, ("blank",), load_pretrained=False)
            except ConfigError as error:
                raise ArtifactError(f"{artifact.folder / MODEL}: {error}") from error
            _load_weights(member, path, config)
            members.append(member)
        return cls(recipe, members, placement)


def _mean(votes: Sequence[Tensor], weights: Sequence[float] | None) -> Tensor:
    if len(votes) == 1:
        return votes[0]
    together = torch.stack(list(votes))
    if weights is None or len(set(weights)) == 1:
        return together.mean(dim=0)
    shares = together.new_tensor(weights) / sum(weights)
    mean: Tensor = torch.tensordot(shares, together, dims=1)
    return mean


def _load_weights(member: Member, path: Path, config: ModelConfig) -> None:
    own = member.state_dict()
    try:
        weights = load(path.read_bytes())
        wrong = [name for name, tensor in weights.items() if name in own and tensor.dtype != own[name].dtype]
        wrong += [name for name, tensor in weights.items() if not tensor.isfinite().all()]
        if wrong:
            raise ValueError(f"{wrong[0]} is of another type, or not finite")
        member.load_state_dict(weights)
    except (SafetensorError, RuntimeError, ValueError, LookupError, TypeError) as error:
        said = summary(error)
        raise ArtifactError(f"{path} does not hold the weights of {config.backbones}: {said}") from error


def _weights_file(number: int) -> str:
    return f"member-{number}.safetensors"
