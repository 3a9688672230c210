"""Images of another size than the one they were loaded in: for trainings that begin with small ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nstudent.models.resizing import resized
from nstudent.noise.steps import Prepared


class Resizing:
    """Brings the images of a batch to the size of its step (progressive learning, Tan & Le, arXiv 2104.00298)."""

    def __init__(self, side_at: Callable[[float], int], steps: int) -> None:
        """Make the step.

        Args:
            side_at: Side in pixels, from the fraction of the training that is done.
            steps: Number of steps of the training.
        """
        self._side_at = side_at
        self._steps = steps

    def __call__(self, prepared: Prepared, step: int) -> Prepared:
        """Resize the images; those of the right size stay as they are. Views are brought to the same size later."""
        side = self._side_at(step / self._steps)
        return replace(prepared, images=resized(prepared.images, side))
