"""A training put together: from what is to be learnt, and where, to a loop that is ready to walk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nstudent.config import NoiseConfig, TrainingConfig
from nstudent.data.augment import Augment
from nstudent.data.batch_augment import BatchAugment
from nstudent.data.batches import Batches, Examples
from nstudent.data.dataset import PixelStore
from nstudent.data.erasing import Erasing
from nstudent.data.resident import ResidentPixels
from nstudent.models.device import Placement
from nstudent.models.member import Network
from nstudent.progress import Silence
from nstudent.randomness import Key
from nstudent.training.feed import Feed
from nstudent.training.learner import Learner
from nstudent.training.loop import Length, Loop
from nstudent.training.mixing import Mixing
from nstudent.training.objective import Objective
from nstudent.training.preparation import BatchNoise, Preparation
from nstudent.training.surroundings import Surroundings
from nstudent.world import Alone, World
from torch import Tensor


@dataclass(frozen=True)
class Lesson:
    """What a network is to learn, from which images, and for how long."""

    parts: Sequence[tuple[Examples, int]]
    """Examples, and how many of them a batch holds; the first part is the labelled one."""
    objective: Objective
    length: Length
    with_clean: bool = False
    """Whether the objective looks at the images without noise, too."""


@dataclass(frozen=True)
class Site:
    """Where trainings run: the device, the processes, and the images with their names."""

    placement: Placement
    pixels: PixelStore | ResidentPixels
    levels: Sequence[str]
    """Names of the levels, coarse first, for messages."""
    name_of: Callable[[int], str]
    """Image id -> its name, for messages."""
    noises_in_batches: bool = False
    """Whether images are noised a batch at a time on the device, and not one by one where they are loaded."""
    workers: int = 0
    """Number of processes that load images; 0: none."""
    checkpoint_seconds: float = 0.0
    """Seconds between two checkpoints; 0: one after every step."""
    world: World = field(default_factory=Alone)
    say: Callable[[str], None] = Silence().say
    """Told where a training takes another way than was asked for."""


def build_loop(network: Network, lesson: Lesson, config: TrainingConfig, site: Site, key: Key) -> Loop:
    """Put a training together.

    Args:
        network: The network, as it is before its first step.
        lesson: What it is to learn.
        config: How it is trained.
        site: Where.
        key: Decides the order of the images, and all noise.
    """
    world, placement = site.world, site.placement
    augment = None if site.noises_in_batches else Augment(config.noise)
    share = (world.rank, world.size)
    batches = Batches(site.pixels, lesson.parts, augment, key, with_clean=lesson.with_clean, share=share)
    noise = batch_noise(config.noise, batches, key, whole=site.noises_in_batches)
    preparation = Preparation(placement, Mixing(config.noise, key), noise, lesson.length.steps)

    def images_of(step: int) -> list[str]:
        return [site.name_of(int(image)) for image in batches.ids(step)]

    where = Surroundings(placement, world, key, site.levels, images_of, site.say)
    learner = Learner(network, lesson.objective, config, lesson.length, where)
    feed = Feed(batches, preparation, placement.device, site.workers)
    return Loop(learner, feed, lesson.length, world=world, checkpoint_seconds=site.checkpoint_seconds)


def batch_noise(noise: NoiseConfig, batches: Batches, key: Key, *, whole: bool) -> BatchNoise | None:
    """What is done to images where the network runs: all of their noise, or what is never done one by one."""
    places, size = batches.places()
    augment = BatchAugment(noise) if whole else None
    erase = Erasing(noise.erase) if noise.erase else None
    if augment is None and erase is None:
        return None

    def noised(images: Tensor, steps: Sequence[int]) -> Tensor:
        if augment is not None:
            images = augment.together(images, [(*key, "noise", step) for step in steps], places, size)
        if erase is not None:
            images = erase.together(images, [(*key, "erase", step) for step in steps], places, size)
        return images

    return noised
