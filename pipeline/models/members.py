"""What a member of an ensemble is, how each kind of them is fitted and loaded, and how its numbers are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from nstudent.config.members import ModelConfig
from nstudent.data.batches import Examples
from nstudent.data.dataset import Ids, PixelStore
from nstudent.errors import ArtifactError, summary
from nstudent.models.allocation import AllocationLimit
from nstudent.models.cost import Spent
from nstudent.models.device import Placement
from nstudent.progress import Progress
from nstudent.randomness import Key
from nstudent.taxonomy.outputs import Outputs
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor, nn

Levels = tuple[Tensor, ...]
"""Distributions per level, coarse first: float32 (images, outputs of the level), on the device."""


_SPARE_BYTES = 256 << 20
"""What building a network may take beside twice its weights: tables of positions, starting values."""
_MODULES_PER_TENSOR, _SPARE_MODULES = 8, 1000
"""Modules that a network may have for each tensor of its weights, and beside them. timm's have up to two."""


class Member(Protocol):
    """One voice of an ensemble: a trained network, or anything else that gives distributions for images."""

    def distributions(self, images: Tensor) -> Levels:
        """What it says of some images, without noise.

        Args:
            images: float32 (images, 3, side, side) in 0..1, on the device; not to be changed.
        """

    def compile(self) -> None:
        """Make ready for many images, if the configuration asks for it."""

    def gmacs(self, image_size: int) -> float:
        """Billions of multiply-adds for one square image with a side of so many pixels."""

    def tensors(self) -> Mapping[str, Tensor]:
        """All that has to be kept of it beside its settings, by name; written as a safetensors file."""


@runtime_checkable
class Exportable(Protocol):
    """A member that can be part of an exported program."""

    def module(self) -> nn.Module:
        """What turns float32 images, (images, 3, side, side) in 0..1, into ``Levels``, in float32.

        torch.export traces it for any number of images, so that nothing in it may go by that number or by a pixel.
        """


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What a member says of labelled images that it was not fitted to, by fits to the others."""

    images: Ids
    """Image ids, (images,)."""
    levels: tuple[npt.NDArray[np.float32], ...]
    """Distributions per level, (images, outputs)."""


@dataclass(frozen=True)
class Fitted:
    """A member that was fitted, and what it took."""

    member: Member
    history: tuple[dict[str, float], ...] = ()
    """The epochs of the training, for a kind that has epochs: each its number, its loss, and its score on validation
    if that was taken."""
    spent: Spent = field(default_factory=Spent)
    """What the training has cost; it counts passes through networks alone."""
    mirrored: bool | None = None
    """Whether it says that images may be mirrored; ``None`` of a kind that does not ask."""
    held_out: HeldOut | None = None
    """``None`` of a kind that does not know, or if it was not asked."""


class NetworkTraining(Protocol):
    """How a step trains networks: with its loss, its noise and its optimiser, for as long as its settings say."""

    def build(self, settings: ModelConfig) -> nn.Module:
        """The network as it is before its first step.

        Raises:
            ConfigError: There is no such network, or it cannot be trained with the noise of the step.
        """

    def train(self, settings: ModelConfig) -> Fitted:
        """Train the network to the end, or go on from its checkpoint; validate, report and stop as every training.

        Raises:
            TrainingError: A loss or gradient is not finite.
            StoppedError: The run was asked to stop; a checkpoint of the last step is on disk.
        """


@dataclass(frozen=True)
class FitInputs:
    """What a step hands to a member that is to be fitted."""

    name: str
    """Name of the member among the trainings of its step, for messages and files."""
    examples: Examples
    """The labelled images to fit it to, all or those of some folds: their ids and, for rows of them, the mass on each
    output of each level."""
    pixels: PixelStore
    """The images by id."""
    outputs: Outputs
    """What the member is to say, and on which tree."""
    placement: Placement
    """Device and precision to compute with."""
    key: Key
    """Decides everything that is drawn at random."""
    progress: Progress
    """Told how far the fit is; raises ``StoppedError`` if the run is to stop."""
    networks: NetworkTraining
    """How this step trains networks."""
    heap: Ids = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Unlabelled images that a member which can label them by itself is fitted to as well, by id; none by default."""
    held_out: Literal["none", "some", "all"] = "none"
    """Labelled images that the member is asked about without being fitted to them (``Fitted.held_out``): none, as many
    as its strength is chosen on, or all that it is fitted to."""

    def images(self, ids: Ids) -> Tensor:
        """Some images without noise, as ``Member.distributions`` gets them: float32 (images, 3, side, side), on the
        device."""
        return self.placement.images(torch.from_numpy(self.pixels[ids]))


class Kind(Protocol):
    """One kind of member: how one is fitted and loaded. Its settings are a section in the table of ``config.members``,
    and the ``settings`` below are of that section."""

    resumes: bool
    """Whether ``fit`` goes on from what an earlier, interrupted one left; another process may then fit it ahead."""

    def cost(self, settings: Any, inputs: FitInputs) -> Callable[[int], float]:
        """What the member will cost, known before anything is fitted.

        Returns:
            Function from the side of a square image, in pixels, to billions of multiply-adds for one such image.

        Raises:
            ConfigError: The settings do not describe a member that can be fitted.
        """

    def fit(self, settings: Any, inputs: FitInputs) -> Fitted:
        """Fit a member to the labelled images. Several processes of one run all do it; the leader's member is kept.

        Raises:
            TrainingError: It cannot be fitted to these images.
            StoppedError: The run was asked to stop.
        """

    def load(self, settings: Any, path: Path, outputs: Outputs, link: str, placement: Placement) -> Member:
        """Load a member; everything in the settings and the file may come from a stranger.

        Args:
            settings: Section that describes the member.
            path: Safetensors file with what ``Member.tensors`` gave.
            outputs: What the member is to say, and on which tree.
            link: Name in ``LINKS`` of what turns logits into distributions, for a member that has logits.
            placement: Device and precision to compute with.

        Raises:
            ArtifactError: The file does not fit the settings.
            ConfigError: The settings do not describe a member.
        """


def building_limit(path: Path) -> AllocationLimit:
    """What may be built for the weights of a safetensors file, by its size and its header."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = len(file.keys())
    except (SafetensorError, OSError):
        tensors = 0
    modules = _MODULES_PER_TENSOR * tensors + _SPARE_MODULES
    return AllocationLimit(2 * path.stat().st_size + _SPARE_BYTES, modules, f"the recipe of {path}")


def read_tensors(path: Path, expected: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Tensors of a safetensors file that has those of ``expected``, in their types and shapes, and no others.

    They come in the order of ``expected``: the file has an order of its own.

    Args:
        path: The file.
        expected: Tensors with the wanted names, types and shapes; their numbers are not looked at.
        what: Whose tensors they are, for the message.

    Raises:
        ArtifactError: The file has other tensors, or numbers that are not finite, or is not a safetensors file.
    """
    try:
        tensors: dict[str, Tensor] = load(path.read_bytes())
        for name in sorted(expected.keys() ^ tensors.keys()):
            raise ValueError(f"{name} is {'missing' if name in expected else 'not one of them'}")
        for name, wanted in expected.items():
            tensor = tensors[name]
            if tensor.dtype != wanted.dtype or tensor.shape != wanted.shape or not tensor.isfinite().all():
                raise ValueError(f"{name} is of another type or shape, or not finite")
    except (SafetensorError, RuntimeError, ValueError, LookupError, TypeError) as error:
        raise ArtifactError(f"{path} does not hold the weights of {what}: {summary(error)}") from error
    return {name: tensors[name] for name in expected}
