"""The gradient of one step, whatever the batch has to be cut into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from nstudent.data.transfer import sent
from nstudent.distributed.ranks import shared, sum_over
from nstudent.errors import RefusedError
from nstudent.models.heads import Logits
from nstudent.models.resizing import resized
from nstudent.noise.steps import Prepared
from nstudent.training.clipping import Clip
from nstudent.training.finite import FiniteCheck, largest_numbers
from nstudent.training.objective import Moment, Objective, Stateful
from nstudent.training.portions import Portion, halved, one_value_explained, portions
from nstudent.training.surroundings import Surroundings
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
    """Forward, loss and backward of a batch: of its portions where memory is short, of a part of it in each process."""

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        finite: FiniteCheck,
        clip: Clip,
        where: Surroundings,
        believe: Callable[[Tensor], Logits],
    ) -> None:
        """Work on the batches of one network.

        Args:
            network: The network, on its device.
            objective: Gives the loss of a batch or of a portion of it.
            finite: Looks at every step.
            clip: Shortens the gradient.
            where: Device, processes and key of the training.
            believe: Gives the logits of the averaged network.
        """
        self._network = network
        # Both are found once: walking through a network takes as long as some of its layers.
        self._weights = list(network.parameters())
        self._autocast = where.placement.autocast(network)
        self._shared = shared(network, where.world)
        self._objective = objective
        self._finite = finite
        self._clip = clip
        self._placement = where.placement
        self._world = where.world
        self._key = where.key
        self._say = where.say
        self._believe = believe
        self.num_portions = 1
        """How many portions a batch is worked on in."""

    def share_anew(self) -> None:
        """Agree with the other processes of the run on which weights learn; each calls it where these have changed."""
        self._shared = shared(self._network, self._world)

    def put(self, step: int, done: float, seen: Prepared) -> Tensor:
        """Put the clipped gradient of a batch in place, and return its loss.

        Args:
            step: Number of the step.
            done: Fraction of the training that is over.
            seen: The batch, on the device.

        Raises:
            RefusedError: the gradient is not finite, or not even one image fits into the memory.
        """
        while (learnt := self._try(step, done, seen)) is None:
            pass
        self._finite.before_step(step, learnt.loss, learnt.norm, learnt.largest, learnt.order)
        return learnt.loss

    def _try(self, step: int, done: float, seen: Prepared) -> Learnt | None:
        """What was learnt; ``None`` where the device ran out of memory, and smaller portions are due."""
        self.clear()
        self.seed(step)
        learnt: Learnt | None = None
        with suppress(torch.OutOfMemoryError):
            learnt = self.learnt(done, seen)
        if learnt is None:
            # Only here: while it is handled, the error's traceback keeps every activation (pytorch #18853).
            self._forget_step()
            self._cut(seen.images)
        return learnt

    def seed(self, step: int) -> None:
        """Set torch's generator, which dropout and stochastic depth read, from the step: it has no past."""
        self._placement.seed((*self._key, "step", step, *([self._world.rank] if self._world.rank else [])))

    def learnt(self, done: float, seen: Prepared) -> Learnt:
        """Add the gradient of a batch to what is there, and clip it."""
        parts = list(portions(len(seen.images), seen.batch.num_labelled, self.num_portions))
        learnt = [self._backward(done, seen, portion) for portion in parts]
        loss = torch.stack([loss for loss, _ in learnt]).sum() if len(learnt) > 1 else learnt[0][0]
        sum_over(self._world, loss)
        norm = self._clip()
        return Learnt(
            loss, norm, lambda: torch.cat([largest() for _, largest in learnt]), [portion.rows for portion in parts]
        )

    def _backward(self, done: float, seen: Prepared, portion: Portion) -> tuple[Tensor, Callable[[], Tensor]]:
        """Add a portion's gradient; returns its loss, and what tells the largest numbers of its images."""
        batch = seen.batch
        whole = len(portion.rows) == len(seen.images)
        chosen = portion.rows if whole else sent(portion.rows, seen.images.device)

        def part(tensor: Tensor) -> Tensor:
            return tensor if whole else tensor[chosen]

        with one_value_explained(len(portion.rows), seen.images.shape[-1]), self._autocast:
            logits = tuple(level.float() for level in self._shared(part(seen.images)))
        moment = Moment(
            logits=logits,
            mass=[part(level) for level in seen.targets],
            num_labelled=portion.num_labelled,
            rows=part(batch.rows),
            views={name: self._view(part(images), seen.images.shape[-1]) for name, images in batch.views.items()},
            believe=self._believe,
            done=done,
            whole_mass=seen.whole_mass,
            whole_images=batch.whole_images,
        )
        loss = self._objective(moment)
        seen.meanwhile()
        # The gradients of several processes are averaged; it is their sum that is wanted.
        (loss * self._world.size if self._world.size > 1 else loss).backward()  # type: ignore[no-untyped-call]
        told, taught = tuple(level.detach() for level in logits), moment.mass
        if self._finite.asks_always:
            # At once: the next portion may be computed in the same memory.
            found = largest_numbers(told, taught)
            return loss.detach(), lambda: found
        return loss.detach(), lambda: largest_numbers(told, taught)

    def _view(self, pixels: Tensor, side: int) -> Tensor:
        """A further view of the images, at the size that the network learns from."""
        return resized(self._placement.images(pixels), side)

    def clear(self) -> None:
        """Drop the gradient; where portions are to be added up under CUDA graphs, set it to zeros instead.

        Without a gradient to add to, the first backward pass would leave one in the memory of its graph, which the
        next replay overwrites (pytorch #96693, #169545).
        """
        zeros = self.num_portions > 1 and self._placement.compile_mode == "reduce-overhead"
        for weight in self._weights:
            weight.grad = torch.zeros_like(weight) if zeros and weight.requires_grad else None

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
            raise RefusedError(
                f"process {self._world.rank} has no memory for its share of a batch ({len(images)} images): "
                "lower batch_size, or start more processes"
            )
        self.num_portions = halved(self.num_portions, len(images), self._placement.device, images.shape[-1])
        self._say(f"  out of memory: batches are worked on in {self.num_portions} portions from here on")
