"""A training put together: from what is to be learnt, and where, to a loop that is ready to walk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from nstudent.config.schema import NoiseConfig, TrainingConfig
from nstudent.data.batches import Batches, Examples, Images, places_of
from nstudent.data.loading import workers_with_room
from nstudent.distributed.world import Alone, World
from nstudent.models.device import Placement
from nstudent.models.network import Network
from nstudent.noise.build import Course, Noise, Places, build_noise
from nstudent.progress import Silence
from nstudent.randomness import Key
from nstudent.training.feed import Feed
from nstudent.training.learner import Learner
from nstudent.training.loop import Length, Loop, Method
from nstudent.training.objective import Objective
from nstudent.training.preparation import Preparation
from nstudent.training.revision import Revision
from nstudent.training.surroundings import Surroundings


@dataclass(frozen=True)
class Lesson:
    """What a network is to learn, from which images, and for how long."""

    parts: Sequence[tuple[Examples, int]]
    """Examples, and how many of them a batch holds; the first part is the labelled one."""
    objective: Objective
    length: Length
    views: Mapping[str, NoiseConfig | None] = field(default_factory=dict)
    """Further views of the images that the objective looks at, by name: their noise, or ``None`` for the images as they
    are. Their noise is drawn apart from that of the images which the network learns from."""
    revision: Revision | None = None
    """Changes what a batch teaches by what the network believes; ``None``: it teaches what its examples say."""
    weakened: Callable[[NoiseConfig, float], NoiseConfig] | None = None
    """(full noise, fraction of the training that is done) -> the noise at that point; see ``noise.build.Course``."""
    side_at: Callable[[float], int] | None = None
    """Fraction of the training that is done -> side of the images in pixels; ``None``: as they were loaded."""
    first_weights: Key | None = None
    """Decides the first weights, of networks that begin alike; ``None``: the key of the training does."""
    learns_validation: bool = False
    """Whether the validation images are among the examples, so that scores on them would mean nothing."""
    method: Callable[[Network, TrainingConfig, Length, Surroundings], Method] | None = None
    """Makes what takes the steps, of the network as it is before its first step; ``None``: a ``Learner``."""
    then: Continuation | None = None
    """What the network goes on with after the last step; ``None``: nothing."""


@dataclass(frozen=True)
class Continuation:
    """A training that begins with the averaged weights of the one before it."""

    name: str
    """What it is called, after the name of the training before it."""
    lesson: Lesson
    training: TrainingConfig


@dataclass(frozen=True)
class Site:
    """Where trainings run: the device, the processes, and the images with their names."""

    placement: Placement
    pixels: Images
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
    placement, process = site.placement, (site.world.rank, site.world.size)
    places = Places(*places_of(lesson.parts, process))

    def noise_of(config: NoiseConfig, key: Key) -> Noise:
        course = Course(config, lesson.length.steps, lesson.weakened, lesson.side_at)
        return build_noise(course, places, key, in_batches=site.noises_in_batches)

    noise = noise_of(config.noise, key)
    views = {
        name: Noise() if view is None else noise_of(view, (*key, "view", name)) for name, view in lesson.views.items()
    }
    loaded = {name: view.image for name, view in views.items()}
    batches = Batches(site.pixels, lesson.parts, noise.image, key, views=loaded, process=process)
    preparation = Preparation(placement, noise, views)

    def images_of(step: int) -> list[str]:
        return [site.name_of(int(image)) for image in batches.ids(step)]

    where = Surroundings(placement, site.world, key, site.levels, images_of, site.say)
    if lesson.method is None:
        method: Method = Learner(network, lesson.objective, config, lesson.length, where, lesson.revision)
    else:
        method = lesson.method(network, config, lesson.length, where)
    workers = workers_with_room(site.workers, batches.num_bytes if site.workers else 0, site.say)
    feed = Feed(batches, preparation, placement.device, workers)
    return Loop(method, feed, lesson.length, world=site.world, checkpoint_seconds=site.checkpoint_seconds)
