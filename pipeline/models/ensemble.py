"""Members that vote, and the files they are kept in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nstudent.artifact import Artifact
from nstudent.config import ModelConfig
from nstudent.config_file import check
from nstudent.errors import ArtifactError, ConfigError, DataError, summary
from nstudent.labels.decoders import DECODERS
from nstudent.models.allocation import AllocationLimit
from nstudent.models.device import Placement
from nstudent.models.member import Member, build_member
from nstudent.outputs import Outputs
from nstudent.storage import atomic_write, write_json
from nstudent.tables import chosen
from nstudent.taxonomy import Taxonomy
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

MODEL = "model.json"
_MAX_LEVELS = 16
_MAX_MEMBERS = 64
_SPARE_BYTES = 256 << 20
"""What building a network may take beside twice its weights: tables of positions, starting values."""

Levels = tuple[Tensor, ...]
"""Distributions per level, coarse first: float32 (images, outputs of the level), on the device."""
Probabilities = tuple[npt.NDArray[np.float32], ...]
"""The same on the host."""


@dataclass(frozen=True)
class Recipe:
    """Everything but the weights that is needed to build an ensemble again."""

    members: tuple[ModelConfig, ...]
    taxonomy: Taxonomy
    absent: str
    image_size: int
    max_pixels: int
    precision: str = "auto"
    decoder: str = "best_path"
    """Name of the decoder that turns the distributions into labels."""

    @property
    def outputs(self) -> Outputs:
        """What the ensemble, and each of its members, can say."""
        return Outputs(self.taxonomy, self.absent)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads back."""
        return {
            "members": [member.model_dump(mode="json") for member in self.members],
            "taxonomy": self.taxonomy.to_json(),
            "absent": self.absent,
            "image_size": self.image_size,
            "max_pixels": self.max_pixels,
            "precision": self.precision,
            "decoder": self.decoder,
        }

    @classmethod
    def read(cls, artifact: Artifact) -> Recipe:
        """The recipe of a committed step's classifier."""
        return cls.from_json(artifact.json(MODEL))

    @classmethod
    def from_json(cls, data: Any) -> Recipe:
        """Read what ``to_json`` wrote, within the limits of the configuration.

        Raises:
            ArtifactError: it does not describe a model that a configuration could have asked for.
        """
        try:
            sizes = {"image_size": data["image_size"], "max_pixels": data["max_pixels"]}
            page = {"absent": data["absent"], "data": sizes, "teacher": {"members": data["members"]}}
            page["precision"] = data.get("precision", "auto")
            config = check(page, where="what it says")
            taxonomy = Taxonomy.from_json(data["taxonomy"])
            decoder = data.get("decoder", "best_path")
            chosen(DECODERS, decoder, "decoder")
        except (KeyError, TypeError, ValueError, ConfigError, DataError) as error:
            raise ArtifactError(f"{MODEL} does not describe a model: {error}") from error
        members = config.teacher.members
        if len(members) > _MAX_MEMBERS or not 0 < taxonomy.num_levels <= _MAX_LEVELS or not taxonomy.terminals:
            raise ArtifactError(f"{MODEL} does not describe a model: too many members, or no tree of classes")
        return cls(
            members, taxonomy, config.absent, config.data.image_size, config.data.max_pixels, config.precision, decoder
        )


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
        """What ``images`` gave -> distributions per level, the mean over members, on their device."""
        votes = [self._vote_of(member, images) for member in self.members]
        return tuple(_mean(level) for level in zip(*votes, strict=True))

    def _vote_of(self, member: torch.nn.Module, images: Tensor) -> list[Tensor]:
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


def _mean(votes: Sequence[Tensor]) -> Tensor:
    return votes[0] if len(votes) == 1 else torch.stack(list(votes)).mean(dim=0)


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
