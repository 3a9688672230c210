"""What a network that learns finds around it: a device, other processes, a key, and somebody to tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nstudent.distributed.world import World
from nstudent.models.device import Placement
from nstudent.randomness import Key


@dataclass(frozen=True)
class Surroundings:
    """Where a network learns, and what messages about it need."""

    placement: Placement
    world: World
    key: Key
    """Decides everything that is drawn on the device in a step: dropout and stochastic depth."""
    levels: Sequence[str]
    """Names of the levels, coarse first."""
    images_of: Callable[[int], Sequence[str]]
    """Names of the images of a step's batch, in its order."""
    say: Callable[[str], None]
    """Told where a training takes another way than was asked for: smaller portions, no recorded steps."""
