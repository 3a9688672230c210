"""Functions of the fraction of a training that is done: 0 at its first step, 1 at its end."""

import math
from collections.abc import Callable
from functools import partial

from nstudent.config.training import LevelScheduleName

LevelSchedule = Callable[[float, int], tuple[float, ...]]
"""(fraction of the training that is done, number of levels) -> share of the loss of each level, coarse first, sum 1."""

_BRANCH_SHARE = 0.1
"""B-CNN: share of the loss of a level that another one stands before."""
_OPENING_SHARE = 0.01
"""B-CNN: the same in the first phase."""
_ALL_BRANCHES = 0.3
"""Largest share of the loss of all of these levels together, where there are many."""


def sigmoid_ramp(done: float, length: float) -> float:
    """``exp(-5 (1 - t)^2)``, t from 0 to 1 over the first ``length`` of training (Tarvainen & Valpola, 1703.01780)."""
    t = 1.0 if length <= 0 else min(1.0, done / length)
    return math.exp(-5.0 * (1.0 - t) ** 2)


def linear_ramp(done: float, begins: float, full: float) -> float:
    """0 until ``begins``, from there in a straight line to 1 at ``full``, both fractions of the training."""
    if done >= full:
        return 1.0
    return max(0.0, (done - begins) / (full - begins))


def branch_training(done: float, num_levels: int, *, ends_with_all: bool) -> tuple[float, ...]:
    """Shares of the levels in the Branch Training strategy of B-CNN (Zhu & Bain, arXiv 1709.09890, section 3).

    On three levels (.98, .01, .01), from the tenth of 60 epochs on (.1, .8, .1), from the twentieth on (.1, .2, .7),
    and from the thirtieth on (0, 0, 1): a phase for each level in the first half of the training, and the finest level
    alone in the second. The other numbers of levels follow the same pattern.

    Args:
        done: Fraction of the training that is done.
        num_levels: Number of levels.
        ends_with_all: In the second half all levels have the same share, which is not so in the paper: its coarse
            levels serve the finest one, and are left as they are then.
    """
    finest = num_levels - 1
    if done >= 0.5 or not finest:
        return (1 / num_levels,) * num_levels if ends_with_all else (*(0.0,) * finest, 1.0)
    # A rounding error must not put off a phase by a step.
    phase = int(2 * num_levels * done + 1e-9)
    other = min(_BRANCH_SHARE, _ALL_BRANCHES / finest) if phase else min(_OPENING_SHARE, _ALL_BRANCHES / finest)
    shares = [other] * num_levels
    if phase == finest:
        shares[phase - 1] *= 2
    shares[phase] = 1 - (sum(shares) - shares[phase])
    return tuple(shares)


LEVEL_SCHEDULES: dict[LevelScheduleName, LevelSchedule | None] = {
    "constant": None,
    "b_cnn": partial(branch_training, ends_with_all=False),
    "coarse_first": partial(branch_training, ends_with_all=True),
}
"""By the name in the configuration (``level_schedule``); ``None``: the levels have the same weights throughout."""
