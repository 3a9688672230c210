"""Cost of an ensemble in multiply-adds, counted and not estimated from a table."""

import copy
from collections.abc import Sequence

import torch
from nstudent.errors import ConfigError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

_SMALLEST_SIDE_PX = 8
_SIZE_STEP_PX = 8


def gmacs(members: Sequence[nn.Module], image_size: int) -> float:
    """Billions of multiply-adds that all members together need for one image. Runs on no data and takes no memory."""
    total = 0
    for member in members:
        skeleton = copy.deepcopy(member).to("meta").eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            skeleton(torch.empty(1, 3, image_size, image_size, device="meta"))
        # The counter counts a multiply-add as two operations.
        total += counter.get_total_flops() // 2
    return total / 1e9


def check_cost(members: Sequence[nn.Module], image_size: int, limit: float | None) -> float:
    """GMACs of the ensemble.

    Raises:
        ConfigError: above ``limit``; the message names the largest image size that fits.
    """
    cost = gmacs(members, image_size)
    if limit is None or cost <= limit:
        return cost
    largest = (image_size - 1) // _SIZE_STEP_PX * _SIZE_STEP_PX
    sizes = range(largest, _SMALLEST_SIDE_PX - 1, -_SIZE_STEP_PX)
    fitting = next((size for size in sizes if _fits(members, size, limit)), None)
    mend = f"data.image_size={fitting} fits" if fitting else "no image size fits: use smaller or fewer members"
    raise ConfigError(
        f"the ensemble needs {cost:.3f} GMACs for one {image_size} px image, teacher.max_gmacs is {limit:g}: {mend}"
    )


def _fits(members: Sequence[nn.Module], image_size: int, limit: float) -> bool:
    try:
        return gmacs(members, image_size) <= limit
    except (RuntimeError, AssertionError, ValueError):
        # Some networks take one size only, or halve a small image away.
        return False
