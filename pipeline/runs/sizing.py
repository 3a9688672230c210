"""The size of images where a page leaves it to the limit of cost: the largest at which the teacher still fits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nstudent.config.data import USUAL_LEVELS
from nstudent.config.file import load_config
from nstudent.config.members import ModelConfig
from nstudent.errors import ConfigError
from nstudent.models.cost import gmacs, largest_side
from nstudent.models.network import build_network
from nstudent.training.trial import any_outputs

_LARGEST_PX = 1024
"""The largest size that a configuration may have."""


def largest_image_size(path: str | Path | None, words: Sequence[str]) -> int:
    """The largest multiple of 32 pixels at which the networks of the teacher need no more than ``teacher.max_gmacs``.

    The classes are not known yet: two of them stand for all, which at a layer's few thousand multiply-adds a class is
    next to nothing beside the backbones.

    Args:
        path: The page; ``None``: there is none.
        words: Words such as ``teacher.max_gmacs=2``.

    Raises:
        ConfigError: There is no limit, a member is no network, or no size fits.
    """
    config = load_config(path, [*words, f"data.image_size={_LARGEST_PX}"])
    limit = config.teacher.max_gmacs
    if limit is None:
        raise ConfigError(
            "data.image_size=auto is the largest size that teacher.max_gmacs allows: set teacher.max_gmacs"
        )
    if not all(isinstance(member, ModelConfig) for member in config.teacher.members):
        raise ConfigError("data.image_size=auto is for a teacher of networks alone: set data.image_size to a number")
    outputs = any_outputs(config.data.known_levels or USUAL_LEVELS[-1], config.absent)
    networks = [
        build_network(member, outputs, ("cost",), load_pretrained=False)
        for member in config.teacher.members
        if isinstance(member, ModelConfig)
    ]
    return largest_side(lambda side: gmacs(networks, side), limit, _LARGEST_PX)
