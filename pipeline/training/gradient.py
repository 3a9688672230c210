"""The gradient of one step, whatever the batch has to be cut into."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from nstudent.data.transfer import sent
from nstudent.errors import TrainingError
from nstudent.models.device import Placement
from nstudent.models.heads import Logits
from nstudent.randomness import Key
from nstudent.ranks import shared, sum_over
from nstudent.training.finite import FiniteCheck, largest_numbers
from nstudent.training.objective import Moment, Objective, Stateful
from nstudent.training.portions import Portion, halved, portions
from nstudent.training.preparation import Prepared
from nstudent.world import World
from torch import Tensor, nn


@dataclass(frozen=True)
class Learnt:
    """What is known of a batch whose gradient is in place."""

    loss: Tensor
    """Scalar, of the whole batch."""
    norm: Tensor
    """Scalar: of the gradient, before it was clipped."""
    largest: Callable[[], Tensor]
    """Gives what ``largest_numbers`` says of its images, (batch, levels)."""
    order: Sequence[Tensor]
    """int64 on the host, in parts: place in the batch of each row of ``largest``."""


class Gradient:
    """Forward, loss and backward of a batch: of its portions where memory is short, of a share in each process."""

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        placement: Placement,
        finite: FiniteCheck,
        key: Key,
        clip_norm: float | None,
        world: World,
        believe: Callable[[Tensor], Logits],
    ) -> None:
        self._network = network
        # Both are found once: walking through a network takes as long as some of its layers.
        self._weights = list(network.parameters())
        self._autocast = placement.autocast(network)
        self._shared = shared(network, world)
        self._objective = objective
        self._placement = placement
        self._finite = finite
        self._key = key
        self._clip_norm = math.inf if clip_norm is None else clip_norm
        self._world = world
        self._believe = believe
        self.num_portions = 1
        """How many portions a batch is worked on in."""
        self.say: Callable[[str], None] = lambda text: None
        """Told where batches have to be cut."""
        self.meanwhile: Callable[[], None] = lambda: None
        """Called before a backward pass, which leaves Python's lock to others."""

    def put(self, step: int, progress: float, seen: Prepared) -> Tensor:
        """Put the clipped gradient of a batch in place, and return its loss.

        Args:
            step: Number of the step.
            progress: 0 at the first step, 1 at the end of training.
            seen: The batch, on the device.

        Raises:
            TrainingError: the gradient is not finite, or not even one image fits into the memory.
        """
        while (learnt := self._try(step, progress, seen)) is None:
            pass
        self._finite.before_step(step, learnt.loss, learnt.norm, learnt.largest, learnt.order)
        return learnt.loss

    def _try(self, step: int, progress: float, seen: Prepared) -> Learnt | None:
        """What was learnt; ``None`` where the device ran out of memory, and smaller portions are due."""
        self.clear()
        self.seed(step)
        learnt: Learnt | None = None
        with suppress(torch.OutOfMemoryError):
            learnt = self.learnt(progress, seen)
        if learnt is None:
            # Only here: while it is handled, the error's traceback keeps every activation (pytorch #18853).
            self._forget_step()
            self._cut(seen.images)
        return learnt

    def seed(self, step: int) -> None:
        """Set torch's generator, which dropout and stochastic depth read, from the step: it has no past."""
        self._placement.seed((*self._key, "step", step, *([self._world.rank] if self._world.rank else [])))

    def learnt(self, progress: float, seen: Prepared) -> Learnt:
        """Add the gradient of a batch to what is there, and clip it."""
        parts = list(portions(len(seen.images), seen.batch.num_labelled, self.num_portions))
        shares = [self._backward(progress, seen, portion) for portion in parts]
        loss = torch.stack([share for share, _ in shares]).sum() if len(shares) > 1 else shares[0][0]
        sum_over(self._world, loss)
        norm = self._clip()
        return Learnt(
            loss, norm, lambda: torch.cat([largest() for _, largest in shares]), [portion.rows for portion in parts]
        )

    def _backward(self, progress: float, seen: Prepared, portion: Portion) -> tuple[Tensor, Callable[[], Tensor]]:
        """Add a portion's gradient; returns its share of the loss, and what tells the largest numbers of its images."""
        batch = seen.batch
        whole = len(portion.rows) == len(seen.images)
        chosen = portion.rows if whole else sent(portion.rows, seen.images.device)

        def part(tensor: Tensor) -> Tensor:
            return tensor if whole else tensor[chosen]

        with self._autocast:
            logits = tuple(level.float() for level in self._shared(part(seen.images)))
        moment = Moment(
            logits=logits,
            targets=[part(level) for level in seen.targets],
            num_labelled=portion.num_labelled,
            rows=part(batch.rows),
            clean=None if batch.clean is None else self._placement.images(part(batch.clean)),
            believe=self._believe,
            progress=progress,
            whole_targets=batch.whole or seen.targets,
            whole_labelled=1 if batch.whole else batch.num_labelled,
            whole_size=batch.whole_size,
        )
        loss = self._objective(moment)
        self.meanwhile()
        # The gradients of several processes are averaged; it is their sum that is wanted.
        (loss * self._world.size if self._world.size > 1 else loss).backward()  # type: ignore[no-untyped-call]
        told, taught = tuple(level.detach() for level in logits), moment.targets
        if self._finite.asks_always:
            # At once: the next portion may be computed in the same memory.
            found = largest_numbers(told, taught)
            return loss.detach(), lambda: found
        return loss.detach(), lambda: largest_numbers(told, taught)

    def _clip(self) -> Tensor:
        """Shorten the gradient where it is too long; returns the norm it had."""
        on_cpu = self._placement.device.type == "cpu"
        # On a CPU torch would go through the weights one by one in Python, unless it is told.
        foreach = True if on_cpu else None
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        norm = nn.utils.get_total_norm(gradients, foreach=foreach)
        # To look at the norm is to wait for a GPU; a CPU saves the way through all gradients.
        if self._clip_norm < math.inf and not (on_cpu and bool(norm <= self._clip_norm)):
            nn.utils.clip_grads_with_norm_(self._weights, self._clip_norm, norm, foreach=foreach)
        return norm

    def clear(self) -> None:
        """Drop the gradient; where portions are to be added up under CUDA graphs, set it to zeros instead.

        Without a gradient to add to, the first backward pass would leave one in the memory of its graph, which the
        next replay overwrites (pytorch #96693, #169545).
        """
        zeros = self.num_portions > 1 and self._placement.compile_mode == "reduce-overhead"
        for weight in self._weights:
            weight.grad = torch.zeros_like(weight) if zeros else None

    def _forget_step(self) -> None:
        for weight in self._weights:
            weight.grad = None
        if isinstance(self._objective, Stateful):
            self._objective.forget()
        if self._placement.device.type == "cuda":
            torch.cuda.empty_cache()

    def _cut(self, images: Tensor) -> None:
        if self._world.size > 1:
            # Its gradient may be on the way to the others already.
            raise TrainingError(
                f"process {self._world.rank} has no memory for its share of a batch ({len(images)} images): "
                "lower batch_size, or start more processes"
            )
        self.num_portions = halved(self.num_portions, len(images), self._placement.device, images.shape[-1])
        self.say(f"  out of memory: batches are worked on in {self.num_portions} portions from here on")
