"""The formulas of Meta Pseudo Labels: what a student's step has gained, and what its teacher learns from that.

Pham et al., arXiv 2003.10580, algorithm 1 and appendix A. The teacher labels images of the heap, the student takes a
step on these labels, and h says how much better it then is on labelled images. A label is made more probable by the
gradient of h * CE(teacher, label), which is the rule of REINFORCE with h as the reward.

Two mistakes of the code that the authors have published are avoided, and tests hold that (``test_meta_feedback.py``).
There the label of the teacher's loss is its own softmax: the gradient of CE(stopped softmax(z), z) is softmax(z) -
softmax(z), zero for every h. And h is CE(new) - CE(old) there, so that labels that helped would be made less probable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from nstudent.labels.belief_weights import only_as_deep
from nstudent.labels.best_path import BestPath
from nstudent.models.heads import Logits
from nstudent.taxonomy.outputs import Outputs
from nstudent.training.objective import Moment, Part, Supervised, mean_loss
from torch import Tensor


def gain(before: Tensor, after: Tensor) -> Tensor:
    """What a step of the student has gained, a scalar: its loss on labelled images before the step minus that after it.

    It is positive where the student has become better. To the first order in the learning rate it is the rate times the
    scalar product of the gradients on the labelled and on the unlabelled images, the h of algorithm 1.

    Args:
        before: Cross-entropy on labelled images before the step, a scalar.
        after: The same after it, with the same images and batch statistics.
    """
    return before - after


class GainMean:
    """The running mean of the gains, against which each is held.

    Without it nearly every label would be confirmed: what earlier steps have begun, in the moments of the optimiser,
    goes on to help whichever label a step has. The authors' code subtracts such a mean, too. That of the first n steps
    weighs the n-th one by (1 - momentum) / (1 - momentum^n), and so needs no random start, as theirs has one.
    """

    def __init__(self, momentum: float | None, device: torch.device) -> None:
        """``momentum``: weight of the past, a step; ``None``: nothing is subtracted."""
        self._momentum = momentum
        self._mean = torch.zeros((), device=device)
        self._steps = 0

    def above(self, gained: Tensor) -> Tensor:
        """How far a gain, a scalar, lies above those before it, which it then joins; the first one counts in full."""
        if self._momentum is None:
            return gained
        above = gained - self._mean
        self._steps += 1
        weight = (1 - self._momentum) / (1 - self._momentum**self._steps)
        self._mean = self._mean + weight * above
        return above

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"mean": self._mean, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._mean = state["mean"].to(self._mean.device)
        self._steps = state["steps"]


class HardLabels:
    """Turns what a network says into hard labels: all mass of a level on one output, along one path of the tree."""

    def __init__(self, outputs: Outputs) -> None:
        """``outputs``: of the network."""
        self._outputs = outputs
        self._decoder = BestPath(outputs)

    def __call__(self, logits: Logits) -> tuple[Tensor, ...]:
        """Logits per level -> mass per level, each (b, outputs): zeros at a level that the path does not reach."""
        paths = self._decoder.decode([level.softmax(dim=1) for level in logits]).paths.long()
        mass = []
        for number, level in enumerate(logits):
            ended = self._outputs.nothing(number)
            output = torch.where(paths[:, number] < 0, -1 if ended is None else ended, paths[:, number])
            every = torch.arange(level.shape[1], device=level.device)
            mass.append((output[:, None] == every).to(level.dtype))
        return tuple(mass)


def uda_mass(
    logits: Logits, hard: Sequence[Tensor], temperature: float, threshold: float
) -> tuple[tuple[Tensor, ...], Tensor]:
    """What the teacher is to say of the strong view: what it says of the weak one, sharpened, where it is sure.

    Unsupervised Data Augmentation (Xie et al., arXiv 1904.12848): softmax(logits / temperature), and nothing
    for an image whose largest probability is below the threshold. Level by level, and only as deep as every level above
    is sure and the decoded path reaches.

    Args:
        logits: Those of the weak view, (b, outputs) per level.
        hard: What ``HardLabels`` makes of them.
        temperature: Below 1 it sharpens.
        threshold: Probability, 0 to 1.

    Returns:
        The mass, like ``logits``, and which levels have some, (b, levels) of 0 and 1.
    """
    sure = [level.softmax(dim=1).amax(dim=1) >= threshold for level in logits]
    reached = [level.sum(dim=1) > 0 for level in hard]
    taught = only_as_deep(torch.stack([a & b for a, b in zip(sure, reached, strict=True)], dim=1).to(logits[0].dtype))
    mass = tuple((level / temperature).softmax(dim=1) * taught[:, n, None] for n, level in enumerate(logits))
    return mass, taught


def signed_cross_entropy(logits: Logits, mass: Sequence[Tensor], level_weights: Sequence[float]) -> Tensor:
    """Cross-entropy summed over images, and averaged over levels by their weights: a scalar that is linear in the mass.

    Args:
        logits: (b, outputs) per level.
        mass: Like ``logits``. Unlike that of every other loss it may be negative: such a class is made less probable.
        level_weights: Weight of each level.
    """
    rows = zip(logits, mass, level_weights, strict=True)
    total = sum(-weight * (wanted * said.log_softmax(dim=1)).sum() for said, wanted, weight in rows)
    assert isinstance(total, Tensor)
    return total / sum(level_weights)


@dataclass(frozen=True)
class StudentLoss:
    """The loss of the student of Meta Pseudo Labels: of the teacher's hard labels alone, which are all that it sees."""

    average_passes: ClassVar[int] = 0
    # Between two of its steps the teacher looks at images: nothing that a GPU could repeat by itself.
    is_recordable: ClassVar[bool] = False
    supervised: Supervised
    """Losses and weights of the levels."""

    def __call__(self, moment: Moment) -> Tensor:
        """The mean over the images of the heap, a scalar."""
        return self.of(moment.heap, moment.done)

    def of(self, part: Part, done: float) -> Tensor:
        """The mean over some images without smoothing, a scalar; ``done``: fraction of the training that is over."""
        return mean_loss(self.supervised.heap, part, self.supervised.weights_at(done))


@dataclass(frozen=True)
class TeacherLoss:
    """The loss of the teacher of Meta Pseudo Labels.

    It is that of the given labels, and over the images of the heap the mean of the cross-entropies against the mass
    that each row of the batch brings with it: a row for the strong view with that of ``uda_mass`` times its weight, and
    one for the weak view with the hard label times its feedback. Both are linear in the mass.
    """

    average_passes: ClassVar[int] = 0
    is_recordable: ClassVar[bool] = False
    supervised: Supervised
    """The loss of the given labels."""

    def __call__(self, moment: Moment) -> Tensor:
        """A scalar."""
        weights = self.supervised.weights_at(moment.done)
        of_heap = signed_cross_entropy(moment.heap.logits, moment.heap.mass, weights)
        # Each image has two rows.
        return self.supervised(moment) + of_heap / max(1, moment.whole_images[1] // 2)
