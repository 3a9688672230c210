"""The learning rate of every step: a warm-up, one of several schedules, and where a training has one its finish.

timm's schedulers give the rates, but that of plateaus, which timm means to drop because it forgets in a checkpoint what
it has heard: the one here keeps it, and decides as ``torch.optim.lr_scheduler.ReduceLROnPlateau`` does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nstudent.config.schema import TrainingConfig
from nstudent.tables import chosen
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from torch.optim import Optimizer

_FIRST_SHARE = 0.01
"""Learning rate of the first step of a warm-up, as a share of its height."""
_FACTOR = 0.1
"""What a drop multiplies the rate by, if the configuration leaves it open, and where a finish begins."""
_DROPS = 3
"""Number of parts of a training with ``schedule: step``, if the configuration leaves their length open."""
_THRESHOLD = 1e-4
"""Share by which a score has to exceed the best one to be a new best, as in torch."""


@dataclass(frozen=True)
class Span:
    """What a schedule lies over."""

    steps: int
    """Number of steps, the finish left out."""
    steps_per_epoch: int
    finish_steps: int = 0


class Schedule(Protocol):
    """What gives an optimiser its learning rates; timm's schedulers do."""

    def step_update(self, num_updates: int) -> None:
        """Set the rates of a step, by its number from 0."""


class Plateau:
    """A rate that drops where the validation score no longer rises."""

    def __init__(self, optimizer: Optimizer, factor: float, patience: int, warmup: Mapping[str, Any]) -> None:
        """Make the schedule.

        Args:
            optimizer: Whose rates are set.
            factor: What the rate is multiplied by at a drop.
            patience: Number of consecutive scores without a new best that are waited through.
            warmup: The arguments of timm's schedulers about the warm-up.
        """
        self._optimizer = optimizer
        self._factor = factor
        self._patience = patience
        self._warmup_steps = warmup["warmup_t"]
        self._steady = StepLRScheduler(optimizer, decay_t=math.inf, **warmup)
        self._best = -math.inf
        self._num_bad = 0
        self._num_drops = 0

    def step_update(self, num_updates: int) -> None:
        """Set the rates of a step, by its number from 0."""
        self._steady.step_update(num_updates)
        if num_updates >= self._warmup_steps:
            for group in self._optimizer.param_groups:
                group["lr"] *= self._factor**self._num_drops

    def hear(self, score: float) -> None:
        """Take in a validation score, which decides the rates of the steps after it."""
        if score > self._best * (1 + _THRESHOLD):
            self._best, self._num_bad = score, 0
            return
        self._num_bad += 1
        if self._num_bad > self._patience:
            self._num_drops, self._num_bad = self._num_drops + 1, 0

    def heard(self) -> dict[str, Any]:
        """What was heard so far, as JSON values."""
        best = None if self._best == -math.inf else self._best
        return {"best": best, "num_bad": self._num_bad, "num_drops": self._num_drops}

    def hear_again(self, heard: Mapping[str, Any]) -> None:
        """Take over what ``heard`` gave."""
        self._best = -math.inf if heard["best"] is None else heard["best"]
        self._num_bad, self._num_drops = heard["num_bad"], heard["num_drops"]


def _cosine(optimizer: Optimizer, config: TrainingConfig, span: Span, warmup: Mapping[str, Any]) -> Schedule:
    # It warns of a training of one step, whose rate is the one that was asked for.
    logging.getLogger("timm.scheduler.cosine_lr").setLevel(logging.ERROR)
    schedule: Schedule = CosineLRScheduler(optimizer, t_initial=span.steps, **warmup)
    return schedule


def _step(optimizer: Optimizer, config: TrainingConfig, span: Span, warmup: Mapping[str, Any]) -> Schedule:
    every = span.steps / _DROPS if config.step_epochs is None else config.step_epochs * span.steps_per_epoch
    factor = _FACTOR if config.step_factor is None else config.step_factor
    schedule: Schedule = StepLRScheduler(optimizer, decay_t=max(1, round(every)), decay_rate=factor, **warmup)
    return schedule


def _plateau(optimizer: Optimizer, config: TrainingConfig, span: Span, warmup: Mapping[str, Any]) -> Schedule:
    factor = _FACTOR if config.plateau_factor is None else config.plateau_factor
    patience = 1 if config.plateau_patience is None else config.plateau_patience
    return Plateau(optimizer, factor, patience, warmup)


def _constant(optimizer: Optimizer, config: TrainingConfig, span: Span, warmup: Mapping[str, Any]) -> Schedule:
    schedule: Schedule = StepLRScheduler(optimizer, decay_t=math.inf, **warmup)
    return schedule


SCHEDULES: dict[str, Callable[[Optimizer, TrainingConfig, Span, Mapping[str, Any]], Schedule]] = {
    "cosine": _cosine,
    "step": _step,
    "plateau": _plateau,
    "constant": _constant,
}
"""By the name in the configuration (``schedule``)."""


class LearningRates:
    """Sets the learning rates of an optimiser before each step.

    A group of weights with a key ``lr_scale`` learns so many times as fast as the others.
    """

    def __init__(self, optimizer: Optimizer, config: TrainingConfig, span: Span) -> None:
        """Begin with the rate of the first step.

        Raises:
            ConfigError: There is no schedule of that name.
        """
        self._optimizer = optimizer
        self._span = span
        self._height = config.learning_rate
        self._finish_share = _FACTOR if config.finish_rate is None else config.finish_rate
        warmup = {
            "warmup_t": min(round(config.warmup_epochs * span.steps_per_epoch), span.steps - 1),
            "warmup_lr_init": _FIRST_SHARE * config.learning_rate,
            "warmup_prefix": False,
            "t_in_epochs": False,
        }
        self._schedule = chosen(SCHEDULES, config.schedule, "schedule")(optimizer, config, span, warmup)

    @property
    def now(self) -> float:
        """Learning rate of the last step, before any scale of a group."""
        group = self._optimizer.param_groups[0]
        return float(group["lr"]) / float(group.get("lr_scale", 1.0))

    def set(self, step: int) -> None:
        """Set the rates of a step, by its number from 0."""
        if step < self._span.steps:
            self._schedule.step_update(step)
            return
        done = (step - self._span.steps) / self._span.finish_steps
        rate = self._finish_share * self._height * (1 + math.cos(math.pi * done)) / 2
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)

    def hear(self, score: float) -> None:
        """Take in a validation score; the schedules that go by none forget it."""
        if isinstance(self._schedule, Plateau):
            self._schedule.hear(score)

    def state_dict(self) -> dict[str, Any]:
        """What the rates depend on besides the number of the step."""
        return self._schedule.heard() if isinstance(self._schedule, Plateau) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        if isinstance(self._schedule, Plateau) and state:
            self._schedule.hear_again(state)
