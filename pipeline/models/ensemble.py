"""Members that vote, and the files they are kept in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from nstudent.errors import ArtifactError, ConfigError
from nstudent.labels.path_posterior import Calibration
from nstudent.models.device import Placement
from nstudent.models.kinds import kind_for
from nstudent.models.members import Levels, Member
from nstudent.models.network_member import NetworkMember
from nstudent.models.recipe import MODEL, Recipe
from nstudent.models.voting import Voting
from nstudent.storage.artifact import Artifact
from nstudent.storage.files import atomic_write, write_json
from safetensors.torch import save
from torch import Tensor, nn

_Each = TypeVar("_Each")
Probabilities = tuple[npt.NDArray[np.float32], ...]
"""Distributions per level, coarse first: (images, outputs of the level), on the host."""


class Ensemble:
    """Members, un-noised, whose distributions are pooled and calibrated as the recipe says."""

    def __init__(self, recipe: Recipe, members: Sequence[Member], placement: Placement) -> None:
        """``members``: as many as the recipe has, in its order, on the device of ``placement``."""
        self.recipe = recipe
        self.members = list(members)
        self._placement = placement
        self._voting = Voting(recipe)

    @classmethod
    def of_networks(cls, recipe: Recipe, networks: Sequence[nn.Module], placement: Placement) -> Ensemble:
        """An ensemble of networks that give logits per level; they are put to the device, in evaluation mode."""
        members = [NetworkMember(network, recipe.link, recipe.outputs, placement) for network in networks]
        return cls(recipe, members, placement)

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
        """uint8 (images, side, side, 3) -> distributions per level, as ``vote`` gives them."""
        return tuple(level.cpu().numpy() for level in self.vote(self.images(torch.from_numpy(pixels))))

    def vote(self, images: Tensor) -> Levels:
        """Calibrated distributions per level, (images, outputs), on their device; see ``pooled`` and ``calibrate``."""
        return self.calibrate(self.pooled(images))

    @torch.inference_mode()
    def pooled(self, images: Tensor) -> Levels:
        """Pooled distributions per level, (images, outputs), on their device, before they are calibrated.

        ``images``, float32 (images, 3, side, side), are as the method of that name gives them.
        """
        return self.pool([member.distributions(images) for member in self.members])

    @torch.inference_mode()
    def pool(self, votes: Sequence[Levels]) -> Levels:
        """What ``pooled`` makes of the distributions of all members, (images, outputs) per level of each."""
        return self._voting.pool(votes)

    @torch.inference_mode()
    def calibrate(self, pooled: Levels) -> Levels:
        """The levels of the path posterior that the recipe describes; ``pooled`` itself if it describes none."""
        return self._voting.calibrate(pooled)

    def alone(self, number: int) -> Ensemble:
        """One of the members as an ensemble of its own, as it was before any temperature was fitted."""
        recipe = self.recipe.changed(members=(self.recipe.members[number],), weights=None, member_temperatures=None)
        return Ensemble(recipe, [self.members[number]], self._placement).calibrated(None)

    def without(self, number: int) -> Ensemble:
        """All members but one, with the weights and temperatures that they have beside it, and not calibrated."""

        def others(each: tuple[_Each, ...] | None) -> tuple[_Each, ...] | None:
            return None if each is None else (*each[:number], *each[number + 1 :])

        recipe = self.recipe.changed(
            members=others(self.recipe.members),
            weights=others(self.recipe.weights),
            member_temperatures=others(self.recipe.member_temperatures),
        )
        members = [member for other, member in enumerate(self.members) if other != number]
        return Ensemble(recipe, members, self._placement).calibrated(None)

    def with_member_temperatures(self, temperatures: Sequence[Sequence[float]] | None) -> Ensemble:
        """The same members with other temperatures, by member and level; ``None``: with none."""
        each = None if temperatures is None else tuple(map(tuple, temperatures))
        recipe = self.recipe.changed(member_temperatures=each)
        return Ensemble(recipe, self.members, self._placement)

    def calibrated(self, calibration: Calibration | None) -> Ensemble:
        """The same members with another calibration, and the decoder that goes with it.

        ``None``: none, so that ``vote`` gives the raw pool.
        """
        if calibration is None:
            recipe = self.recipe.changed(temperatures=None, ends=None, decoder="best_path")
        else:
            numbers = {"temperatures": calibration.temperatures, "ends": calibration.ends}
            recipe = self.recipe.changed(**numbers, decoder="expected_score")
        return Ensemble(recipe, self.members, self._placement)

    def decoded_by(self, name: str) -> Ensemble:
        """The same members, whose answers become labels by the decoder of this name; ``auto``: itself.

        Raises:
            ConfigError: There is no such decoder.
        """
        if name == "auto":
            return self
        return Ensemble(self.recipe.changed(decoder=name), self.members, self._placement)

    def save(self, folder: Path, prefix: str = "") -> None:
        """Write ``model.json`` and one safetensors file a member.

        Args:
            folder: Where to.
            prefix: What the names of the files begin with, of an ensemble that is not the step's result.
        """
        write_json(folder / f"{prefix}{MODEL}", self.recipe.to_json())
        for number, member in enumerate(self.members):
            tensors = {name: tensor.cpu().contiguous() for name, tensor in member.tensors().items()}
            atomic_write(folder / f"{prefix}{_weights_file(number)}", save(tensors))

    @classmethod
    def load(cls, artifact: Artifact, placement: Placement, prefix: str = "") -> Ensemble:
        """Build an ensemble of a committed step, after checking the hash of every file; ``prefix``: see ``save``.

        Raises:
            ArtifactError: a file is missing, damaged, or does not fit the description.
        """
        recipe = Recipe.read(artifact, prefix)
        members = []
        for number, settings in enumerate(recipe.members):
            path = artifact.path(f"{prefix}{_weights_file(number)}")
            try:
                members.append(kind_for(settings).load(settings, path, recipe.outputs, recipe.link, placement))
            except ConfigError as error:
                raise ArtifactError(f"{artifact.folder / MODEL}: {error}") from error
        return cls(recipe, members, placement)


def _weights_file(number: int) -> str:
    return f"member-{number}.safetensors"


def pool_ensembles(ensembles: Sequence[Ensemble], weights: Sequence[float]) -> Ensemble:
    """One ensemble, not calibrated, of the members of several that are on one device.

    Args:
        ensembles: Classifiers of one run.
        weights: Weight of each classifier, above 0. It is divided over its members as they voted there.

    Raises:
        ConfigError: They differ in what they look at or in what they can say.
    """
    first = ensembles[0]
    for key in ("taxonomy", "absent", "image_size", "max_pixels", "bits", "pooling", "link"):
        if any(getattr(each.recipe, key) != getattr(first.recipe, key) for each in ensembles):
            raise ConfigError(f"these classifiers cannot be pooled: they differ in {key}")
    shares: list[float] = []
    temperatures: list[tuple[float, ...]] = []
    for ensemble, weight in zip(ensembles, weights, strict=True):
        votes = ensemble.recipe.weights or (1.0,) * len(ensemble.members)
        even = ((1.0,) * ensemble.recipe.taxonomy.num_levels,) * len(ensemble.members)
        temperatures += ensemble.recipe.member_temperatures or even
        shares += [weight * vote / sum(votes) for vote in votes]
    members = [member for ensemble in ensembles for member in ensemble.members]
    settings = tuple(settings for ensemble in ensembles for settings in ensemble.recipe.members)
    recipe = first.recipe.changed(members=settings, weights=tuple(shares), member_temperatures=tuple(temperatures))
    return Ensemble(recipe, members, first._placement).calibrated(None)
