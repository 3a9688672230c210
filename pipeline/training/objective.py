"""What training minimises, from the losses of single images: means over the whole batch, whoever has its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from nstudent.labels.self_ensemble import RunningAverage
from nstudent.models.heads import Logits
from nstudent.taxonomy.outputs import SILENT, Outputs
from nstudent.taxonomy.tree import LabelArray
from nstudent.training.held_out import HeldOut
from nstudent.training.losses import Loss
from nstudent.training.schedules import LevelSchedule, sigmoid_ramp
from torch import Tensor

CLEAN = "clean"
"""Name of the view without noise, which the mean teacher looks at."""

_LEAST_WEIGHT = 1e-6
"""What the images of a batch count together at a level that none of them knows."""


@dataclass(frozen=True)
class Part:
    """The labelled images that are looked at together, or those of the heap, as a loss sees them."""

    logits: Logits
    """float32 (b, outputs) per level."""
    mass: Sequence[Tensor]
    """What is to be learnt, float32 (b, outputs) per level."""
    whole_mass: Sequence[Tensor]
    """The same summed over all images of this kind in the batch, (outputs,) per level: also over those that are worked
    on in another portion or by another process."""


@dataclass(frozen=True)
class Moment:
    """One step as an objective sees it, or a portion of one if the device cannot hold the whole batch.

    ``b`` is the number of images that are looked at together; the labelled ones come first.
    """

    logits: Logits
    """Logits of the noised images, float32 (b, outputs) per level."""
    mass: Sequence[Tensor]
    """What is to be learnt, float32 (b, outputs) per level."""
    num_labelled: int
    rows: Tensor
    """Row of each image in its examples, (b,)."""
    views: Mapping[str, Tensor]
    """Further views of the images, float32 (b, 3, side, side) each, by the names that the objective asked for."""
    believe: Callable[[Tensor], Logits]
    """Logits of the network with averaged weights, un-noised and without gradient."""
    done: float
    """Fraction of the training that is over: 0 at the first step."""
    whole_mass: Sequence[Tensor]
    """Mass summed over the whole batch, (2, outputs) per level: of its labelled images, and of its others."""
    whole_images: tuple[int, int]
    """Number of labelled images in the whole batch, and of others."""

    @property
    def labelled(self) -> Part:
        """The labelled images."""
        return self._part(slice(None, self.num_labelled), 0)

    @property
    def heap(self) -> Part:
        """The other images; there may be none."""
        return self._part(slice(self.num_labelled, None), 1)

    def _part(self, places: slice, kind: int) -> Part:
        return Part(
            logits=tuple(level[places] for level in self.logits),
            mass=[level[places] for level in self.mass],
            whole_mass=[level[kind] for level in self.whole_mass],
        )


class Objective(Protocol):
    """A loss to minimise, from one step."""

    average_passes: ClassVar[int]
    """How often each image goes through the averaged network in a step, without gradient."""

    @property
    def is_recordable(self) -> bool:
        """Whether it depends on tensors alone: what a GPU does for one batch it can then repeat for the next one."""

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


def mean_loss(
    loss: Loss, part: Part, level_weights: Sequence[float], least_images: Sequence[float] | None = None
) -> Tensor:
    """The loss of a part of a batch, averaged over its images and over levels.

    A level's loss is divided by what the images of the whole batch count there: one labelled image in a batch counts as
    one, a batch in which nobody knows a level costs nothing there (torch's own mean would be NaN), and the losses of
    the portions of a batch, also of those in several processes, add up to that of the batch.

    Args:
        loss: The loss of an image at each level.
        part: The images.
        level_weights: Weight of each level.
        least_images: Per level, the smallest number of images that its loss is divided by; ``None``: any number above
            zero.

    Returns:
        A scalar.
    """
    total = part.whole_mass[0].new_zeros(())
    least = [_LEAST_WEIGHT] * len(part.whole_mass) if least_images is None else least_images
    rows = zip(loss(part.logits, part.mass), loss.weight(part.whole_mass), level_weights, least, strict=True)
    for of_images, counted, level_weight, at_least in rows:
        total = total + level_weight * (of_images.sum() / counted.clamp_min(max(at_least, _LEAST_WEIGHT)))
    return total / sum(level_weights)


@dataclass(frozen=True)
class CoarsePrior:
    """The coarse category consistency of HD-CNN (arXiv 1410.0736): in the mean over the labelled images of a batch the
    network's first level is to be what it is among the labels, so that a router sends no expert away for good.

    It is weight / 2 times the squared distance of the two. If a batch is worked on in portions, or by several
    processes, each takes the mean over its own images and counts by their number.
    """

    shares: Tensor
    """Share of each output of the first level among the labels, float32 (outputs,), on the device."""
    weight: float

    @classmethod
    def of(cls, weight: float, labels: LabelArray, outputs: Outputs, device: torch.device) -> CoarsePrior | None:
        """That of some labels, (images, levels); ``None`` if it has no weight.

        Args:
            weight: ``coarse_prior_weight`` of the configuration.
            labels: Labels of the labelled training images.
            outputs: Outputs of the network that is trained.
            device: Where it is trained.
        """
        if not weight:
            return None
        coarse = outputs.indices(labels)[:, 0]
        counts = np.bincount(coarse[coarse != SILENT], minlength=outputs.sizes[0])
        shares = torch.from_numpy(counts / max(1, counts.sum())).float()
        return cls(shares.to(device), weight)

    def __call__(self, part: Part, whole_images: int) -> Tensor:
        """A scalar; ``whole_images``: number of labelled images in the whole batch."""
        images = part.logits[0].shape[0]
        mean = part.logits[0].float().softmax(dim=1).sum(dim=0) / max(1, images)
        return self.weight * images / max(1, whole_images) * (mean - self.shares).square().sum() / 2


@dataclass(frozen=True)
class Supervised:
    """The labels' loss, plus a weight times that of the pseudo-labels, if the batch has some."""

    average_passes: ClassVar[int] = 0
    labelled: Loss
    heap: Loss
    """That of the pseudo-labels: their classes are balanced by copies, and soft targets need no smoothing."""
    level_weights: Sequence[float]
    unlabelled_weight: float = 0.0
    heap_shares: Sequence[float] | None = None
    """Per level, the share of the shown images of the heap that could have a pseudo-label there, kept or not. The loss
    of a level is divided by at least so many of a batch's images, as in FixMatch (arXiv 2001.07685, equation 4): the
    fewer labels are kept, the less the level counts, and no image counts more because others have lost their label.
    ``None``: it is divided by what is kept, as it is for given labels."""
    coarse_prior: CoarsePrior | None = None
    """Draws the mean of the first level to its share among the labels; ``None``: nothing does."""
    level_schedule: LevelSchedule | None = None
    """Gives a factor on the weight of each level from the fraction of the training that is done; ``None``: all 1."""

    @property
    def is_recordable(self) -> bool:
        """Whether no number of the host changes from step to step: those of a schedule do."""
        return self.level_schedule is None

    def __call__(self, moment: Moment) -> Tensor:
        """Labelled mean + weight * pseudo-labelled mean, and what the coarse prior adds."""
        weights = self.weights_at(moment.done)
        loss = mean_loss(self.labelled, moment.labelled, weights)
        if self.coarse_prior is not None:
            loss = loss + self.coarse_prior(moment.labelled, moment.whole_images[0])
        if self.unlabelled_weight and len(moment.rows) > moment.num_labelled:
            loss = loss + self.unlabelled_weight * self._of_heap(moment, weights)
        return loss

    def weights_at(self, done: float) -> Sequence[float]:
        """Weight of each level, coarse first, when this fraction of the training is done."""
        if self.level_schedule is None:
            return self.level_weights
        shares = self.level_schedule(done, len(self.level_weights))
        return [weight * share for weight, share in zip(self.level_weights, shares, strict=True)]

    def _of_heap(self, moment: Moment, level_weights: Sequence[float]) -> Tensor:
        # Numbers of the host that no step changes: a recorded step has them built in.
        images = moment.whole_images[1]
        least = None if self.heap_shares is None else [share * images for share in self.heap_shares]
        return mean_loss(self.heap, moment.heap, level_weights, least)


@dataclass(frozen=True)
class SelfEnsembling:
    """The loss of the filter: labels that still stand, and consistency with the mean teacher for every image.

    The mean teacher (arXiv 1703.01780) is the network with averaged weights, on the image without noise. Its
    predictions, over the whole of the training, are also what the running averages of SELF are made of.

    The distance is the squared one, summed over the classes of a level. Mean Teacher takes its mean over the classes,
    times 100 on CIFAR-10: at ten classes that is ``weight`` = 10.
    """

    # The ramp is a number of the host, and the averages that it feeds change what a step does.
    is_recordable: ClassVar[bool] = False
    average_passes: ClassVar[int] = 1
    supervised: Supervised
    labelled: RunningAverage
    unlabelled: RunningAverage
    weight: float
    ramp: float
    held_out: HeldOut | None = None
    """Held-out images, which the mean teacher predicts as often as the others."""
    gather: Callable[[Tensor], Tensor] = lambda rows: rows
    """The rows of every process end to end, where there are several."""
    _seen: list[tuple[int, Tensor, list[Tensor]]] = field(default_factory=list)
    """Predictions of this step that are not in the averages yet: a step that is tried again counts once."""

    def __call__(self, moment: Moment) -> Tensor:
        """Supervised loss + ramp(t) * weight * mean squared difference of probabilities."""
        clean = moment.views[CLEAN]
        belief = [level.softmax(dim=1) for level in moment.believe(clean)]
        self._seen.append((moment.num_labelled, moment.rows, belief))
        if self.held_out is not None:
            self.held_out.look(moment.done, moment.believe, len(moment.rows), clean.shape[-1])
        gaps = [
            (level.softmax(dim=1) - taught).square().sum() / sum(moment.whole_images)
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
        if self.held_out is not None:
            self.held_out.settle()

    def forget(self) -> None:
        """The step is tried again: its predictions will come once more."""
        self._seen.clear()
        if self.held_out is not None:
            self.held_out.forget()

    @property
    def _averages(self) -> dict[str, RunningAverage]:
        held_out = {} if self.held_out is None else {"held_out": self.held_out.average}
        return {"labelled": self.labelled, "unlabelled": self.unlabelled} | held_out

    def state_dict(self) -> dict[str, Tensor]:
        """The running averages, for a checkpoint."""
        parts = self._averages.items()
        return {f"{name}.{key}": value for name, part in parts for key, value in part.state_dict().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """From a checkpoint."""
        for name, part in self._averages.items():
            prefix = f"{name}."
            part.load_state_dict({key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)})
