"""Sizes of images and strength of noise over a training: stages that grow, and a finish on the images as they will be.

Progressive learning is that of EfficientNetV2 (Tan & Le, arXiv 2104.00298, section 4 and algorithm 1), with the
numbers of the authors' code: stage s of M, from 0, has images of ``int(start + (last - start) * (s + 1) / M)`` pixels,
and noise that lies ``s / (M - 1)`` of the way from its start to its full strength. RandAugment starts at a third of its
magnitude (5 of 15), CutMix and MixUp at nothing.

The finish is that of FixRes (Touvron et al., arXiv 1906.06423, section 4.2), which trains on smaller images than the
finished network will see: the last layers are adapted to the size of use, on images without noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nstudent.config.schema import NoiseConfig, TrainingConfig

_FIRST_MAGNITUDE = 1 / 3
"""Magnitude of RandAugment in the first of several stages, as a share of the full one: 5 of 15 in the paper."""
_NONE = {
    **dict.fromkeys(("shift", "zoom", "rotate", "erase", "cutout", "cutmix", "mixup"), 0.0),
    "operations": 0,
    "flip": False,
}
"""Noise of the finish."""


@dataclass(frozen=True)
class Phase:
    """A stretch of a training in which nothing changes."""

    side_px: int
    share: float
    """Its share of the training's steps."""
    late_layers_alone: bool = False
    """Whether it is the finish."""


@dataclass(frozen=True)
class Growth:
    """Side of the images and strength of the noise, as functions of the fraction of the training that is done."""

    stages: int
    start_px: int
    """Side below that of the first stage; see the module."""
    last_px: int
    """Side of the images of the last stage."""
    full_px: int
    """Side of the images of the finish, and of those that the finished network sees."""
    steps: int
    """Number of steps of the whole training."""
    finish_steps: int = 0
    """Number of its last steps that are the finish."""

    @classmethod
    def of(cls, training: TrainingConfig, image_size: int, epochs: int, steps_per_epoch: int) -> Growth:
        """The growth that a configuration asks for.

        Args:
            training: How the network is trained.
            image_size: Side of the images that the finished network sees, in pixels.
            epochs: Length of the training, its finish included.
            steps_per_epoch: Steps of each epoch.
        """
        start, last = training.sides(image_size)
        return cls(
            stages=training.progressive_stages,
            start_px=start,
            last_px=last,
            full_px=image_size,
            steps=epochs * steps_per_epoch,
            finish_steps=finish_steps(training, epochs, steps_per_epoch),
        )

    @property
    def is_steady(self) -> bool:
        """Whether nothing changes while the network trains, and images are as they were loaded."""
        return self.stages == 1 and self.last_px == self.full_px and not self.finish_steps

    @property
    def stage_steps(self) -> int:
        """Number of steps before the finish."""
        return self.steps - self.finish_steps

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The stages, and the finish if there is one."""
        share = self.stage_steps / self.steps
        stages = [Phase(self._side_of(stage), share / self.stages) for stage in range(self.stages)]
        finish = [Phase(self.full_px, 1 - share, late_layers_alone=True)] if self.finish_steps else []
        return (*stages, *finish)

    def mean(self, cost_at: Callable[[int], float]) -> float:
        """Mean over the steps of what an image costs, from the side of the image in pixels."""
        return sum(phase.share * cost_at(phase.side_px) for phase in self.phases)

    def side_at(self, done: float) -> int:
        """Side of the images, in pixels.

        Args:
            done: Fraction of the training that is over at a step: the step's number by the number of steps.
        """
        stage = self._stage_at(done)
        return self.full_px if stage is None else self._side_of(stage)

    def weakened(self, noise: NoiseConfig, done: float) -> NoiseConfig:
        """The noise at that point of the training, of which ``noise`` is the full strength."""
        stage = self._stage_at(done)
        if stage is None:
            return noise.model_copy(update=_NONE)
        if stage == self.stages - 1:
            return noise
        return _at_strength(noise, stage / (self.stages - 1))

    def _stage_at(self, done: float) -> int | None:
        """Number of the stage, from 0; ``None`` in the finish."""
        # A step number divided by the number of steps comes back whole only by rounding.
        step = round(done * self.steps)
        return None if step >= self.stage_steps else step * self.stages // self.stage_steps

    def _side_of(self, stage: int) -> int:
        # In whole numbers: the quotient of floats could lie just below a whole number of pixels.
        if self.stages == 1:
            return self.last_px
        return self.start_px + (self.last_px - self.start_px) * (stage + 1) // self.stages


def finish_steps(training: TrainingConfig, epochs: int, steps_per_epoch: int) -> int:
    """Number of the last steps of a training that are its finish; an epoch at least lies before them."""
    return min(training.finish_epochs, epochs - 1) * steps_per_epoch


def _at_strength(noise: NoiseConfig, strength: float) -> NoiseConfig:
    """The noise of a stage, whose strength lies between 0 and 1."""
    changed: dict[str, float] = {"magnitude": noise.magnitude * (_FIRST_MAGNITUDE + (1 - _FIRST_MAGNITUDE) * strength)}
    for mixing in ("cutmix", "mixup"):
        # The authors' alpha grows from 0, at which a mixture shows one of the two images alone: no batch is mixed.
        alpha = strength * getattr(noise, f"{mixing}_alpha")
        changed |= {f"{mixing}_alpha": alpha} if alpha else {mixing: 0.0}
    return noise.model_copy(update=changed)
