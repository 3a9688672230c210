"""The training loop. One for teacher, baseline, filter and student: what differs is handed in."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from nstudent.config import TrainingConfig
from nstudent.data.batches import Batch, Batches, loaders_explained
from nstudent.errors import StoppedError
from nstudent.models.device import Placement
from nstudent.models.heads import Logits
from nstudent.models.member import Member
from nstudent.progress import Progress, Silence, Task
from nstudent.randomness import Key, seed
from nstudent.training.checkpoint import load_checkpoint, save_checkpoint
from nstudent.training.finite import FiniteCheck, finite_rows
from nstudent.training.mixing import CutMix
from nstudent.training.objective import Moment, Objective, Targets
from nstudent.training.portions import Portion, halved, portions
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

_FIRST_LR_SHARE = 0.01
_EMA_WARMUP_STEPS = 10.0
_VALIDATIONS = 10
_CHECKPOINT_SHARE = 0.02
"""At most this share of a training goes into its checkpoints, but where one is asked for after every step."""

Validate = Callable[[nn.Module], float]
History = list[dict[str, float]]


@runtime_checkable
class _Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def settle(self) -> None: ...

    def forget(self) -> None: ...


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
    ) -> None:
        """``levels`` and ``name_of``, from an image's id to its name, are for messages."""
        self._placement = placement
        self._network = placement.put(network).train()
        self._batches = batches
        self._objective = objective
        self._config = config
        self._length = length
        self._key = key
        self._workers = workers
        self._checkpoint_seconds = checkpoint_seconds
        self._cutmix = CutMix(config.noise, key)
        self._optimizer = create_optimizer_v2(
            network, opt=config.optimizer, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._scheduler = CosineLRScheduler(
            self._optimizer,
            t_initial=length.steps,
            warmup_t=min(round(config.warmup_epochs * length.steps_per_epoch), length.steps - 1),
            warmup_lr_init=_FIRST_LR_SHARE * config.learning_rate,
            warmup_prefix=False,
            t_in_epochs=False,
        )
        self._average = ModelEmaV3(network, decay=config.ema_decay)
        self._finite = FiniteCheck(
            self._network, self._optimizer, levels, lambda step: [name_of(int(image)) for image in batches.ids(step)]
        )
        self._num_portions = 1
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
        self._say = progress.say
        self._resume(checkpoint)
        steps = self._length.steps
        on_gpu = self._placement.device.type == "cuda"
        batches = self._batches.load(self._step, steps, self._workers, pin_memory=on_gpu)
        with progress.task(name, steps, "steps", done=self._step) as task:
            try:
                with loaders_explained():
                    self._train(batches, task, checkpoint, validate)
            except StoppedError:
                self._save(checkpoint)
                raise
        network = self._average.module.eval()
        assert isinstance(network, Member)
        return Trained(network, self._history)

    def _train(self, batches: Iterator[Batch], task: Task, checkpoint: Path, validate: Validate | None) -> None:
        """Walk the steps. Between two of them everything is in a state that can be kept."""
        due = time.monotonic() + self._checkpoint_seconds
        while self._step < self._length.steps:
            self._train_step(next(batches))
            if self._step % self._length.steps_per_epoch == 0:
                self._close_epoch(validate)
            began = time.monotonic()
            if began >= due or self._step == self._length.steps:
                self._save(checkpoint)
                saved = time.monotonic()
                # A large network on a slow disk is kept less often, so that keeping it stays a small part of the work.
                rest = (saved - began) / _CHECKPOINT_SHARE if self._checkpoint_seconds else 0.0
                due = saved + max(self._checkpoint_seconds, rest)
            task.advance(1, **({"loss": self._history[-1]["loss"]} if self._history else {}))

    def _close_epoch(self, validate: Validate | None) -> None:
        epoch = self._step // self._length.steps_per_epoch
        loss = float(self._loss) / self._length.steps_per_epoch
        self._loss.zero_()
        entry = {"epoch": epoch, "loss": loss, "learning_rate": self._optimizer.param_groups[0]["lr"]}
        stride = max(1, self._length.epochs // _VALIDATIONS)
        if validate is not None and (epoch % stride == 0 or self._step == self._length.steps):
            entry["validation"] = validate(self._average.module)
        self._history.append(entry)

    def _train_step(self, batch: Batch) -> None:
        self._scheduler.step_update(self._step)
        batch = batch.to(self._placement.device)
        images, targets = self._cutmix(
            self._placement.images(batch.images),
            batch.targets,
            batch.num_labelled,
            self._step,
            self._step / self._length.steps,
        )
        while not self._accumulate(batch, images, targets):
            pass
        self._optimizer.step()
        if isinstance(self._objective, _Stateful):
            self._objective.settle()
        self._step += 1
        # A young average forgets its random start quickly: min(decay, (1 + t) / (10 + t)).
        self._average.decay = min(self._config.ema_decay, (1 + self._step) / (_EMA_WARMUP_STEPS + self._step))
        self._average.update(self._network)

    def _accumulate(self, batch: Batch, images: Tensor, targets: Targets) -> bool:
        """Put the batch's gradient in place; False where the device ran out of memory and smaller portions are due."""
        self._optimizer.zero_grad(set_to_none=True)
        # Dropout and stochastic depth read torch's generator: it is set from the step, and so has no past.
        torch.manual_seed(seed(*self._key, "step", self._step))
        try:
            parts = list(portions(len(images), batch.num_labelled, self._num_portions))
            shares = [self._backward(batch, images, targets, portion) for portion in parts]
        except torch.OutOfMemoryError:
            self._forget_step()
            self._num_portions = halved(self._num_portions, len(images), self._placement.device, images.shape[-1])
            self._say(f"  out of memory: batches are worked on in {self._num_portions} portions from here on")
            return False
        loss = torch.stack([share for share, _ in shares]).sum()
        sound = torch.cat([rows for _, rows in shares])
        order = torch.cat([portion.rows for portion in parts])
        limit = self._config.clip_norm if self._config.clip_norm is not None else math.inf
        norm = nn.utils.clip_grad_norm_(self._network.parameters(), limit)
        self._finite.before_step(self._step, loss, norm, sound, order)
        self._loss += loss
        return True

    def _backward(self, batch: Batch, images: Tensor, targets: Targets, portion: Portion) -> tuple[Tensor, Tensor]:
        """Add a portion's gradient; returns its share of the loss, and which of its images have finite numbers."""
        whole = len(portion.rows) == len(images)
        rows = portion.rows.to(images.device)

        def part(tensor: Tensor) -> Tensor:
            return tensor if whole else tensor[rows]

        with self._placement.autocast(self._network):
            logits = tuple(level.float() for level in self._network(part(images)))
        moment = Moment(
            logits=logits,
            targets=[part(level) for level in targets],
            num_labelled=portion.num_labelled,
            rows=part(batch.rows),
            clean=None if batch.clean is None else self._placement.images(part(batch.clean)),
            believe=self._believe,
            progress=self._step / self._length.steps,
            whole_targets=targets,
            whole_labelled=batch.num_labelled,
        )
        loss = self._objective(moment)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), finite_rows(logits, moment.targets)

    def _forget_step(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        if isinstance(self._objective, _Stateful):
            self._objective.forget()
        if self._placement.device.type == "cuda":
            torch.cuda.empty_cache()

    def _believe(self, images: Tensor) -> Logits:
        """Logits of the averaged network, un-noised, without gradient."""
        with torch.no_grad(), self._placement.autocast(self._network):
            logits = self._average.module.eval()(images)
        return tuple(level.float() for level in logits)

    def _save(self, checkpoint: Path) -> None:
        self._finite.read()
        save_checkpoint(checkpoint, self._state())

    def _state(self) -> dict[str, Any]:
        state = {
            "step": self._step,
            "loss": self._loss,
            "history": self._history,
            "network": self._network.state_dict(),
            "average": self._average.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        if isinstance(self._objective, _Stateful):
            state["objective"] = self._objective.state_dict()
        return state

    def _resume(self, checkpoint: Path) -> None:
        state = load_checkpoint(checkpoint, self._say)
        if state is None:
            return
        self._step = state["step"]
        self._loss.copy_(state["loss"])
        self._history = state["history"]
        self._network.load_state_dict(state["network"])
        self._average.module.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        if isinstance(self._objective, _Stateful):
            self._objective.load_state_dict(state["objective"])
