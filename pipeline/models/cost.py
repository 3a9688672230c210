"""What ensembles and trainings cost in multiply-adds, counted and not estimated from a table."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from nstudent.errors import ConfigError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

_SMALLEST_SIDE_PX = 8
_SIZE_STEP_PX = 8
_USUAL_PX = 224
_MARGIN = 1.5
"""Estimates of a cost up to so many times the limit are looked into."""
_AUTO_STEP_PX = 32
"""Sides that are chosen are multiples of this: what most backbones shrink an image by."""


@dataclass(frozen=True)
class Spent:
    """What a training has cost so far, in all of its processes together."""

    image_passes: int = 0
    """Number of images that went forward and backward through the network."""
    training_gmacs: float = 0.0
    """Billions of multiply-adds of these passes, and of those of the averaged network where the loss asks for them."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object, for a checkpoint or a step's metrics."""
        return asdict(self)


def total(spent: Iterable[Spent]) -> Spent:
    """What several trainings have cost together."""
    each = list(spent)
    return Spent(sum(one.image_passes for one in each), round(sum(one.training_gmacs for one in each), 3))


def gmacs(networks: Sequence[nn.Module], image_size: int) -> float:
    """Billions of multiply-adds that all networks together need for one image. Runs on no data and takes no memory."""
    total = 0
    for network in networks:
        skeleton = copy.deepcopy(network).to("meta").eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            skeleton(torch.empty(1, 3, image_size, image_size, device="meta"))
        # The counter counts a multiply-add as two operations.
        total += counter.get_total_flops() // 2
    return total / 1e9


def check_cost(cost_at: Callable[[int], float], image_size: int, limit: float | None) -> float:
    """GMACs of an ensemble, which may have a limit.

    Args:
        cost_at: Gives the GMACs of the ensemble for one image, from the side of the image in pixels.
        image_size: Side of the images, in pixels.
        limit: Largest number of GMACs; ``None``: there is no limit.

    Raises:
        ConfigError: above ``limit``; the message names the largest image size that fits.
    """
    cost = cost_at(image_size)
    if limit is None or cost <= limit:
        return cost
    largest = (image_size - 1) // _SIZE_STEP_PX * _SIZE_STEP_PX
    sizes = range(largest, _SMALLEST_SIDE_PX - 1, -_SIZE_STEP_PX)
    fitting = next((size for size in sizes if _fits(cost_at, size, limit)), None)
    remedy = f"data.image_size={fitting} fits" if fitting else "no image size fits: use smaller or fewer members"
    raise ConfigError(
        f"the ensemble needs {cost:.3f} GMACs for one {image_size} px image, teacher.max_gmacs is {limit:g}: {remedy}"
    )


def largest_side(cost_at: Callable[[int], float], limit: float, most_px: int) -> int:
    """The largest multiple of 32 pixels at which an ensemble is within a limit.

    Args:
        cost_at: Gives the GMACs of the ensemble for one image, from the side of the image in pixels.
        limit: Largest number of GMACs.
        most_px: Largest side that is tried.

    Raises:
        ConfigError: None fits.
    """
    sides = range(most_px // _AUTO_STEP_PX * _AUTO_STEP_PX, 0, -_AUTO_STEP_PX)
    # Some networks take a few sizes only: each size that may fit is tried.
    usual = _first(cost_at, (_USUAL_PX, *reversed(sides)))
    largest = _first(cost_at, sides)
    near: Iterable[int] = ()
    if usual is not None and largest is not None:
        near = (each for each in sides if each <= largest[0] and _estimate(each, usual, largest) <= _MARGIN * limit)
    fitting = next((each for each in near if _fits(cost_at, each, limit)), None)
    if fitting is None:
        raise ConfigError(
            f"data.image_size=auto: teacher.max_gmacs is {limit:g}, and no multiple of {_AUTO_STEP_PX} px fits: raise "
            "the limit, or use smaller or fewer members"
        )
    return fitting


def check_final_cost(costs: Mapping[str, float], limit: float | None) -> None:
    """Refuse a limit under which a run has no result.

    Args:
        costs: GMACs for one image of all that can be the final classifier, by what a person calls it.
        limit: Largest number of GMACs; ``None``: there is no limit.

    Raises:
        ConfigError: Everything costs more; the message names the cheapest.
    """
    cheapest = min(costs, key=lambda name: costs[name])
    if limit is not None and costs[cheapest] > limit:
        raise ConfigError(
            f"final.max_gmacs is {limit:g}, and the cheapest classifier, {cheapest}, needs {costs[cheapest]:.4g} GMACs "
            "for one image: raise the limit, or choose smaller networks (teacher.members, student.model)"
        )


def _fits(cost_at: Callable[[int], float], image_size: int, limit: float) -> bool:
    cost = _cost(cost_at, image_size)
    return cost is not None and cost <= limit


def _first(cost_at: Callable[[int], float], sides: Iterable[int]) -> tuple[int, float] | None:
    """The first of these sides that can be looked at, and the cost there; ``None``: none can."""
    found = ((side, _cost(cost_at, side)) for side in sides)
    return next(((side, cost) for side, cost in found if cost is not None), None)


def _estimate(side: int, usual: tuple[int, float], largest: tuple[int, float]) -> float:
    """About what an ensemble costs at a side, from what it costs at two others.

    Cost grows with the square of the side, or faster where each patch looks at all others, or slower where a member
    sees images at a size of its own: what it costs stays. The lower one of both estimates is below the cost, or near.
    """
    (small, low), (large, high) = usual, largest
    grown = low * (side / small) ** 2
    if small >= large:
        return grown
    return min(grown, low + (high - low) * (side**2 - small**2) / (large**2 - small**2))


def _cost(cost_at: Callable[[int], float], image_size: int) -> float | None:
    try:
        return cost_at(image_size)
    except (RuntimeError, AssertionError, ValueError):
        # Some networks take one size only, or halve a small image away.
        return None
