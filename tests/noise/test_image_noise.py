"""Noise comes from a key alone: albumentations by itself repeats it over workers and epochs (FAULTS, finding 1)."""

import multiprocessing
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from nstudent.config.schema import NoiseConfig
from nstudent.noise.image_noise import ImageNoise
from nstudent.randomness import Key

QUIET = {"shift": 0.0, "zoom": 0.0, "rotate": 0.0, "flip": False, "operations": 0}
STRONG = NoiseConfig(shift=0.2, zoom=0.2, rotate=20, flip=True, operations=2, magnitude=9)


def image(height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def noised(noise: NoiseConfig, keys: Sequence[Key], picture: np.ndarray | None = None) -> list[bytes]:
    augment = ImageNoise(noise)
    picture = image() if picture is None else picture
    return [augment(picture, key).tobytes() for key in keys]


@pytest.mark.parametrize(
    "noise",
    [
        NoiseConfig(),
        NoiseConfig(**QUIET | {"rotate": 30}),
        NoiseConfig(operations=2, magnitude=8),
        STRONG,
    ],
)
def test_no_two_keys_share_their_noise(noise: NoiseConfig) -> None:
    keys = [(seed, "student", 1, part, draw) for seed in range(2) for part in range(2) for draw in range(25)]

    assert len(set(noised(noise, keys))) == len(keys)


def test_equal_keys_give_equal_noise_whatever_came_before() -> None:
    keys = [(0, "teacher", draw) for draw in range(20)]

    forward = noised(STRONG, keys)
    backward = noised(STRONG, keys[::-1])[::-1]

    assert forward == backward == noised(STRONG, keys)


def test_one_augmenter_gives_the_same_twice() -> None:
    augment = ImageNoise(STRONG)

    assert np.array_equal(augment(image(), ("a", 1)), augment(image(), ("a", 1)))


def test_global_random_states_are_not_read() -> None:
    """``random.seed`` and ``np.random.seed`` in a user's program must change nothing."""
    import random

    keys = [(draw,) for draw in range(10)]
    random.seed(1)
    np.random.seed(1)
    first = noised(STRONG, keys)
    random.seed(2)
    np.random.seed(2)

    assert noised(STRONG, keys) == first


@pytest.mark.parametrize(
    "option",
    [{"shift": 0.2}, {"zoom": 0.3}, {"rotate": 30}, {"flip": True}, {"operations": 2}],
    ids=lambda option: next(iter(option)),
)
def test_every_option_changes_the_image(option: dict[str, Any]) -> None:
    untouched = image().tobytes()

    found = noised(NoiseConfig(**QUIET | option), [(draw,) for draw in range(20)])

    changed = sum(each != untouched for each in found)
    assert changed >= (5 if "flip" in option else 15)
    assert len(set(found)) >= 2


def test_without_an_option_nothing_changes() -> None:
    assert set(noised(NoiseConfig(**QUIET), [(draw,) for draw in range(10)])) == {image().tobytes()}


def test_flip_mirrors_half_of_the_images() -> None:
    found = noised(NoiseConfig(**QUIET | {"flip": True}), [(draw,) for draw in range(200)])

    mirrored = np.ascontiguousarray(image()[:, ::-1]).tobytes()
    assert set(found) == {image().tobytes(), mirrored}
    assert 70 <= found.count(mirrored) <= 130


def test_magnitude_makes_the_operations_stronger() -> None:
    smooth = np.repeat(np.linspace(0, 255, 32).astype(np.uint8)[:, None, None], 32 * 3, axis=1).reshape(32, 32, 3)

    def distance(magnitude: int) -> float:
        noise = NoiseConfig(**QUIET | {"operations": 2, "magnitude": magnitude})
        found = noised(noise, [(draw,) for draw in range(100)], smooth)
        return np.mean([np.abs(np.frombuffer(f, np.uint8).astype(int) - smooth.reshape(-1)).mean() for f in found])

    assert distance(1) < distance(5) < distance(10)


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (20, 30)])
def test_type_and_shape_stay(size: tuple[int, int]) -> None:
    augment = ImageNoise(STRONG)

    for draw in range(10):
        found = augment(image(*size), (draw,))
        assert (found.dtype, found.shape) == (np.uint8, (*size, 3))


def test_the_image_given_is_not_changed() -> None:
    picture = image()
    augment = ImageNoise(STRONG)
    for draw in range(20):
        augment(picture, (draw,))

    assert np.array_equal(picture, image())


def test_a_copy_by_pickle_gives_the_same_noise() -> None:
    copied = pickle.loads(pickle.dumps(ImageNoise(STRONG)))

    assert np.array_equal(copied(image(), ("k", 3)), ImageNoise(STRONG)(image(), ("k", 3)))


@pytest.mark.slow
def test_a_spawned_process_gives_the_same_noise() -> None:
    """Spawn is the default start of processes on macOS and Windows; nothing is inherited but what is pickled."""
    keys = [("spawned", draw) for draw in range(3)]
    augment = ImageNoise(STRONG)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.starmap(augment, [(image(), key) for key in keys])

    assert [each.tobytes() for each in found] == noised(STRONG, keys)
