"""How the distributions of all members become the levels of one calibrated distribution."""

from __future__ import annotations

from collections.abc import Sequence

from nstudent.labels.path_posterior import PathPosterior
from nstudent.models.members import Levels
from nstudent.models.pooling import POOLINGS, tempered
from nstudent.models.recipe import Recipe


class Voting:
    """Pools and calibrates as a recipe says.

    It holds no switch of torch such as ``inference_mode``, so that what it does can be traced into a program.
    """

    def __init__(self, recipe: Recipe) -> None:
        """``recipe``: of the ensemble whose members vote."""
        self._recipe = recipe
        calibration = recipe.calibration
        self._posterior = None if calibration is None else PathPosterior(recipe.outputs, calibration)

    def pool(self, votes: Sequence[Levels]) -> Levels:
        """The pooled distributions per level, from those of each member, (images, outputs) per level."""
        rule, temperatures = POOLINGS[self._recipe.pooling], self._recipe.member_temperatures
        if temperatures is not None:
            votes = [tuple(map(tempered, vote, each)) for vote, each in zip(votes, temperatures, strict=True)]
        return tuple(rule(level, self._recipe.weights) for level in zip(*votes, strict=True))

    def calibrate(self, pooled: Levels) -> Levels:
        """The levels of the path posterior that the recipe describes; ``pooled`` itself if it describes none."""
        return pooled if self._posterior is None else self._posterior.marginals(pooled)
