"""Two networks that teach each other: Meta Pseudo Labels (Pham et al., arXiv 2003.10580).

Of each batch, with the heap's images in a weakly and in a strongly noised view:

1. the teacher, un-noised, gives the weak view hard labels, one path of the tree for each image;
2. the student takes a step on the strong view with these labels, and on nothing else;
3. its loss on the labelled images before and after the step tells what the labels were worth (``gain``);
4. the teacher takes a step on the given labels, on the consistency of its two views (``uda_mass``), and on its own hard
   labels times what they were worth.

The networks are two ordinary learners, each with its optimiser, schedule, average and checks. One step of this method
is one of each, and nothing is written between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from nstudent.config.schema import MetaConfig, TrainingConfig
from nstudent.distributed.ranks import sum_over
from nstudent.models.cost import Spent
from nstudent.models.heads import Logits
from nstudent.models.network import Network
from nstudent.models.resizing import resized
from nstudent.noise.steps import Prepared
from nstudent.randomness import Key
from nstudent.taxonomy.outputs import Outputs
from nstudent.training.learner import Learner
from nstudent.training.loop import Length
from nstudent.training.meta_batches import for_student, for_teacher
from nstudent.training.meta_feedback import GainMean, HardLabels, StudentLoss, TeacherLoss, gain, uda_mass
from nstudent.training.objective import Part, Supervised
from nstudent.training.own_beliefs import WEAK
from nstudent.training.pieces import InPieces
from nstudent.training.schedules import linear_ramp
from nstudent.training.spending import Spending
from nstudent.training.surroundings import Surroundings
from torch import Tensor


@dataclass(frozen=True)
class MetaPseudoLabels:
    """What makes the method of a lesson in which a student has a teacher that learns beside it."""

    config: MetaConfig
    outputs: Outputs
    """Outputs of both networks."""
    supervised: Supervised
    """The loss of the given labels, and that of the pseudo-labels."""
    num_labelled: int
    """Number of labelled images in a whole batch."""
    build: Callable[[Key], Network]
    """Makes the teacher as it is before its first step."""

    def __call__(self, network: Network, training: TrainingConfig, length: Length, where: Surroundings) -> MetaLearner:
        """The joint training of ``network``, the student, and of a teacher with other first weights."""
        world = where.world
        first = self.num_labelled * (world.rank + 1) // world.size - self.num_labelled * world.rank // world.size

        def of_student(step: int) -> Sequence[str]:
            return where.images_of(step)[first:]

        def of_teacher(step: int) -> Sequence[str]:
            return [*where.images_of(step), *of_student(step)]

        key = (*where.key, "teacher")
        teacher = Learner(
            self.build(key),
            TeacherLoss(self.supervised),
            training,
            length,
            replace(where, key=key, images_of=of_teacher),
        )
        loss = StudentLoss(self.supervised)
        student = Learner(network, loss, training, length, replace(where, images_of=of_student))
        return MetaLearner(student, teacher, loss, self, where)


class MetaLearner:
    """The ``Method`` of Meta Pseudo Labels: a student, which is kept, and its teacher."""

    def __init__(
        self, student: Learner, teacher: Learner, loss: StudentLoss, settings: MetaPseudoLabels, where: Surroundings
    ) -> None:
        """Put two learners together.

        Args:
            student: The one that is kept; it learns ``loss``.
            teacher: The one that labels for it; its objective is a ``TeacherLoss``.
            loss: What the student is judged by on labelled images, too.
            settings: How they learn together.
            where: What they find around them.
        """
        self.student = student
        self.teacher = teacher
        self._loss = loss
        self._config = settings.config
        self._placement = where.placement
        self._world = where.world
        self._hard = HardLabels(settings.outputs)
        self._looks = InPieces(settings.outputs.sizes, where.placement)
        self._mean = GainMean(settings.config.baseline, where.placement.device)
        self._looked = Spending(student.network, computes_twice=False)
        """Passes forward without gradient: labels of the teacher, and the student on the labelled images, twice."""
        self._told = torch.zeros(4, device=where.placement.device)
        """Summed over the steps of this epoch: gains, losses of the teacher, levels with consistency, and levels."""
        self._steps = 0
        """Number of steps of this epoch."""

    @property
    def kept(self) -> Network:
        """The student with averaged weights."""
        return self.student.kept

    @property
    def learning_rate(self) -> float:
        """Learning rate of the student's last step."""
        return self.student.learning_rate

    @property
    def spent(self) -> Spent:
        """What both networks have cost so far."""
        each = [self.student.spent, self.teacher.spent, self._looked.spent]
        return Spent(sum(one.image_passes for one in each), sum(one.training_gmacs for one in each))

    def learn(self, prepared: Prepared, step: int, done: float) -> Tensor:
        """Take a step with each network, and return the student's loss: a scalar on the device; see ``Method``.

        Raises:
            TrainingError: This step, or on a GPU one of the last few dozen, is not finite, or the memory is too small.
        """
        first, side = prepared.batch.num_labelled, prepared.images.shape[-1]
        weak = prepared.batch.views[WEAK]
        said = self._looks(self._unnoised(self.teacher.network), weak[first:], side)
        hard = self._hard(said)
        # A gain is what the weights have gained: the step moves the batch statistics as well, by as much at any rate.
        buffers = list(self.student.network.buffers())
        statistics = [buffer.clone() for buffer in buffers]
        before = self._on_labelled(prepared, done)
        loss = self.student.learn(for_student(prepared, hard, self._world), step, done)
        with _set_to(buffers, statistics):
            gained = gain(before, self._on_labelled(prepared, done))
        consistent, taught = uda_mass(said, hard, self._config.uda_temperature, self._config.uda_threshold)
        feedback = self._config.feedback * self._mean.above(gained)
        strength = self._config.uda_weight * linear_ramp(done, 0.0, self._config.uda_ramp)
        views = self._placement.images(weak[first:])
        taught_both = [strength * level for level in consistent], [feedback * level for level in hard]
        of_teacher = self.teacher.learn(for_teacher(prepared, resized(views, side), *taught_both), step, done)
        labelled, heap = prepared.batch.whole_images
        self._looked.add(0, side, averaged=heap + 2 * labelled)
        levels = torch.stack([taught.sum(), taught.new_full((), taught.numel())])
        sum_over(self._world, levels)
        self._told = self._told + torch.cat([torch.stack([gained, of_teacher]), levels])
        self._steps += 1
        return loss

    def _unnoised(self, network: Network) -> Callable[[Tensor], Logits]:
        """Asks a network with the weights that it has now, in evaluation mode and without gradient."""

        def ask(images: Tensor) -> Logits:
            network.eval()
            with torch.no_grad(), self._placement.autocast(network):
                logits = network(images)
            network.train()
            return tuple(level.float() for level in logits)

        return ask

    def _on_labelled(self, prepared: Prepared, done: float) -> Tensor:
        """The student's loss on the weak view of the labelled images, as their given labels have it: a scalar."""
        batch = prepared.batch
        ask, number = self._unnoised(self.student.network), batch.num_labelled
        logits = self._looks(ask, batch.views[WEAK][:number], prepared.images.shape[-1])
        mass = [level[:number] for level in batch.targets]
        loss = self._loss.of(Part(logits, mass, [level[0] for level in prepared.whole_mass]), done)
        sum_over(self._world, loss)
        return loss

    def hear(self, score: float) -> None:
        """Take in the validation score of the student; the schedules of both may go by it."""
        self.student.hear(score)
        self.teacher.hear(score)

    def check(self) -> None:
        """Look at every step of both networks that was not looked at yet.

        Raises:
            TrainingError: One of them is not finite.
        """
        self.student.check()
        self.teacher.check()

    def epoch_figures(self) -> dict[str, float]:
        """Mean gain and mean loss of the teacher, and the share of levels with consistency; the next begins anew."""
        gained, of_teacher, taught, levels = self._told.tolist()
        steps = max(1, self._steps)
        self._told, self._steps = torch.zeros_like(self._told), 0
        return {
            "meta_gain": gained / steps,
            "teacher_loss": of_teacher / steps,
            "uda_share": taught / max(1.0, levels),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on: of both networks, and what was measured between them."""
        return {
            "student": self.student.state_dict(),
            "teacher": self.teacher.state_dict(),
            "mean": self._mean.state_dict(),
            "looked": self._looked.spent.to_json(),
            "told": self._told,
            "steps_told": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        self.student.load_state_dict(state["student"])
        self.teacher.load_state_dict(state["teacher"])
        self._mean.load_state_dict(state["mean"])
        self._looked.go_on_from(Spent(**state["looked"]))
        self._told = state["told"].to(self._told.device)
        self._steps = state["steps_told"]


@contextmanager
def _set_to(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[None]:
    """Within it the buffers hold other values, and afterwards their own again."""
    own = [buffer.clone() for buffer in buffers]
    _copy(buffers, values)
    yield
    _copy(buffers, own)


@torch.no_grad()
def _copy(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)
