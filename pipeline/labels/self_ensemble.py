"""SELF: a label stays while the running average of the network's own predictions agrees with it.

Nguyen et al., "SELF: learning to filter noisy labels with self-ensembling", arXiv 1910.01842. Here it works level by
level: under a right coarse class, a wrong fine one becomes unknown and the image stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nstudent.errors import TrainingError
from nstudent.machine import available_memory
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import LabelArray
from torch import Tensor

_NEVER_SEEN = -1.0
_COPIES = 3
"""How often the averages lie in memory: themselves, and while a checkpoint is written a copy and its content."""


def check_memory(num_rows: int, outputs: Outputs) -> None:
    """Say before hours of training that the averages of so many images would not fit.

    Raises:
        TrainingError: they would not; the line names the bytes needed, those there are, and the ways out.
    """
    numbers, available = sum(outputs.sizes), available_memory()
    needed = _COPIES * num_rows * numbers * torch.float32.itemsize
    if available is not None and needed > available:
        raise TrainingError(
            f"the filter keeps a running average of {numbers:,} numbers for each of {num_rows:,} images: "
            f"{needed:,} bytes with its checkpoint, and {available:,} are available; set filter.enabled=false, "
            "or data.unlabelled to fewer images"
        )


class RunningAverage:
    """Per image and level, the average of predicted distributions over the passes of a training."""

    def __init__(self, num_rows: int, outputs: Outputs, momentum: float, device: torch.device | None = None) -> None:
        """Averages of ``num_rows`` images, none of them seen yet.

        Args:
            num_rows: Number of images.
            outputs: Outputs of the network.
            momentum: Weight of the past in an average.
            device: Where the averages are kept; default: the CPU. On the device that trains no step waits for them.
        """
        self._momentum = momentum
        self._average = [torch.full((num_rows, size), _NEVER_SEEN, device=device) for size in outputs.sizes]

    def update(self, rows: Tensor, probabilities: Sequence[Tensor]) -> None:
        """Fold in the predictions for ``rows``, (b,): (b, outputs) per level; the first one is taken as it is."""
        for average, seen in zip(self._average, probabilities, strict=True):
            here = rows.to(average.device)
            before = average[here]
            now = seen.detach().float().to(average.device)
            mixed = self._momentum * before + (1 - self._momentum) * now
            average[here] = torch.where(before == _NEVER_SEEN, now, mixed)

    def agrees(self, labels: LabelArray) -> Tensor:
        """bool (rows, levels): the average's most probable class is the label's. A level without a class agrees."""
        given = torch.from_numpy(labels.astype("int64"))
        agreement = torch.ones(given.shape, dtype=torch.bool)
        for level, average in enumerate(self._average):
            average = average.cpu()
            # A row that was never drawn has had no say.
            doubted = (average.argmax(dim=1) != given[:, level]) & (average[:, 0] != _NEVER_SEEN)
            agreement[:, level] = ~(doubted & (given[:, level] >= 0))
        return agreement

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {f"level-{level}": average for level, average in enumerate(self._average)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """From a checkpoint."""
        for level, average in enumerate(self._average):
            average.copy_(state[f"level-{level}"])
