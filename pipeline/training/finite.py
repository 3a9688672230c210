"""Numbers that are not finite: noticed before an optimiser takes them in, and named.

On the CPU every step is looked at before the optimiser steps. On a GPU looking means waiting for it, so there the flag
goes to the optimiser itself, which then leaves the weights alone (fused optimisers of torch can), and the host reads
what it was about every few steps and before anything is written to disk. An optimiser that cannot skip a step on the
device is looked at every step, there as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from nstudent.errors import TrainingError
from nstudent.models.heads import Logits
from torch import Tensor, nn

_READ_EVERY_STEPS = 16


@dataclass(frozen=True)
class _Record:
    """One step that was taken and not yet looked at."""

    step: int
    learning_rate: float
    figures: Tensor
    """(2 + levels,): loss, norm of the gradient, and per level whether logits and targets are finite."""


def finite_levels(logits: Logits, targets: Sequence[Tensor]) -> Tensor:
    """bool (levels,): whether a level's logits and targets are all finite."""
    return torch.stack(
        [level.isfinite().all() & mass.isfinite().all() for level, mass in zip(logits, targets, strict=True)]
    )


class FiniteCheck:
    """Looks at loss, gradient and logits of every step."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, levels: Sequence[str]) -> None:
        self._network = network
        self._optimizer = optimizer
        self._levels = levels
        self._waiting: list[_Record] = []
        on_gpu = next(network.parameters()).device.type == "cuda"
        # torch's own protocol for mixed precision: such an optimiser reads `found_inf` on the device.
        self._optimizer_skips = on_gpu and getattr(optimizer, "_step_supports_amp_scaling", False)

    def before_step(self, step: int, loss: Tensor, norm: Tensor, sound: Tensor) -> None:
        """Call between backward and the optimiser's step. ``sound`` comes from ``finite_levels``.

        Raises:
            TrainingError: this step, or on a GPU one of the last few, is not finite.
        """
        figures = torch.cat([torch.stack([loss.detach().float(), norm.detach().float()]), sound.float()])
        self._waiting.append(_Record(step, self._optimizer.param_groups[0]["lr"], figures))
        if self._optimizer_skips:
            self._optimizer.found_inf = (~figures.isfinite().all()).float()  # type: ignore[attr-defined]
            self._optimizer.grad_scale = None  # type: ignore[attr-defined]
            if len(self._waiting) < _READ_EVERY_STEPS:
                return
        self.read()

    def read(self) -> None:
        """Look at every step that was not looked at yet; call it before writing weights to disk.

        Raises:
            TrainingError: one of them is not finite.
        """
        waiting, self._waiting = self._waiting, []
        for record in waiting:
            loss, norm, *sound = record.figures.tolist()
            if not all(map(math.isfinite, (loss, norm))) or not all(sound):
                raise TrainingError(self._message(record, loss, norm, sound))

    def _message(self, record: _Record, loss: float, norm: float, sound: Sequence[float]) -> str:
        bad = [name for name, whole in zip(self._levels, sound, strict=True) if not whole]
        where = f"level {', '.join(bad)}" if bad else "the gradient" if math.isfinite(loss) else "the loss itself"
        return (
            f"not a finite number in {where} at step {record.step} (loss {loss:g}, gradient {norm:g}, "
            f"learning rate {record.learning_rate:.3g}): lower learning_rate, or look for broken images"
        )
