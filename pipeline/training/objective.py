"""What training minimises: cross-entropy per level against mass on classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from nstudent.labels.self_ensemble import RunningAverage
from nstudent.models.heads import Logits
from nstudent.training.schedules import sigmoid_ramp
from torch import Tensor

Targets = Sequence[Tensor]

CLEAN = "clean"
"""Name of the view without noise, which the mean teacher looks at."""


@dataclass(frozen=True)
class Moment:
    """One step as an objective sees it, or a part of one where the device cannot hold the whole batch.

    ``b`` is the number of images that are looked at together.
    """

    logits: Logits
    """Logits of the noised images, float32 (b, outputs) per level."""
    targets: Targets
    """Mass on each class, (b, outputs) per level; labelled images first."""
    num_labelled: int
    rows: Tensor
    """Row of each image in its examples, (b,)."""
    views: Mapping[str, Tensor]
    """Further views of the images, float32 (b, 3, side, side) each, by the names that the objective asked for."""
    believe: Callable[[Tensor], Logits]
    """Logits of the network with averaged weights, un-noised and without gradient."""
    done: float
    """Fraction of the training that is over: 0 at the first step."""
    whole_targets: Targets
    """Targets of the whole batch, which normalise the loss, so that the losses of its portions add up to that of the
    batch. In a run of several processes a row is a sum over images."""
    whole_labelled: int
    """Number of rows of ``whole_targets``, the first ones, that belong to labelled images."""
    whole_size: int
    """Images in the whole batch."""


class Objective(Protocol):
    """A loss to minimise, from one step."""

    def __call__(self, moment: Moment) -> Tensor:
        """A scalar."""


@runtime_checkable
class Stateful(Protocol):
    """An objective that learns from the steps itself."""

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""

    def settle(self) -> None:
        """The step is taken."""

    def forget(self) -> None:
        """The step is tried again."""


def level_cross_entropy(
    logits: Logits,
    targets: Targets,
    class_weights: Targets,
    level_weights: Sequence[float],
    smoothing: float,
    whole: Targets | None = None,
) -> Tensor:
    """Cross-entropy per level, averaged over levels.

    ``whole``, where the images are a part of a batch, are the targets of all of it: their mass is divided by.

    A level's loss is divided by the mass that is really there: one labelled image in a batch counts as one, and a batch
    in which nobody knows a level costs nothing there (where torch's own mean would be NaN).
    """
    total = logits[0].new_zeros(())
    rows = zip(logits, targets, whole or targets, class_weights, level_weights, strict=True)
    for level, mass, all_mass, weight, level_weight in rows:
        mass = _weighted(mass, weight, smoothing)
        there = mass if whole is None else _weighted(all_mass, weight, smoothing)
        loss = -(mass * level.log_softmax(dim=1)).sum() / there.sum().clamp_min(1e-6)
        total = total + level_weight * loss
    return total / sum(level_weights)


def _weighted(mass: Tensor, weight: Tensor, smoothing: float) -> Tensor:
    if smoothing:
        mass = (1 - smoothing) * mass + smoothing * mass.sum(dim=1, keepdim=True) / mass.shape[1]
    return mass * weight


@dataclass(frozen=True)
class Supervised:
    """The labels' loss, plus a weight times that of the pseudo-labels, where the batch has some."""

    is_recordable: ClassVar[bool] = True
    """It depends on tensors alone: what a GPU does for one batch it can repeat for the next one."""
    class_weights: Sequence[Tensor]
    level_weights: Sequence[float]
    smoothing: float
    unlabelled_weight: float = 0.0

    def __call__(self, moment: Moment) -> Tensor:
        """Labelled mean, smoothed + weight * pseudo-labelled mean; soft targets need no smoothing."""
        n, m = moment.num_labelled, moment.whole_labelled
        loss = self._part(moment, slice(None, n), slice(None, m), self.class_weights, self.smoothing)
        if self.unlabelled_weight and len(moment.rows) > n:
            rest = self._part(moment, slice(n, None), slice(m, None), self._even, 0.0)
            loss = loss + self.unlabelled_weight * rest
        return loss

    @cached_property
    def _even(self) -> list[Tensor]:
        """Weights of the pseudo-labels' classes: they are balanced by their copies instead."""
        return [torch.ones_like(weight) for weight in self.class_weights]

    def _part(self, moment: Moment, part: slice, whole: slice, weights: Sequence[Tensor], smoothing: float) -> Tensor:
        logits = tuple(level[part] for level in moment.logits)
        targets = [level[part] for level in moment.targets]
        # Where the whole batch is here, its mass is that of the targets.
        is_whole = len(moment.rows) == moment.whole_size
        all_targets = None if is_whole else [level[whole] for level in moment.whole_targets]
        return level_cross_entropy(logits, targets, weights, self.level_weights, smoothing, all_targets)


@dataclass(frozen=True)
class SelfEnsembling:
    """The loss of the filter: labels that still stand, and consistency with the mean teacher for every image.

    The mean teacher (arXiv 1703.01780) is the network with averaged weights, on the image without noise. Its
    predictions are also what the running averages of SELF are made of.
    """

    supervised: Supervised
    labelled: RunningAverage
    unlabelled: RunningAverage
    weight: float
    ramp: float
    average_from: float
    gather: Callable[[Tensor], Tensor] = lambda rows: rows
    """The rows of every process end to end, where there are several."""
    _seen: list[tuple[int, Tensor, list[Tensor]]] = field(default_factory=list)
    """Predictions of this step that are not in the averages yet: a step that is tried again counts once."""

    def __call__(self, moment: Moment) -> Tensor:
        """Supervised loss + ramp(t) * weight * mean squared difference of probabilities."""
        belief = [level.softmax(dim=1) for level in moment.believe(moment.views[CLEAN])]
        if moment.done >= self.average_from:
            self._seen.append((moment.num_labelled, moment.rows, belief))
        gaps = [
            (level.softmax(dim=1) - taught).square().sum() / moment.whole_size
            for level, taught in zip(moment.logits, belief, strict=True)
        ]
        strength = self.weight * sigmoid_ramp(moment.done, self.ramp)
        return self.supervised(moment) + strength * torch.stack(gaps).mean()

    def settle(self) -> None:
        """The step is taken: its predictions enter the averages."""
        for n, rows, belief in self._seen:
            for average, part in ((self.labelled, slice(None, n)), (self.unlabelled, slice(n, None))):
                average.update(self.gather(rows[part]), [self.gather(level[part]) for level in belief])
        self._seen.clear()

    def forget(self) -> None:
        """The step is tried again: its predictions will come once more."""
        self._seen.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """The running averages, for a checkpoint."""
        parts = {"labelled": self.labelled, "unlabelled": self.unlabelled}
        return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """From a checkpoint."""
        for name, part in {"labelled": self.labelled, "unlabelled": self.unlabelled}.items():
            prefix = f"{name}."
            part.load_state_dict({key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)})
