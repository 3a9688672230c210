"""The training loop. One for teacher, baseline, filter and student: what differs is handed in."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nstudent.config import TrainingConfig
from nstudent.data.batches import Awaited, Batches, loaders_explained
from nstudent.errors import StoppedError, TrainingError, summary
from nstudent.models.device import Placement
from nstudent.models.heads import Logits
from nstudent.models.member import Member
from nstudent.processes import available_cores
from nstudent.progress import Progress, Silence, Task
from nstudent.randomness import Key
from nstudent.training.average import WeightAverage
from nstudent.training.checkpoint import Pace, load_checkpoint, save_checkpoint
from nstudent.training.finite import FiniteCheck
from nstudent.training.gradient import Gradient
from nstudent.training.mixing import Mixing
from nstudent.training.objective import Objective, Stateful
from nstudent.training.optimizer import build_optimizer, resume_optimizer
from nstudent.training.preparation import Ahead, BatchNoise, Preparation, Prepared
from nstudent.training.recording import Recording, can_be_recorded
from nstudent.training.spending import Spending, Spent
from nstudent.world import Alone, World
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

_FIRST_LR_SHARE = 0.01
_EMA_WARMUP_STEPS = 10.0
_VALIDATIONS = 10
_ASK_EVERY_STEPS = 8

Validate = Callable[[nn.Module], float]
History = list[dict[str, float]]


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

    network: Member
    """The running average of the weights, in evaluation mode."""
    history: History
    """Per epoch: its number, mean loss, learning rate, and the validation score where it was measured."""
    data_wait: float
    """Share of its time in which it waited for images, since it was last resumed."""
    spent: Spent
    """What it has cost, from its first step on."""


class Trainer:
    """One network on its way: built, trained step by step, and resumed at the step where it was interrupted."""

    def __init__(
        self,
        network: Member,
        batches: Batches,
        objective: Objective,
        config: TrainingConfig,
        length: Length,
        placement: Placement,
        key: Key,
        *,
        levels: Sequence[str],
        name_of: Callable[[int], str],
        workers: int = 0,
        checkpoint_seconds: float = 0.0,
        world: World | None = None,
        noise: BatchNoise | None = None,
    ) -> None:
        """``levels`` and ``name_of``, from an image's id to its name, are for messages.

        ``noise`` is what batches come without.
        """
        self._world = world or Alone()
        self._placement = placement
        self._network = placement.put(network).train()
        self._batches = batches
        self._objective = objective
        self._config = config
        self._length = length
        self._key = key
        self._workers = workers
        self._checkpoint_seconds = checkpoint_seconds
        self._preparation = Preparation(placement, Mixing(config.noise, key), noise, length.steps)
        self._optimizer = build_optimizer(network, config, placement.device)
        self._scheduler = CosineLRScheduler(
            self._optimizer,
            t_initial=length.steps,
            warmup_t=min(round(config.warmup_epochs * length.steps_per_epoch), length.steps - 1),
            warmup_lr_init=_FIRST_LR_SHARE * config.learning_rate,
            warmup_prefix=False,
            t_in_epochs=False,
        )
        self._average = WeightAverage(self._network)
        self._spending = Spending(self._network, computes_twice=config.checkpoint_activations)
        placement.compile(self._network)
        self._finite = FiniteCheck(
            self._network, self._optimizer, levels, lambda step: [name_of(int(image)) for image in batches.ids(step)]
        )
        self._gradient = Gradient(
            self._network, objective, placement, self._finite, key, config.clip_norm, self._world, self._belief()
        )
        is_plain = self._world.size == 1 and placement.compile_mode == "none" and not config.checkpoint_activations
        recordable = placement.records and is_plain and can_be_recorded(network, self._optimizer, objective)
        self._recording = Recording(self._gradient, self._optimizer, self._finite) if recordable else None
        self._say: Callable[[str], None] = Silence().say
        self._step = 0
        exact = torch.float32 if placement.device.type == "mps" else torch.float64
        self._loss = torch.zeros((), dtype=exact, device=placement.device)
        """Sum over the steps of this epoch, on the device: reading it means waiting for the device."""
        self._history: History = []

    def fit(self, checkpoint: Path, progress: Progress, name: str, validate: Validate | None = None) -> Trained:
        """Train to the end, from the checkpoint where there is one.

        Raises:
            TrainingError: a loss or gradient is not finite; no weight that is kept has taken it in.
            StoppedError: the progress asked to stop; a checkpoint of the last step is on disk.
        """
        self._say = self._gradient.say = progress.say
        self._resume(checkpoint)
        steps = self._length.steps
        with progress.task(name, steps, "steps", done=self._step) as task:
            try:
                with loaders_explained():
                    data_wait = self._train(task, checkpoint, validate)
            except StoppedError:
                self._save(checkpoint)
                raise
        network = self._average.module.eval()
        assert isinstance(network, Member)
        return Trained(network, self._history, data_wait, self._spending.spent)

    def prepared(self, last: int) -> Generator[Prepared, None, None] | Ahead[Prepared]:
        """What the steps up to ``last - 1`` learn from."""
        device = self._placement.device
        batches = self._batches.load(self._step, last, self._workers, pin_memory=device.type == "cuda")
        prepared = self._preparation.each(batches, self._step)
        self._gradient.meanwhile = lambda: None
        # On a CPU noise is work for a second core. A GPU does it itself, but drawing it and telling it takes the host
        # as long as half a forward pass of a small network.
        if available_cores() == 1 or (self._workers and device.type == "cpu"):
            return prepared
        preparation = self._preparation
        ahead = Ahead(prepared, lambda: preparation.depth)
        self._gradient.meanwhile = ahead.begin
        return ahead

    def _train(self, task: Task, checkpoint: Path, validate: Validate | None) -> float:
        """Walk the steps. Between two of them everything is in a state that can be kept.

        Returns the share of the time in which it waited for images.
        """
        pace = Pace(self._checkpoint_seconds)
        # Closed, and its thread or processes with it, also where an error that holds on to this frame leaves it.
        with closing(self.prepared(self._length.steps)) as prepared:
            awaited = Awaited(prepared)
            while self._step < self._length.steps:
                self._train_step(next(awaited))
                if self._step % self._length.steps_per_epoch == 0:
                    self._close_epoch(validate)
                if pace.is_due() or self._step == self._length.steps:
                    with pace.kept():
                        self._save(checkpoint)
                self._report(task, awaited.share)
            return awaited.share

    def _report(self, task: Task, data_wait: float) -> None:
        """Say how far it is. Of several processes all stop after the same step: not every step asks the others."""
        asked: StoppedError | None = None
        try:
            loss = {"loss": self._history[-1]["loss"]} if self._history else {}
            task.advance(1, **loss, **{"data wait %": round(100 * data_wait)})
        except StoppedError as error:
            asked = error
        if self._world.size > 1 and self._step % _ASK_EVERY_STEPS:
            return
        if self._world.any(asked is not None):
            raise asked or StoppedError("stopped with the other processes of the run: the same command goes on")

    def _close_epoch(self, validate: Validate | None) -> None:
        epoch = self._step // self._length.steps_per_epoch
        loss = float(self._loss) / self._length.steps_per_epoch
        self._loss.zero_()
        entry = {"epoch": epoch, "loss": loss, "learning_rate": self._optimizer.param_groups[0]["lr"]}
        stride = max(1, self._length.epochs // _VALIDATIONS)
        if validate is not None and (epoch % stride == 0 or self._step == self._length.steps):
            entry["validation"] = validate(self._average.module)
        self._history.append(entry)

    def _train_step(self, seen: Prepared) -> None:
        self._scheduler.step_update(self._step)
        progress = self._step / self._length.steps
        loss = None if self._recording is None else self._recording.take(self._step, seen)
        if loss is None:
            loss = self._gradient.put(self._step, progress, seen)
            self._optimize()
        self._loss += loss
        batch = seen.batch
        self._spending.add(batch.whole_size, seen.images.shape[-1], with_average=batch.clean is not None)
        if isinstance(self._objective, Stateful):
            self._objective.settle()
        self._step += 1
        # A young average forgets its random start quickly: min(decay, (1 + t) / (10 + t)).
        self._average.update(min(self._config.ema_decay, (1 + self._step) / (_EMA_WARMUP_STEPS + self._step)))

    def _optimize(self) -> None:
        """Let the optimiser take its step. Only its first one asks for memory: for its moments."""
        is_first = not self._optimizer.state
        try:
            self._optimizer.step()
            return
        except torch.OutOfMemoryError as error:
            said = summary(error)
            if not is_first:
                raise TrainingError(f"no memory for a step of the optimiser ({said})") from None
        # What the backward pass has left is free now, but for the error's hold on it. Half a state would not do.
        self._optimizer.state.clear()
        if self._placement.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            self._optimizer.step()
        except torch.OutOfMemoryError:
            raise TrainingError(
                f"no memory for the optimiser's moments, which take twice that of the weights ({said}): choose a "
                "smaller network"
            ) from None

    def _belief(self) -> Callable[[Tensor], Logits]:
        """What gives the logits of the averaged network, un-noised, without gradient.

        It does not hold the trainer: in a circle of references the weights would stay on a GPU until Python collects
        its garbage, which counts objects and not gigabytes.
        """
        network, autocast = self._average.module, self._placement.autocast(self._network)

        def believe(images: Tensor) -> Logits:
            with torch.no_grad(), autocast:
                logits = network.eval()(images)
            return tuple(level.float() for level in logits)

        return believe

    def _save(self, checkpoint: Path) -> None:
        self._finite.read()
        if self._world.leads:
            save_checkpoint(checkpoint, self._state())

    def _state(self) -> dict[str, Any]:
        state = {
            "step": self._step,
            "loss": self._loss,
            "history": self._history,
            "spent": self._spending.spent.to_json(),
            "network": self._network.state_dict(),
            "average": self._average.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        if isinstance(self._objective, Stateful):
            state["objective"] = self._objective.state_dict()
        return state

    def _resume(self, checkpoint: Path) -> None:
        state = load_checkpoint(checkpoint, self._say)
        if state is None:
            return
        self._step = state["step"]
        self._loss.copy_(state["loss"])
        self._history = state["history"]
        # A checkpoint of an earlier version says nothing of it: what was spent before it is not known.
        self._spending.spent = Spent(**state.get("spent", {}))
        self._network.load_state_dict(state["network"])
        self._average.module.load_state_dict(state["average"])
        resume_optimizer(self._optimizer, state["optimizer"])
        if isinstance(self._objective, Stateful):
            self._objective.load_state_dict(state["objective"])
