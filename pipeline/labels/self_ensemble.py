"""SELF: a network's own predictions of an image, averaged over its training, are what labels are held against.

Nguyen et al., "SELF: learning to filter noisy labels with self-ensembling", arXiv 1910.01842. Here it works level by
level: under a right coarse class, a wrong fine one becomes unknown and the image stays. The average is an exponential
one over the passes of the whole training, and corrected for its start as in temporal ensembling (arXiv 1610.02242,
algorithm 2): in a short training every pass counts nearly the same, and the first one is not all there is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from nstudent.errors import RefusedError
from nstudent.labels.evidence import Distribution, Weights, pooled
from nstudent.labels.store import LabelStore
from nstudent.labels.wrong_labels import WrongLabels
from nstudent.machine import available_memory
from nstudent.taxonomy.outputs import SILENT, Outputs
from nstudent.taxonomy.tree import LabelArray
from torch import Tensor

_COPIES = 3
"""How often the averages lie in memory: themselves, and while a checkpoint is written a copy and its content."""
_CELLS_AT_ONCE = 1 << 22

Keep = npt.NDArray[np.bool_]


def check_memory(num_rows: int, outputs: Outputs) -> None:
    """Say before hours of training that the averages of so many images would not fit.

    Raises:
        RefusedError: they would not; the line names the bytes needed, those there are, and the ways out.
    """
    numbers, available = sum(outputs.sizes) + 1, available_memory()
    needed = _COPIES * num_rows * numbers * torch.float32.itemsize
    if available is not None and needed > available:
        raise RefusedError(
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
        self._average = [torch.zeros((num_rows, size), device=device) for size in outputs.sizes]
        self._seen = torch.zeros(num_rows, device=device)
        """How often each image was predicted: float32, to calculate with."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self._seen)

    def update(self, rows: Tensor, probabilities: Sequence[Tensor]) -> None:
        """Fold in the predictions for ``rows``, (b,): (b, outputs) per level.

        The n-th prediction of an image counts (1 - momentum) / (1 - momentum^n): the first one is taken as it is.
        """
        here = rows.to(self._seen.device)
        seen = self._seen[here] + 1
        self._seen[here] = seen
        weight = ((1 - self._momentum) / (1 - self._momentum**seen))[:, None]
        for average, said in zip(self._average, probabilities, strict=True):
            before = average[here]
            average[here] = before + weight * (said.detach().float().to(average.device) - before)

    def distributions(self, rows: slice = slice(None)) -> list[Distribution]:
        """The averages of some images, (rows, outputs) per level; of zeros where an image was never seen."""
        return [average[rows].cpu().numpy() for average in self._average]

    def has_seen(self, rows: slice = slice(None)) -> Keep:
        """Which images were ever predicted, (rows,)."""
        return np.asarray(self._seen[rows].cpu().numpy() > 0)

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"seen": self._seen} | {f"level-{level}": average for level, average in enumerate(self._average)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """From a checkpoint."""
        for name, ours in self.state_dict().items():
            ours.copy_(state[name])


def standing_pseudo_labels(
    store: LabelStore, average: RunningAverage, weights: Sequence[Weights], outputs: Outputs, threshold: float
) -> Keep:
    """Which levels of the stored labels stand, (rows, levels).

    A level stands where its class is at least as probable as ``threshold`` by what labeller and self-ensemble say
    together, and those above it stand. Of an image that was never predicted the labels stand as they are.

    Args:
        store: The labels, and what the labeller says of their images.
        average: What the self-ensemble says of them, row for row.
        weights: How much either counts, by level.
        outputs: Those of both.
        threshold: Probability.
    """
    stands = np.ones((len(store), len(weights)), dtype=bool)
    rows_at_once = max(1, _CELLS_AT_ONCE // max(outputs.sizes))
    for part in store.parts():
        for first in range(part.rows.start, part.rows.stop, rows_at_once):
            rows = slice(first, min(first + rows_at_once, part.rows.stop))
            here = slice(rows.start - part.rows.start, rows.stop - part.rows.start)
            said = outputs.indices(part.paths[here])
            for level, (ensemble, weight) in enumerate(zip(average.distributions(rows), weights, strict=True)):
                labeller = np.asarray(store.probabilities[level][np.arange(rows.start, rows.stop)], dtype=np.float32)
                probability = _of(pooled(labeller, ensemble, weight), said[:, level])
                # Stored in full precision, so that a labeller that is heard alone has the last word to the last digit.
                if not weight.ensemble:
                    probability = part.confidence[here, level]
                stands[rows, level] = (probability >= np.float32(threshold)) | (said[:, level] == SILENT)
            stands[rows] |= ~average.has_seen(rows)[:, None]
    return np.logical_and.accumulate(stands, axis=1)


def standing_given_labels(
    labels: LabelArray,
    probe: Sequence[Distribution] | None,
    average: RunningAverage,
    weights: Sequence[Weights],
    outputs: Outputs,
    threshold: float,
) -> tuple[Keep, tuple[float, ...]]:
    """Which levels of the given labels stand, (images, levels), and the share that is estimated to be wrong, by level.

    A level stands where its label is right at least with the probability ``threshold``, by what a probe and the
    self-ensemble together say of the image and by how often labels are wrong (``WrongLabels``), and those above it
    stand. An image that the self-ensemble has never predicted keeps its label.

    Args:
        labels: (images, levels).
        probe: What probes say of the images that were not fitted to their labels, (images, outputs) per level; a row
            of zeros where they say nothing. ``None``: there is no probe.
        average: What the self-ensemble says of them. It has learnt from the labels.
        weights: How much either counts, by level: the probe as ``labeller``.
        outputs: Those of both.
        threshold: Probability.
    """
    given, stands, rates = outputs.indices(labels), np.ones(labels.shape, dtype=bool), []
    seen = average.has_seen()
    for level, (ensemble, weight) in enumerate(zip(average.distributions(), weights, strict=True)):
        first = ensemble if probe is None else probe[level]
        judged = np.flatnonzero((given[:, level] != SILENT) & seen & (first.sum(axis=1) > 0))
        said, of_these = pooled(first[judged], ensemble[judged], weight), given[judged, level]
        right = WrongLabels.fit(said, of_these).right(said, of_these)
        rates.append(float(1 - right.mean()) if len(judged) else 0.0)
        stands[judged, level] = right >= threshold
    return np.logical_and.accumulate(stands, axis=1), tuple(rates)


def _of(distribution: Distribution, output: npt.NDArray[np.int32]) -> Distribution:
    """The probability of one output of each row, (rows,); where it is ``SILENT``, of any."""
    return np.asarray(distribution[np.arange(len(output)), np.maximum(output, 0)])
