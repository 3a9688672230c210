"""Images that a training predicts as it goes, and never learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from nstudent.data.dataset import Ids
from nstudent.labels.self_ensemble import RunningAverage
from nstudent.models.heads import Logits
from nstudent.models.resizing import resized
from nstudent.randomness import Key, generator
from torch import Tensor


@dataclass(frozen=True)
class HeldOut:
    """Held-out images that a mean teacher predicts once a pass, at a step of its own for each, as those it learns from.

    Their averages then mean the same as those of the images that are learnt from: both are of the same networks, and of
    images of the same size. All processes of a run predict all of the images.
    """

    average: RunningAverage
    """Average prediction of each image, on the device."""
    fetch: Callable[[Ids], Tensor]
    """Rows of ``average`` -> their images without noise, float32 (rows, 3, side, side) on the device."""
    num_steps: int
    """Steps of the training."""
    steps_per_pass: int
    key: Key
    """Decides at which step of a pass an image is predicted."""
    _seen: list[tuple[Tensor, list[Tensor]]] = field(default_factory=list)
    """Predictions of this step that are not in the average yet."""

    def due(self, step: int) -> Ids:
        """Rows of the images that are predicted at a step."""
        number, place = divmod(step, self.steps_per_pass)
        order = generator(*self.key, "held_out", number).permutation(len(self.average))
        return np.array_split(order, self.steps_per_pass)[place]

    def look(self, done: float, believe: Callable[[Tensor], Logits], at_once: int, side: int) -> None:
        """Predict the images that are due, unless that was done for an earlier portion of the same step.

        Args:
            done: Fraction of the training that is over.
            believe: Gives the logits of the mean teacher.
            at_once: Number of images that it can predict together.
            side: Side in pixels of the images that are learnt from at this step, at which these are looked at as well.
        """
        if self._seen:
            return
        rows = self.due(round(done * self.num_steps))
        for first in range(0, len(rows), at_once):
            part = rows[first : first + at_once]
            said = believe(resized(self.fetch(part), side))
            self._seen.append((torch.from_numpy(part), [level.softmax(dim=1) for level in said]))

    def settle(self) -> None:
        """The step is taken: its predictions enter the average."""
        for rows, said in self._seen:
            self.average.update(rows, said)
        self._seen.clear()

    def forget(self) -> None:
        """The step is tried again."""
        self._seen.clear()
