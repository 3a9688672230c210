"""Numbers that are not finite: noticed before an optimiser takes them in, and named.

On the CPU every step is looked at before the optimiser steps. On a GPU looking means waiting for it, so there the flag
goes to the optimiser itself, which then leaves the weights alone (fused optimisers of torch can), and the host reads
what it was about every few steps and before anything is written to disk. An optimiser that cannot skip a step on the
device is looked at every step, there as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from nstudent.errors import TrainingError
from nstudent.models.heads import Logits
from torch import Tensor, nn

_READ_EVERY_STEPS = 16
_NAMED_IMAGES = 3


@dataclass(frozen=True)
class _Record:
    """One step that was taken and not yet looked at."""

    step: int
    learning_rate: float
    figures: Tensor
    """(2,): loss, and norm of the gradient."""
    sound: Tensor
    """bool (batch, levels): whether an image's logits and targets are finite."""
    order: Tensor
    """int64 (batch,): place in the batch of each row of ``sound``."""


def finite_rows(logits: Logits, targets: Sequence[Tensor]) -> Tensor:
    """bool (batch, levels): whether an image's logits and targets are all finite at a level."""
    return torch.stack(
        [level.isfinite().all(1) & mass.isfinite().all(1) for level, mass in zip(logits, targets, strict=True)], dim=1
    )


class FiniteCheck:
    """Looks at loss and gradient of every step, and where they are not finite at the logits behind them."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        levels: Sequence[str],
        images: Callable[[int], Sequence[str]],
    ) -> None:
        """``images`` names the images of a step's batch, in its order."""
        self._optimizer = optimizer
        self._levels = levels
        self._images = images
        self._waiting: list[_Record] = []
        on_gpu = next(network.parameters()).device.type == "cuda"
        # torch's own protocol for mixed precision: such an optimiser reads `found_inf` on the device.
        self.asks_always: bool = on_gpu and getattr(optimizer, "_step_supports_amp_scaling", False)
        """Whether every step says which images are sound, and not only one whose loss is not finite."""

    def before_step(
        self, step: int, loss: Tensor, norm: Tensor, sound: Callable[[], Tensor], order: Sequence[Tensor]
    ) -> None:
        """Call between backward and the optimiser's step.

        Args:
            step: Number of the step.
            loss: Of the whole batch. It is not finite where any number is not that went into it.
            norm: Of the gradient, before it was clipped.
            sound: Gives what ``finite_rows`` says, (batch, levels).
            order: Place in the batch of each row of ``sound``, int64, in parts.

        Raises:
            TrainingError: this step, or on a GPU one of the last few, is not finite.
        """
        figures = torch.stack([loss.detach().float(), norm.detach().float()])
        if not self.asks_always and all(map(math.isfinite, figures.tolist())):
            return
        record = _Record(step, self._optimizer.param_groups[0]["lr"], figures, sound(), torch.cat(list(order)))
        self._waiting.append(record)
        if self.asks_always:
            fine = figures.isfinite().all() & record.sound.all()
            self._optimizer.found_inf = (~fine).float()  # type: ignore[attr-defined]
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
            loss, norm = record.figures.tolist()
            if not (math.isfinite(loss) and math.isfinite(norm) and bool(record.sound.all())):
                raise TrainingError(self._message(record, loss, norm))

    def _message(self, record: _Record, loss: float, norm: float) -> str:
        bad = ~record.sound.cpu()
        levels = [name for name, wrong in zip(self._levels, bad.any(0).tolist(), strict=True) if wrong]
        where = f"level {', '.join(levels)}" if levels else "the gradient" if math.isfinite(loss) else "the loss itself"
        batch = self._images(record.step)
        names = [batch[place] for place in record.order.tolist()]
        # Where no image's own numbers are wrong, any of the batch may have brought it about.
        blamed = [name for name, wrong in zip(names, bad.any(1).tolist(), strict=True) if wrong] or names
        more = f" and {len(blamed) - _NAMED_IMAGES} more" if len(blamed) > _NAMED_IMAGES else ""
        return (
            f"not a finite number in {where} at step {record.step} (loss {loss:g}, gradient {norm:g}, learning rate "
            f"{record.learning_rate:.3g}; {len(blamed)} of {len(names)} images: {', '.join(blamed[:_NAMED_IMAGES])}"
            f"{more}): lower learning_rate, or look at these images"
        )
