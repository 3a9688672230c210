"""Numbers that are not finite: noticed before an optimiser takes them in, and named.

On the CPU every step is looked at before the optimiser steps. On a GPU looking means waiting for it, so there the flag
goes to the optimiser itself, which then leaves the weights alone (fused optimisers of torch can). What the host wants
to know of such steps is copied to it every few steps and read when the next copy is sent, so that the GPU always has
work waiting; before anything is written to disk all of it is read. An optimiser that cannot skip a step on the device
is looked at every step, there as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from nstudent.errors import RefusedError
from nstudent.models.heads import Logits
from torch import Tensor, nn

_SENT_TOGETHER = 16
"""Number of steps whose figures travel to the host in one copy."""
_NAMED_IMAGES = 3


@dataclass(frozen=True)
class _Record:
    """One step that was taken and not yet looked at."""

    step: int
    learning_rate: float
    order: Sequence[Tensor]
    """int64, in parts: place in the batch of each row of ``largest``; on the host."""
    figures: Tensor
    """float32 (2,): loss, and norm of the gradient."""
    largest: Tensor
    """float32 (batch, levels): what ``largest_numbers`` found."""


@dataclass(frozen=True)
class _Sent:
    """Records whose tensors are on their way to the host, stacked."""

    records: Sequence[_Record]
    figures: Tensor
    """float32 (records, 2)."""
    largest: Tensor
    """float32 (records, batch, levels)."""
    arrived: torch.cuda.Event | None
    """What to wait for before reading; ``None``: nothing."""


def largest_numbers(logits: Logits, targets: Sequence[Tensor]) -> Tensor:
    """float32 (batch, levels): the largest magnitudes among an image's logits and targets, added up.

    It is finite where all of them are, and costs three small operations a level: on a GPU they are in every step.
    """
    both = zip(logits, targets, strict=True)
    return torch.stack([_largest(level) + _largest(mass) for level, mass in both], dim=1)


def _largest(rows: Tensor) -> Tensor:
    largest: Tensor = torch.linalg.vector_norm(rows, math.inf, dim=1)
    return largest


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
        self._sent: _Sent | None = None
        on_gpu = next(network.parameters()).device.type == "cuda"
        # torch's own protocol for mixed precision: such an optimiser reads `found_inf` on the device.
        self.asks_always: bool = on_gpu and getattr(optimizer, "_step_supports_amp_scaling", False)
        """Whether every step is recorded, and not only one whose loss is not finite."""

    def before_step(
        self, step: int, loss: Tensor, norm: Tensor, largest: Callable[[], Tensor], order: Sequence[Tensor]
    ) -> None:
        """Look at a step; call it between backward and the optimiser's step.

        Args:
            step: Number of the step.
            loss: Of the whole batch. It is not finite where any number is not that went into it.
            norm: Of the gradient, before it was clipped.
            largest: Gives what ``largest_numbers`` says, (batch, levels).
            order: Place in the batch of each row of ``largest``, int64 on the host, in parts.

        Raises:
            RefusedError: this step, or on a GPU one of the last few dozen, is not finite.
        """
        if self.asks_always:
            self.note(step, self.flag(loss, norm), largest(), order)
            return
        figures = _figures(loss, norm)
        if not all(map(math.isfinite, figures.tolist())):
            self._waiting.append(self._record(step, figures, largest(), order))
            self.read()

    def flag(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Tell the optimiser on its GPU whether to leave this step out; returns float32 (2,), for ``note``."""
        figures = _figures(loss, norm)
        # Times zero, a number that is not finite is still none; the optimiser wants 1.0 then and 0.0 otherwise.
        self._optimizer.found_inf = figures.mul(0).sum().ne(0).float()  # type: ignore[attr-defined]
        self._optimizer.grad_scale = None  # type: ignore[attr-defined]
        return figures

    def note(self, step: int, figures: Tensor, largest: Tensor, order: Sequence[Tensor]) -> None:
        """Keep what is to be looked at later of a step on a GPU, and now and then look at earlier ones.

        Args:
            step: Number of the step.
            figures: What ``flag`` gave, float32 (2,).
            largest: What ``largest_numbers`` says, (batch, levels).
            order: Place in the batch of each row of ``largest``, int64 on the host, in parts.

        Raises:
            RefusedError: one of the last few dozen steps is not finite.
        """
        self._waiting.append(self._record(step, figures, largest, order))
        if len(self._waiting) == _SENT_TOGETHER:
            before, self._sent, self._waiting = self._sent, _send(self._waiting), []
            self._look(before)

    def _record(self, step: int, figures: Tensor, largest: Tensor, order: Sequence[Tensor]) -> _Record:
        return _Record(step, self._optimizer.param_groups[0]["lr"], order, figures, largest)

    def read(self) -> None:
        """Look at every step that was not looked at yet; call it before writing weights to disk.

        Raises:
            RefusedError: one of them is not finite.
        """
        before, waiting = self._sent, self._waiting
        self._sent, self._waiting = None, []
        self._look(before)
        if waiting:
            self._look(_send(waiting))

    def _look(self, sent: _Sent | None) -> None:
        if sent is None:
            return
        if sent.arrived is not None:
            sent.arrived.synchronize()
        sound = sent.largest.isfinite()
        for record, (loss, norm), rows in zip(sent.records, sent.figures.tolist(), sound, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise RefusedError(self._message(record, loss, norm, ~rows))

    def _message(self, record: _Record, loss: float, norm: float, bad: Tensor) -> str:
        """``bad``: bool (batch, levels), the images whose numbers are not finite at a level."""
        levels = [name for name, wrong in zip(self._levels, bad.any(0).tolist(), strict=True) if wrong]
        where = f"level {', '.join(levels)}" if levels else "the gradient" if math.isfinite(loss) else "the loss itself"
        batch = self._images(record.step)
        names = [batch[place] for place in torch.cat(list(record.order)).tolist()]
        # Where no image's own numbers are wrong, any of the batch may have brought it about.
        blamed = [name for name, wrong in zip(names, bad.any(1).tolist(), strict=True) if wrong] or names
        more = f" and {len(blamed) - _NAMED_IMAGES} more" if len(blamed) > _NAMED_IMAGES else ""
        return (
            f"not a finite number in {where} at step {record.step} (loss {loss:g}, gradient {norm:g}, learning rate "
            f"{record.learning_rate:.3g}; {len(blamed)} of {len(names)} images: {', '.join(blamed[:_NAMED_IMAGES])}"
            f"{more}): lower learning_rate, or look at these images"
        )


def _figures(loss: Tensor, norm: Tensor) -> Tensor:
    return torch.stack([loss.detach().float(), norm.detach().float()])


def _send(records: Sequence[_Record]) -> _Sent:
    """Begin to copy the tensors of some records to the host."""
    figures, largest = (torch.stack([getattr(record, name) for record in records]) for name in ("figures", "largest"))
    if figures.device.type != "cuda":
        return _Sent(records, figures, largest, None)
    here = figures.to("cpu", non_blocking=True), largest.to("cpu", non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return _Sent(records, here[0], here[1], arrived)
