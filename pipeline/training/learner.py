"""One network while it learns: its optimiser, schedule, weight average, gradient and clip."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from nstudent.config.schema import TrainingConfig
from nstudent.models.cost import Spent
from nstudent.models.device import Placement
from nstudent.models.heads import Logits
from nstudent.models.network import Network
from nstudent.noise.steps import Prepared
from nstudent.training.average import WeightAverage
from nstudent.training.clipping import build_clip
from nstudent.training.finish import train_late_layers
from nstudent.training.finite import FiniteCheck
from nstudent.training.gradient import Gradient
from nstudent.training.growth import finish_steps
from nstudent.training.learning_rates import LearningRates, Span
from nstudent.training.loop import Length
from nstudent.training.objective import Objective, Stateful
from nstudent.training.optimizer import build_optimizer, forget, resume_optimizer, take_step
from nstudent.training.recording import Recording, can_be_recorded
from nstudent.training.revision import Revision
from nstudent.training.spending import Spending
from nstudent.training.surroundings import Surroundings
from torch import Tensor, nn

_EMA_WARMUP_STEPS = 10.0


class Learner:
    """One network while it learns; the ``Method`` of an ordinary training."""

    def __init__(
        self,
        network: Network,
        objective: Objective,
        config: TrainingConfig,
        length: Length,
        where: Surroundings,
        revision: Revision | None = None,
    ) -> None:
        """Put a network to its device, and make what it learns with.

        Args:
            network: The network, as it is before its first step.
            objective: Gives the loss of a batch.
            config: How it is trained.
            length: How long, for the schedule of the learning rate.
            where: What it finds around it.
            revision: Changes what each batch teaches; ``None``: nothing does.
        """
        placement = where.placement
        self.network: Network = network
        placement.put(network).train()
        self.objective = objective
        self._revision = revision
        self._new_optimizer = partial(build_optimizer, network, config, placement.device)
        self.optimizer = self._new_optimizer()
        finish = finish_steps(config, length.epochs, length.steps_per_epoch)
        self._first_of_finish = length.steps - finish
        self._finishes = False
        """Whether only the late layers still learn."""
        self._rates = LearningRates(self.optimizer, config, Span(self._first_of_finish, length.steps_per_epoch, finish))
        self._average = WeightAverage(self.network)
        self._ema_decay = config.ema_decay
        self._spending = Spending(self.network, computes_twice=config.checkpoint_activations)
        placement.compile(self.network)
        self.finite = FiniteCheck(self.network, self.optimizer, where.levels, where.images_of)
        believe = self._believe = _belief(self._average.module, placement, self.network)
        self.gradient = Gradient(self.network, objective, self.finite, build_clip(self.network, config), where, believe)
        is_plain = where.world.size == 1 and placement.compile_mode == "none" and not config.checkpoint_activations
        recordable = placement.records and is_plain and can_be_recorded(network, self.optimizer, objective)
        self.recording = Recording(self.gradient, self.optimizer, self.finite, where.say) if recordable else None

    @property
    def kept(self) -> Network:
        """The network with averaged weights, which is what is validated, kept and labels."""
        network = self._average.module
        assert isinstance(network, Network)
        return network

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step."""
        return self._rates.now

    @property
    def spent(self) -> Spent:
        """What all steps have cost so far."""
        return self._spending.spent

    def learn(self, prepared: Prepared, step: int, done: float) -> Tensor:
        """Learn from one batch, and return its loss: a scalar on the device.

        Args:
            prepared: The batch, on the device.
            step: Number of the step, from 0 on.
            done: Fraction of the training that is over: 0 at the first step, below 1 at the last one.

        Raises:
            TrainingError: This step, or on a GPU one of the last few dozen, is not finite, or the memory is too small.
        """
        if step >= self._first_of_finish and not self._finishes:
            # From the averaged weights, which are what is kept: the layers that no longer learn stay as they are there.
            self.network.load_state_dict(self._average.module.state_dict())
            self._begin_finish()
        self._rates.set(step)
        if self._revision is not None:
            prepared = self._revision.revise(prepared, done, self._believe)
        loss = None if self.recording is None else self.recording.take(step, prepared)
        if loss is None:
            loss = self.gradient.put(step, done, prepared)
            take_step(self.optimizer)
        images = sum(prepared.batch.whole_images)
        averaged = images * self.objective.average_passes
        if self._revision is not None:
            averaged += self._revision.num_believed(prepared, done)
        self._spending.add(images, prepared.images.shape[-1], averaged=averaged, late_layers_alone=self._finishes)
        if isinstance(self.objective, Stateful):
            self.objective.settle()
        # A young average forgets its random start quickly: min(decay, (1 + t) / (10 + t)) at the t-th step, from 1 on.
        self._average.update(min(self._ema_decay, (2 + step) / (_EMA_WARMUP_STEPS + step + 1)))
        return loss

    def hear(self, score: float) -> None:
        """Take in the validation score of what is kept, which some schedules of the learning rate go by."""
        self._rates.hear(score)

    def _begin_finish(self) -> None:
        """Let only the late layers learn from here on; the optimiser forgets what it knew of them before."""
        self._finishes = True
        forget(self.optimizer, self._new_optimizer())
        train_late_layers(self.network)
        self.gradient.share_anew()

    def check(self) -> None:
        """Look at every step that was not looked at yet; call it before anything is written.

        Raises:
            TrainingError: One of them is not finite.
        """
        self.finite.read()

    def epoch_figures(self) -> dict[str, float]:
        """What the epoch that ends has to say beside its loss; the next one begins anew."""
        return {} if self._revision is None else self._revision.epoch_figures()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        state = {
            "spent": self.spent.to_json(),
            "network": self.network.state_dict(),
            "average": self._average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rates": self._rates.state_dict(),
            "finishes": self._finishes,
        }
        if isinstance(self.objective, Stateful):
            state["objective"] = self.objective.state_dict()
        if self._revision is not None:
            state["revision"] = self._revision.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        # A checkpoint of an earlier version does not say what it has cost.
        self._spending.go_on_from(Spent(**state.get("spent", {})))
        self.network.load_state_dict(state["network"])
        self._average.module.load_state_dict(state["average"])
        # Checkpoints of earlier versions know neither.
        self._rates.load_state_dict(state.get("rates", {}))
        if state.get("finishes"):
            self._begin_finish()
        resume_optimizer(self.optimizer, state["optimizer"])
        if isinstance(self.objective, Stateful):
            self.objective.load_state_dict(state["objective"])
        if self._revision is not None:
            self._revision.load_state_dict(state["revision"])


def _belief(average: nn.Module, placement: Placement, network: nn.Module) -> Callable[[Tensor], Logits]:
    """What gives the logits of the averaged network, un-noised, without gradient.

    It does not hold the learner: in a circle of references the weights would stay on a GPU until Python collects its
    garbage, which counts objects and not gigabytes.
    """
    autocast = placement.autocast(network)

    def believe(images: Tensor) -> Logits:
        with torch.no_grad(), autocast:
            logits = average.eval()(images)
        return tuple(level.float() for level in logits)

    return believe
