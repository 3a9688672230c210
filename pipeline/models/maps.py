"""Maps of a backbone that lie before its last one, for heads whose coarse levels read shallower features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from nstudent.errors import ConfigError
from torch import Tensor, nn


@dataclass(frozen=True)
class Maps:
    """Which maps of a backbone coarse levels read."""

    stages: tuple[int, ...]
    """Numbers of the maps in timm's ``feature_info``, ascending, each once."""
    widths: tuple[int, ...]
    """Number of channels of each of them."""
    of_level: tuple[int, ...]
    """For each level but the finest, coarse first, the place of its map in ``stages``."""


def shallow_maps(network: nn.Module, name: str, coarse_levels: int) -> Maps:
    """The maps of a timm network for so many levels above the finest, which reads the features of the whole network.

    The stages of the network are divided evenly: of L levels, level l (from 0) reads the map after (l + 1) / L of them.
    Of the five blocks of VGG-16 and three levels that is the second and the third, as in B-CNN (arXiv 1709.09890).

    Args:
        network: A timm network without its classifier.
        name: Its name, for messages.
        coarse_levels: Number of levels above the finest.

    Raises:
        ConfigError: The network does not give its maps.
    """
    stages: Sequence[dict[str, Any]] = list(getattr(network, "feature_info", None) or ())
    if not stages or not all(hasattr(network, needed) for needed in ("forward_intermediates", "forward_head")):
        raise ConfigError(
            f"'{name}' gives no maps before its last one, which coarse levels of the head branching read: choose "
            "another head, or a network like resnet18, efficientnet_lite0 or wrn_28_2"
        )
    levels, count = coarse_levels + 1, len(stages)
    # Rounded to the nearest stage, in whole numbers.
    read = [max(1, (2 * (level + 1) * count + levels) // (2 * levels)) - 1 for level in range(coarse_levels)]
    chosen = tuple(sorted(set(read)))
    widths = tuple(int(stages[stage]["num_chs"]) for stage in chosen)
    return Maps(chosen, widths, tuple(chosen.index(stage) for stage in read))


def pooled_maps(network: Any, images: Tensor, maps: Maps) -> Tensor:
    """The mean of each map over its pixels, and after them the features of the whole network.

    Args:
        network: A timm network without its classifier.
        images: Normalised images, (batch, 3, side, side).
        maps: Which maps.

    Returns:
        (batch, sum of the maps' channels + features).
    """
    final, found = network.forward_intermediates(images, indices=list(maps.stages), output_fmt="NCHW")
    return torch.cat([*(each.mean(dim=(2, 3)) for each in found), network.forward_head(final)], dim=1)


def columns_of(maps: Sequence[Maps | None], widths: Sequence[int], coarse_levels: int) -> list[list[int]]:
    """Which columns of the features of several backbones, side by side, are meant for each level.

    Args:
        maps: Those of each backbone; ``None``: it has none, and all levels read its features.
        widths: Number of features of each backbone, without those of its maps.
        coarse_levels: Number of levels above the finest.

    Returns:
        Per level, coarse first.
    """
    columns: list[list[int]] = [[] for _ in range(coarse_levels + 1)]
    first = 0
    for each, width in zip(maps, widths, strict=True):
        parts = [*(each.widths if each else ()), width]
        starts = [first + sum(parts[:number]) for number in range(len(parts))]
        for level, read in enumerate(columns):
            is_coarse = each is not None and level < coarse_levels
            part = each.of_level[level] if each is not None and is_coarse else len(parts) - 1
            read.extend(range(starts[part], starts[part] + parts[part]))
        first += sum(parts)
    return columns
