"""What the steps of a training learn from, in their order: loaded, noised and mixed ahead of the step that needs it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

import torch
from nstudent.data.batches import Batches
from nstudent.machine import available_cores
from nstudent.noise.steps import Prepared
from nstudent.training.preparation import Ahead, Preparation


class Feed:
    """The batches of a training, prepared by a thread while the step before is taken."""

    def __init__(self, batches: Batches, preparation: Preparation, device: torch.device, workers: int = 0) -> None:
        """Make a feed.

        Args:
            batches: The batches, by step.
            preparation: What is done to them on the device.
            device: Where the network trains.
            workers: Number of processes that load images; 0: none.
        """
        self.batches = batches
        self.preparation = preparation
        self._device = device
        self._workers = workers

    def between(self, first: int, last: int) -> Generator[Prepared, None, None]:
        """What the steps ``first`` to ``last - 1`` learn from.

        Close it: threads and processes end with it.
        """
        batches = self.batches.load(first, last, self._workers, pin_memory=self._device.type == "cuda")
        prepared = self.preparation.each(batches, first)
        # On a CPU noise is work for a second core. A GPU does it itself, but drawing it and telling it takes the host
        # as long as half a forward pass of a small network.
        if available_cores() == 1 or (self._workers and self._device.type == "cpu"):
            return prepared
        return self._ahead(prepared)

    def _ahead(self, items: Generator[Prepared, None, None]) -> Generator[Prepared, None, None]:
        with closing(Ahead(items, lambda: self.preparation.depth)) as ahead:
            for item in ahead:
                yield replace(item, meanwhile=ahead.begin)
