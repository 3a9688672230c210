"""Members that vote, and the files they are kept in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nstudent.artifact import Artifact
from nstudent.config import ModelConfig
from nstudent.errors import ArtifactError
from nstudent.models.device import Placement
from nstudent.models.member import Member, build_member
from nstudent.storage import atomic_write, write_json
from nstudent.taxonomy import Taxonomy
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

MODEL = "model.json"
Probabilities = tuple[npt.NDArray[np.float32], ...]
"""Per level, coarse first: (images, outputs of the level)."""


@dataclass(frozen=True)
class Recipe:
    """Everything but the weights that is needed to build an ensemble again."""

    members: tuple[ModelConfig, ...]
    taxonomy: Taxonomy
    absent: str
    image_size: int
    max_pixels: int

    @property
    def outputs(self) -> tuple[int, ...]:
        """Outputs per level."""
        return self.taxonomy.columns(self.absent)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads back."""
        return {
            "members": [member.model_dump(mode="json") for member in self.members],
            "taxonomy": self.taxonomy.to_json(),
            "absent": self.absent,
            "image_size": self.image_size,
            "max_pixels": self.max_pixels,
        }

    @classmethod
    def from_json(cls, data: Any) -> Recipe:
        """Read what ``to_json`` wrote."""
        try:
            return cls(
                members=tuple(ModelConfig.model_validate(member) for member in data["members"]),
                taxonomy=Taxonomy.from_json(data["taxonomy"]),
                absent=str(data["absent"]),
                image_size=int(data["image_size"]),
                max_pixels=int(data["max_pixels"]),
            )
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            raise ArtifactError(f"{MODEL} does not describe a model: {error}") from error


class Ensemble:
    """Trained members, un-noised: their probabilities are averaged."""

    def __init__(self, recipe: Recipe, members: Sequence[Member], placement: Placement) -> None:
        self.recipe = recipe
        self.members = [placement.put(member).eval() for member in members]
        self._placement = placement

    @torch.inference_mode()
    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> Probabilities:
        """uint8 (images, side, side, 3) -> distributions per level, the mean over members."""
        images = self._placement.images(torch.from_numpy(pixels))
        votes = [self._vote(member, images) for member in self.members]
        return tuple(torch.stack(level).mean(dim=0).cpu().numpy() for level in zip(*votes, strict=True))

    def _vote(self, member: torch.nn.Module, images: Tensor) -> list[Tensor]:
        with self._placement.autocast(member):
            logits = member(images)
        return [level.float().softmax(dim=1) for level in logits]

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
        recipe = Recipe.from_json(artifact.json(MODEL))
        members = []
        for number, config in enumerate(recipe.members):
            member = build_member(config, recipe.outputs, ("blank",), load_pretrained=False)
            path = artifact.path(_weights_file(number))
            try:
                member.load_state_dict(load(path.read_bytes()))
            except (SafetensorError, RuntimeError, json.JSONDecodeError) as error:
                said = " ".join(str(error).split())[:200]
                raise ArtifactError(f"{path} does not hold the weights of {config.backbones}: {said}") from error
            members.append(member)
        return cls(recipe, members, placement)


def _weights_file(number: int) -> str:
    return f"member-{number}.safetensors"
