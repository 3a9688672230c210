"""All noise on the images of a training, built in one place from its configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from nstudent.config.schema import NoiseConfig
from nstudent.data.decode import Pixels
from nstudent.noise.batch_noise import BatchNoise
from nstudent.noise.erasing import Painting, cutout, erasing
from nstudent.noise.image_noise import ImageNoise
from nstudent.noise.mixing import Mixing
from nstudent.noise.resizing import Resizing
from nstudent.noise.steps import BatchStep, PixelStep
from nstudent.randomness import Key
from torch import Tensor


@dataclass(frozen=True)
class Course:
    """Noise and image size over a training, as functions of how far it is."""

    noise: NoiseConfig
    """The noise at its full strength."""
    steps: int
    """Number of steps of the training."""
    weakened: Callable[[NoiseConfig, float], NoiseConfig] | None = None
    """(full noise, fraction of the training that is done) -> the noise at that point; ``None``: the full noise from the
    first step on. Processes that load images are sent it, so it must be a function of a module."""
    side_at: Callable[[float], int] | None = None
    """Fraction of the training that is done -> side of the images in pixels; ``None``: as they were loaded."""

    def at(self, step: int) -> NoiseConfig:
        """Noise of a step."""
        return self.noise if self.weakened is None else self.weakened(self.noise, step / self.steps)


@dataclass(frozen=True)
class Places:
    """The part of every batch that one process has."""

    mine: npt.NDArray[np.int64]
    """int64 (b,): places in the whole batch."""
    batch: int
    """Number of images of the whole batch."""


@dataclass(frozen=True)
class Noise:
    """What is done to the images of a training, in this order."""

    image: LoadedNoise | None = None
    """On one image, where it is loaded; ``None``: nothing."""
    pixels: tuple[PixelStep, ...] = ()
    """On the pixels of one or several batches, on the device."""
    batch: tuple[BatchStep, ...] = ()
    """On a batch that is ready for the network."""


def build_noise(course: Course, places: Places, key: Key, *, in_batches: bool) -> Noise:
    """Build the noise on the images of a training.

    Args:
        course: The noise at each step.
        places: The part of a batch that this process has: an image's noise does not depend on how a batch is divided.
        key: Decides all of it, together with the number of the step.
        in_batches: Whether images are noised a batch at a time on the device, and not one by one.
    """
    full = course.noise
    pixels: list[PixelStep] = []
    if in_batches:
        pixels.append(_Pixelwise(BatchNoise, course, places, (*key, "noise")))
    if full.erase:
        pixels.append(_Pixelwise(_erasing, course, places, (*key, "erase")))
    if full.cutout:
        pixels.append(_Pixelwise(_cutout, course, places, (*key, "cutout")))
    batch: list[BatchStep] = []
    if course.side_at is not None:
        batch.append(Resizing(course.side_at, course.steps))
    if full.cutmix or full.mixup:
        batch.append(Mixing(course.at, course.steps, key))
    return Noise(None if in_batches else LoadedNoise(course), tuple(pixels), tuple(batch))


class LoadedNoise:
    """Noise on one image at a time, where it is loaded: that of the step which it is loaded for."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._known: tuple[NoiseConfig, ImageNoise] = (course.noise, ImageNoise(course.noise))

    def __call__(self, image: Pixels, key: Key, step: int) -> Pixels:
        """uint8 (height, width, 3) -> the same shape. Equal keys and steps give equal noise."""
        wanted = self._course.at(step)
        known, noise = self._known
        if wanted != known:
            noise = ImageNoise(wanted)
            self._known = (wanted, noise)
        return noise(image, key)


class _Together(Protocol):
    def together(self, images: Tensor, keys: Sequence[Key], places: npt.NDArray[np.int64], batch: int) -> Tensor:
        """Noise several batches that lie end to end, each with its own key."""


class _Pixelwise:
    """Noise of one kind on several batches: each with a key of its step, and as strong as its step wants it."""

    def __init__(self, build: Callable[[NoiseConfig], _Together], course: Course, places: Places, key: Key) -> None:
        self._build = build
        self._course = course
        self._places = places
        self._key = key

    def __call__(self, images: Tensor, steps: Sequence[int]) -> Tensor:
        size, noised, first = len(images) // len(steps), [], 0
        for noise, group in groupby(steps, self._course.at):
            keys = [(*self._key, step) for step in group]
            part = images[first : first + size * len(keys)]
            noised.append(self._build(noise).together(part, keys, self._places.mine, self._places.batch))
            first += len(part)
        return noised[0] if len(noised) == 1 else torch.cat(noised)


def _erasing(noise: NoiseConfig) -> Painting:
    return erasing(noise.erase)


def _cutout(noise: NoiseConfig) -> Painting:
    return cutout(noise.cutout)
