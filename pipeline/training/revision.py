"""What may change what a batch teaches, between its preparation and its gradient: by what the network itself believes.

A step of ``noise`` changes a batch ahead of time, and knows no network. A revision sees the network as it is at the
step, and the batch as a whole: not a portion of it, and of several processes what all have. What it returns is a
batch like any other, so that portions, processes and recorded steps need to know nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from nstudent.models.heads import Logits
from nstudent.noise.steps import Prepared
from torch import Tensor

Believe = Callable[[Tensor], Logits]
"""Images, float32 (b, 3, side, side) -> logits of the network with averaged weights, un-noised, without gradient."""


class Revision(Protocol):
    """Changes what a batch teaches."""

    def revise(self, seen: Prepared, done: float, believe: Believe) -> Prepared:
        """The batch with other targets and their sums; called once a step, however often the step is tried.

        Args:
            seen: The batch, on the device.
            done: Fraction of the training that is over: 0 at the first step.
            believe: Gives the logits of the averaged network.
        """

    def num_believed(self, seen: Prepared, done: float) -> int:
        """Number of images, in all processes together, that ``revise`` has the averaged network look at."""

    def epoch_figures(self) -> dict[str, float]:
        """What the epoch that ends has to say, by the name of a curve; the next epoch begins anew."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, for a checkpoint."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
