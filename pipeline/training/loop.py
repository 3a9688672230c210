"""The training loop: one for teacher, baseline, filter and student. What a step does is handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from nstudent.data.loading import Awaited, loaders_explained
from nstudent.distributed.world import Alone, World
from nstudent.errors import StoppedError
from nstudent.models.cost import Spent
from nstudent.models.network import Network
from nstudent.noise.steps import Prepared
from nstudent.progress import Progress, Task
from nstudent.signals import OverdueStop
from nstudent.training.checkpoint import Pace, load_checkpoint, save_checkpoint
from nstudent.training.feed import Feed
from torch import Tensor, nn

_VALIDATIONS = 10
_ASK_EVERY_STEPS = 8
_WORTH_SHOWING = 0.02
"""Share of the time that is spent waiting for images from which on it is shown."""

Validate = Callable[[nn.Module], float]
Entry = dict[str, float]
"""One epoch: its number (from 1), the training steps behind it, its mean loss, the learning rate of its last step, the
validation score if it was measured, and what the method has to say beside it."""
History = list[Entry]


@dataclass(frozen=True)
class Length:
    """How long to train."""

    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.epochs * self.steps_per_epoch


@dataclass(frozen=True)
class Trained:
    """The outcome of a training."""

    network: Network
    """The running average of the weights, in evaluation mode."""
    history: History
    """One entry an epoch."""
    data_wait: float
    """Share of its time in which it waited for images, since it was last resumed."""
    spent: Spent
    """What it has cost, from its first step on."""

    def followed_by(self, later: Trained) -> Trained:
        """The outcome of this training and of another one that went on with its network."""
        epochs, steps = self.history[-1]["epoch"], self.history[-1]["step"]
        moved = [entry | {"epoch": entry["epoch"] + epochs, "step": entry["step"] + steps} for entry in later.history]
        both = self.spent, later.spent
        spent = Spent(sum(one.image_passes for one in both), sum(one.training_gmacs for one in both))
        return Trained(later.network, [*self.history, *moved], self.data_wait, spent)


class Method(Protocol):
    """What one step of a training does, and what is to be remembered between two steps.

    A ``Learner`` is a method. Two networks that teach each other would be another one: the loop does not know how many
    networks there are.
    """

    @property
    def kept(self) -> Network:
        """The network that is validated after an epoch and kept after the last one."""

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step."""

    @property
    def spent(self) -> Spent:
        """What all steps have cost so far."""

    def learn(self, prepared: Prepared, step: int, done: float) -> Tensor:
        """Learn from one batch, and return its loss: a scalar on the device.

        Args:
            prepared: The batch, on the device.
            step: Number of the step, from 0 on.
            done: Fraction of the training that is over: 0 at the first step, below 1 at the last one.

        Raises:
            TrainingError: This step, or on a GPU one of the last few dozen, is not finite; no weight has taken it in.
        """

    def epoch_figures(self) -> dict[str, float]:
        """What the epoch that ends has to say beside its loss, by the name of a curve; the next one begins anew."""

    def hear(self, score: float) -> None:
        """Take in the validation score of ``kept``, whenever there is one: a schedule may go by it."""

    def check(self) -> None:
        """Look at every step that was not looked at yet; the loop calls it before it writes a checkpoint.

        Raises:
            TrainingError: One of them is not finite.
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on: dicts, lists, tensors and JSON values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave; entries of other names are left alone."""


class Loop:
    """Walks the steps of one training, and goes on at the step where it was interrupted."""

    def __init__(
        self,
        method: Method,
        feed: Feed,
        length: Length,
        *,
        world: World | None = None,
        checkpoint_seconds: float = 0.0,
    ) -> None:
        """Make a loop.

        Args:
            method: What a step does.
            feed: What each step learns from.
            length: Number of steps.
            world: The processes that train together. Default: this one alone.
            checkpoint_seconds: Seconds between two checkpoints; 0: one after every step.
        """
        self.method = method
        self.feed = feed
        self._length = length
        self._world = world or Alone()
        self._checkpoint_seconds = checkpoint_seconds
        self._step = 0
        device = next(method.kept.parameters()).device
        exact = torch.float32 if device.type == "mps" else torch.float64
        self._loss = torch.zeros((), dtype=exact, device=device)
        """Sum over the steps of this epoch, on the device: reading it means waiting for the device."""
        self._history: History = []
        self._asked: StoppedError | None = None
        """Set once somebody asked to stop: the other processes of the run are yet to be told."""

    def fit(
        self,
        checkpoint: Path,
        progress: Progress,
        name: str,
        validate: Validate | None = None,
        tell: Callable[[Entry], None] = lambda entry: None,
        begins: Callable[[Sequence[Entry]], None] = lambda behind: None,
    ) -> Trained:
        """Train to the end, from the checkpoint where there is one.

        Args:
            checkpoint: Where the state of the training is kept.
            progress: Told how far the training is.
            name: Name of the training, for a person.
            validate: Gives the score of a network; called about ten times in a training, and at its end.
            tell: Called with the entry of every epoch that has ended.
            begins: Called before the first step, with the entries of the epochs before the checkpoint.

        Raises:
            TrainingError: A loss or gradient is not finite; no weight that is kept has taken it in.
            StoppedError: The progress, ``tell`` or ``begins`` asked to stop; a checkpoint of the last step, if one was
                taken, is on disk.
            OverdueStop: ``validate`` was cut off; a checkpoint is on disk as well.
        """
        self._resume(checkpoint, progress)
        try:
            begins(tuple(self._history))
        except StoppedError as error:
            self._asked = error
        self._stop_if_asked()
        steps = self._length.steps
        with progress.task(name, steps, "batches", done=self._step) as task:
            try:
                with loaders_explained():
                    data_wait = self._walk(task, checkpoint, validate, tell)
            except (StoppedError, OverdueStop):
                self._save(checkpoint)
                raise
        network = self.method.kept.eval()
        return Trained(network, self._history, data_wait, self.method.spent)

    def _walk(self, task: Task, checkpoint: Path, validate: Validate | None, tell: Callable[[Entry], None]) -> float:
        """Walk the steps. Between two of them everything is in a state that can be kept.

        Returns the share of the time in which it waited for images.
        """
        pace = Pace(self._checkpoint_seconds)
        # Closed, and its thread or processes with it, also where an error that holds on to this frame leaves it.
        with closing(self.feed.between(self._step, self._length.steps)) as prepared:
            awaited = Awaited(prepared)
            if len(self._history) < self._step // self._length.steps_per_epoch:
                # It was cut off while it was validated.
                self._close_epoch(validate)
                self._save(checkpoint)
                tell(self._history[-1])
            while self._step < self._length.steps:
                self.take(next(awaited))
                ended = self._step % self._length.steps_per_epoch == 0
                if ended:
                    self._close_epoch(validate)
                if pace.is_due() or self._step == self._length.steps:
                    with pace.kept():
                        self._save(checkpoint)
                self._report(task, awaited.share, tell if ended else None)
            return awaited.share

    def take(self, prepared: Prepared) -> None:
        """Take the next step."""
        self._loss += self.method.learn(prepared, self._step, self._step / self._length.steps)
        self._step += 1

    def _report(self, task: Task, data_wait: float, tell: Callable[[Entry], None] | None) -> None:
        """Say how far it is. Of several processes all stop after the same step: not every step asks the others."""
        try:
            if tell is not None:
                tell(self._history[-1])
            task.advance(1, **self._figures(data_wait))
        except StoppedError as error:
            self._asked = error
        if self._world.size > 1 and self._step % _ASK_EVERY_STEPS:
            return
        self._stop_if_asked()

    def _figures(self, data_wait: float) -> dict[str, float]:
        """The last loss and the last score, as far as there are, and how much of the time it waits, if that is much."""
        found = {"loss": self._history[-1]["loss"]} if self._history else {}
        for entry in [entry for entry in self._history if "validation" in entry][-1:]:
            found["score %"] = round(100 * entry["validation"], 1)
        return found | ({"data wait %": round(100 * data_wait)} if data_wait >= _WORTH_SHOWING else {})

    def _stop_if_asked(self) -> None:
        """Stop in every process, where one of them was asked to; each of them makes the same call."""
        if self._world.any(self._asked is not None):
            raise self._asked or StoppedError("stopped with the other processes of the run: the same command goes on")

    def _close_epoch(self, validate: Validate | None) -> None:
        epoch = self._step // self._length.steps_per_epoch
        loss = float(self._loss) / self._length.steps_per_epoch
        entry = {"epoch": epoch, "step": self._step, "loss": loss, "learning_rate": self.method.learning_rate}
        stride = max(1, self._length.epochs // _VALIDATIONS)
        if validate is not None and (epoch % stride == 0 or self._step == self._length.steps):
            entry["validation"] = validate(self.method.kept)
            self.method.hear(entry["validation"])
        # Only now: if it is cut off there, the epoch is open, and closed when the training goes on.
        entry |= self.method.epoch_figures()
        self._loss.zero_()
        self._history.append(entry)

    def _save(self, checkpoint: Path) -> None:
        self.method.check()
        if self._world.leads:
            own = {"step": self._step, "loss": self._loss, "history": self._history}
            save_checkpoint(checkpoint, own | self.method.state_dict())

    def _resume(self, checkpoint: Path, progress: Progress) -> None:
        state = load_checkpoint(checkpoint, progress.say)
        if state is None:
            return
        self._step = state["step"]
        self._loss.copy_(state["loss"])
        self._history = state["history"]
        self.method.load_state_dict(state)
