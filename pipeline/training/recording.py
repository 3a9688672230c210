"""Steps of a training that a GPU repeats by itself: recorded once as a CUDA graph, and replayed.

A step of a small network is a thousand kernels of a few microseconds each, and to launch them one by one takes the host
longer than the GPU needs for them. A graph holds forward and backward pass, loss, clipping and the optimiser's step,
and is launched as a whole. What changes from step to step lies in tensors that are filled before: all those of the
batch, and learning rates; dropout and stochastic depth read torch's generator, which is seeded from the step as ever.

A recorded step has the numbers of one that is launched kernel by kernel. It is not used where it could not have:
for an objective that depends on more than tensors, batches in portions, several processes, and optimisers that read
their settings on the host. Where a recording fails, the training goes on without and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from nstudent.errors import summary
from nstudent.noise.steps import Prepared
from nstudent.training.finite import FiniteCheck
from nstudent.training.gradient import Gradient, Learnt
from nstudent.training.objective import Objective
from torch import Tensor, nn

_FIRST_STEPS = 3
"""Number of steps that are launched one by one: libraries choose their kernels, and the optimiser makes its moments."""


def can_be_recorded(network: nn.Module, optimizer: torch.optim.Optimizer, objective: Objective) -> bool:
    """Whether one step of this training is like the next one but for its tensors."""
    settings = optimizer.defaults
    reads_tensors = bool(settings.get("fused")) and "capturable" in settings
    on_gpu = next(network.parameters()).device.type == "cuda"
    return on_gpu and reads_tensors and objective.is_recordable


@dataclass(frozen=True)
class _Recorded:
    """A step as it was recorded, and the tensors that it reads and writes."""

    replay: Callable[[], None]
    seen: Prepared
    rates: list[Tensor]
    """Learning rate of each group of the optimiser."""
    loss: Tensor
    figures: Tensor
    largest: Tensor
    """As ``FiniteCheck.note`` wants them, with ``order``."""
    order: Sequence[Tensor]


class Recording:
    """Takes the steps of a training, from the fourth on, by replaying one of them."""

    def __init__(
        self,
        gradient: Gradient,
        optimizer: torch.optim.Optimizer,
        finite: FiniteCheck,
        say: Callable[[str], None],
        record: Callable[[Callable[[], None]], Callable[[], None]] | None = None,
    ) -> None:
        """Record the steps of one network.

        Args:
            gradient: Puts the gradient of a batch in place.
            optimizer: Takes the step.
            finite: Looks at what each step has given.
            say: Told where nothing can be recorded.
            record: Records what a function tells the GPU, and returns what does it. Default: a CUDA graph.
        """
        self._gradient = gradient
        self._optimizer = optimizer
        self._finite = finite
        self._say = say
        self._record = record or _record
        self._steps = 0
        self._recorded: _Recorded | None = None
        self._given_up = False

    def take(self, step: int, seen: Prepared) -> Tensor | None:
        """Learn from a batch, and return its loss; ``None``: nothing was done, the step has to be launched by itself.

        Args:
            step: Number of the step.
            seen: The batch, on the device.
        """
        if self._given_up or self._gradient.num_portions > 1:
            return None
        if self._recorded is not None and self._recorded.seen.images.shape != seen.images.shape:
            # Images of another size are another graph.
            self._recorded, self._steps = None, 0
        if self._recorded is None:
            self._steps += 1
            if self._steps <= _FIRST_STEPS or not self._begin(seen):
                return None
        assert self._recorded is not None
        recorded = self._recorded
        for static, given in zip(_read(recorded.seen), _read(seen), strict=True):
            static.copy_(given)
        for rate, group in zip(recorded.rates, self._optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self._gradient.seed(step)
        recorded.replay()
        seen.meanwhile()
        # Copies: the next replay writes to the same tensors.
        self._finite.note(step, recorded.figures.clone(), recorded.largest.clone(), recorded.order)
        return recorded.loss.clone()

    def _begin(self, seen: Prepared) -> bool:
        """Record a step; whether that could be done."""
        static = _copied(seen)
        groups = self._optimizer.param_groups
        before = [group["lr"] for group in groups]
        rates = [torch.tensor(float(rate), device=seen.images.device) for rate in before]
        made: list[tuple[Learnt, Tensor, Tensor]] = []

        def work() -> None:
            learnt = self._gradient.learnt(0.0, static)
            made.append((learnt, self._finite.flag(learnt.loss, learnt.norm), learnt.largest()))
            self._optimizer.step()

        self._gradient.clear()
        try:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"], group["capturable"] = rate, True
            replay = self._record(work)
        except (RuntimeError, AssertionError) as error:
            self._given_up = True
            said = summary(error)
            self._say(f"  steps cannot be recorded as a CUDA graph and are launched one by one ({said})")
            return False
        finally:
            # Only the recording needs to know: a checkpoint holds the settings as they were.
            for group, rate in zip(groups, before, strict=True):
                group["lr"], group["capturable"] = rate, False
        learnt, figures, largest = made[-1]
        self._recorded = _Recorded(replay, static, rates, learnt.loss, figures, largest, learnt.order)
        return True


def _read(seen: Prepared) -> list[Tensor]:
    """Everything of a batch that the gradient of a step may depend on, in a fixed order."""
    batch = seen.batch
    views = [images for _, images in sorted(batch.views.items())]
    return [seen.images, *seen.targets, *seen.whole_mass, batch.rows, *views]


def _copied(seen: Prepared) -> Prepared:
    """A batch whose tensors can be filled with those of another one, and that begins no other batch."""
    views = {name: images.clone() for name, images in seen.batch.views.items()}
    batch = replace(seen.batch, rows=seen.batch.rows.clone(), views=views)
    targets, whole_mass = (tuple(level.clone() for level in levels) for levels in (seen.targets, seen.whole_mass))
    return Prepared(batch, seen.images.clone(), targets, whole_mass)


def _record(work: Callable[[], None]) -> Callable[[], None]:
    """Record what ``work`` tells the GPU, which is not done yet; returns what does it."""
    graph = torch.cuda.CUDAGraph()
    # Of this thread alone: another one prepares the next batch meanwhile, and may ask for memory.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay
