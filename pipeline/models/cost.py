"""Cost of an ensemble in multiply-adds, counted and not estimated from a table."""

import copy
from collections.abc import Callable, Sequence

import torch
from nstudent.errors import ConfigError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

_SMALLEST_SIDE_PX = 8
_SIZE_STEP_PX = 8


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


def _fits(cost_at: Callable[[int], float], image_size: int, limit: float) -> bool:
    try:
        return cost_at(image_size) <= limit
    except (RuntimeError, AssertionError, ValueError):
        # Some networks take one size only, or halve a small image away.
        return False
