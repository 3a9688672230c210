"""What a member of an ensemble is, and how its numbers are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from nstudent.errors import ArtifactError, summary
from nstudent.models.device import Placement
from nstudent.taxonomy.outputs import Outputs
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

Levels = tuple[Tensor, ...]
"""Distributions per level, coarse first: float32 (images, outputs of the level), on the device."""


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


class Loader(Protocol):
    """What makes a member out of its settings in a recipe and its file."""

    def __call__(self, settings: Any, path: Path, outputs: Outputs, link: str, placement: Placement) -> Member:
        """Load a member; everything in the settings and the file may come from a stranger.

        Args:
            settings: Section that describes the member, of the type that its kind names.
            path: Safetensors file with what ``Member.tensors`` gave.
            outputs: What the member is to say, and on which tree.
            link: Name in ``LINKS`` of what turns logits into distributions, for a member that has logits.
            placement: Device and precision to compute with.

        Raises:
            ArtifactError: The file does not fit the settings.
            ConfigError: The settings do not describe a member.
        """


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
