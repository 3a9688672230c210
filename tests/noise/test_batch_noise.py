"""Noise on whole batches is that of `image_noise.py`: the same pixels for the same strength, the same distributions."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from nstudent.config.schema import NoiseConfig
from nstudent.noise.batch_noise import BatchNoise, apply_noise
from nstudent.noise.draws import NoiseDraws, affine_matrix
from nstudent.noise.image_noise import ImageNoise
from scipy.stats import ks_2samp

QUIET = {"shift": 0.0, "zoom": 0.0, "rotate": 0.0, "flip": False, "operations": 0}
STRONG = NoiseConfig(shift=0.2, zoom=0.2, rotate=20, flip=True, operations=2, magnitude=9)
NUM_DRAWS = 1500
LARGEST_GAP = 0.071
"""Between two empirical distributions of so many draws of the same variable: exceeded once in a thousand times."""


def quiet(**options: Any) -> NoiseConfig:
    return NoiseConfig(**QUIET | options)


def pictures(number: int = 16, side: int = 32) -> np.ndarray:
    """Smooth coloured shapes under a little grain, no two alike."""
    random = np.random.default_rng(5)
    coarse = random.integers(0, 256, (number, 5, 5, 3), dtype=np.uint8)
    smooth = np.stack([cv2.resize(each, (side, side), interpolation=cv2.INTER_CUBIC) for each in coarse])
    return np.clip(smooth.astype(int) + random.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)


def noised(noise: NoiseConfig, images: np.ndarray, *key: int | str) -> np.ndarray:
    return BatchNoise(noise)(torch.from_numpy(images), key).numpy()


@pytest.mark.parametrize(
    ("rotate", "scale", "shift"),
    [(17, (1, 1), (0, 0)), (0, (0.8, 1.3), (0, 0)), (0, (1, 1), (3, -5)), (-100, (0.8, 1.3), (9, 2))],
)
def test_a_warp_gives_the_pixels_of_albumentations(
    rotate: int, scale: tuple[float, float], shift: tuple[int, int]
) -> None:
    images = pictures()
    twin = A.Affine(
        rotate=(rotate, rotate),
        scale={axis: (factor, factor) for axis, factor in zip("xy", scale, strict=True)},
        translate_px={axis: (pixels, pixels) for axis, pixels in zip("xy", shift, strict=True)},
        shear=(0, 0),
        border_mode=cv2.BORDER_REFLECT_101,
        p=1,
    )
    shift_px, factors = (np.array(pair, dtype=float) for pair in (shift, scale))
    matrix = affine_matrix(32, shift_px=shift_px, scale=factors, rotate=np.float64(rotate))
    none = np.zeros((len(images), 0))
    warp = NoiseDraws(np.broadcast_to(matrix, (len(images), 2, 3)), None, none.astype(np.int64), none)

    found = apply_noise(torch.from_numpy(images), warp).numpy()

    expected = np.stack([twin(image=image)["image"] for image in images])
    # OpenCV 4 rounds 32nds of a pixel once more.
    most, share = (1, 0.01) if int(cv2.__version__.partition(".")[0]) > 4 else (4, 0.2)
    assert np.abs(found.astype(int) - expected).max() <= most
    assert np.mean(found != expected) < share


def by_image(noise: NoiseConfig, image: np.ndarray, number: int = NUM_DRAWS) -> np.ndarray:
    augment = ImageNoise(noise)
    return np.stack([augment(image, ("by image", draw)) for draw in range(number)])


def by_batch(noise: NoiseConfig, image: np.ndarray, number: int = NUM_DRAWS) -> np.ndarray:
    return noised(noise, np.broadcast_to(image, (number, *image.shape)).copy(), "by batch")


def statistics(images: np.ndarray, original: np.ndarray) -> dict[str, np.ndarray]:
    """What an operation, its strength and its place leave their mark on, one number an image each."""
    x = images.astype(float)
    grey, change = x.mean(axis=3), np.abs(x - original.astype(float))
    side = x.shape[1]
    return {
        "mean": x.mean(axis=(1, 2, 3)),
        "contrast": grey.std(axis=(1, 2)),
        "colourfulness": (x.max(axis=3) - x.min(axis=3)).mean(axis=(1, 2)),
        "edges": np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2)),
        "change": change.mean(axis=(1, 2, 3)),
        "untouched": (change.max(axis=3) == 0).mean(axis=(1, 2)),
        "left": grey[:, :, : side // 4].mean(axis=(1, 2)),
        "top": grey[:, : side // 4].mean(axis=(1, 2)),
        "values": np.array([len(np.unique(each)) for each in images], dtype=float),
    }


def largest_gap(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    return max(ks_2samp(one[name], other[name], method="asymp").statistic for name in one)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"flip": True},
        {"shift": 0.2},
        {"zoom": 0.3},
        {"rotate": 25},
        {"operations": 1, "magnitude": 9},
        {"operations": 2, "magnitude": 4},
        {"operations": 3, "magnitude": 10},
        {"operations": 1, "magnitude": 6, "magnitude_spread": 3},
        {"shift": 0.1, "zoom": 0.1, "rotate": 8, "flip": True, "operations": 2},
    ],
    ids=str,
)
def test_both_ways_draw_from_the_same_distributions(options: dict[str, Any]) -> None:
    image = pictures()[3]
    ours, theirs = (statistics(path(quiet(**options), image), image) for path in (by_batch, by_image))
    assert largest_gap(ours, theirs) < LARGEST_GAP


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "others"),
    [
        ({"shift": 0.2}, {"shift": 0.15}),
        ({"zoom": 0.3}, {"zoom": 0.24}),
        ({"rotate": 25}, {"rotate": 20}),
        ({"operations": 2, "magnitude": 4}, {"operations": 2, "magnitude": 6}),
        ({"operations": 2, "magnitude": 6}, {"operations": 3, "magnitude": 6}),
        ({"operations": 2, "magnitude": 6}, {"operations": 2, "magnitude": 6, "magnitude_spread": 3}),
    ],
    ids=str,
)
def test_that_comparison_sees_a_small_difference(options: dict[str, float], others: dict[str, float]) -> None:
    image = pictures()[3]
    ours, theirs = (statistics(by_batch(quiet(**each), image), image) for each in (options, others))
    assert largest_gap(ours, theirs) > LARGEST_GAP


def recovered(images: np.ndarray) -> dict[str, np.ndarray]:
    """Shift and matrix of each image, read off a pattern whose red is its column and whose green is its row."""
    places, centre, arm = images[..., :2].astype(float) / 4, 32, 10
    across = (places[:, centre, centre + arm] - places[:, centre, centre - arm]) / (2 * arm)
    down = (places[:, centre + arm, centre] - places[:, centre - arm, centre]) / (2 * arm)
    middle = places[:, centre - 1 : centre + 1, centre - 1 : centre + 1].mean(axis=(1, 2)) - 31.5
    matrix = {"xx": across[:, 0], "yx": across[:, 1], "xy": down[:, 0], "yy": down[:, 1]}
    return {"x": middle[:, 0], "y": middle[:, 1]} | matrix


@pytest.mark.slow
def test_shifts_scales_and_angles_recovered_from_a_pattern_are_equally_distributed() -> None:
    at = np.arange(64) * 4
    pattern = np.stack(np.broadcast_arrays(at[None, :], at[:, None], 0), axis=2).astype(np.uint8)
    noise = quiet(shift=0.1, zoom=0.2, rotate=25)

    ours, theirs = (recovered(path(noise, pattern)) for path in (by_batch, by_image))

    assert largest_gap(ours, theirs) < LARGEST_GAP
    angles = np.rad2deg(np.arctan2(ours["xy"] - ours["yx"], ours["xx"] + ours["yy"]))
    assert 23 < np.abs(angles).max() < 30
    assert np.abs(np.mean(angles)) < 1.5


def test_no_two_images_or_steps_share_their_noise() -> None:
    image = np.broadcast_to(pictures()[0], (40, 32, 32, 3)).copy()
    found = [each.tobytes() for step in range(5) for each in noised(STRONG, image, 0, "student", step)]
    assert len(set(found)) == len(found) == 200


def test_equal_keys_give_equal_noise_and_nothing_else_is_read() -> None:
    torch.manual_seed(1)
    first = noised(STRONG, pictures(), "a", 1)
    torch.manual_seed(2)
    np.random.seed(2)
    noised(STRONG, pictures(), "a", 2)
    assert np.array_equal(first, noised(STRONG, pictures(), "a", 1))


@pytest.mark.parametrize("cuts", [(0, 16), (0, 8, 16), (0, 1, 5, 16)])
def test_how_a_batch_is_divided_does_not_matter(cuts: tuple[int, ...]) -> None:
    images = torch.from_numpy(pictures())
    augment = BatchNoise(STRONG)
    parts = [np.arange(*ends) for ends in pairwise(cuts)]

    divided = torch.cat([augment(images[part], ("k", 3), part, len(images)) for part in parts])

    assert torch.equal(divided, augment(images, ("k", 3)))


def test_without_an_option_nothing_changes() -> None:
    assert np.array_equal(noised(quiet(), pictures(), 0), pictures())


def test_flip_mirrors_with_and_without_a_warp() -> None:
    flipped = noised(quiet(flip=True), pictures(), 1)
    mirrored = [np.array_equal(each, image[:, ::-1]) for each, image in zip(flipped, pictures(), strict=True)]
    assert 3 <= sum(mirrored) <= 13
    # A warp that is next to nothing: what is mirrored is so to the pixel.
    assert np.array_equal(noised(quiet(flip=True, rotate=1e-6), pictures(), 1), flipped)


@pytest.mark.parametrize("side", [8, 32, 64])
def test_type_and_shape_stay_and_the_images_given_are_not_changed(side: int) -> None:
    images = pictures(side=side)
    before = images.copy()
    found = noised(STRONG, images, 2)
    assert (found.dtype, found.shape) == (np.uint8, images.shape)
    assert np.array_equal(images, before)
    assert not np.shares_memory(noised(quiet(), images, 2), images)


@pytest.mark.gpu
def test_cpu_and_gpu_agree_and_the_gpu_is_not_waited_for(
    not_waiting: Callable[[], AbstractContextManager[None]],
) -> None:
    images, augment = torch.from_numpy(pictures(64)), BatchNoise(STRONG)
    there = images.cuda()
    augment(there, ("warm", 0))
    with not_waiting():
        found = [augment(there, ("k", step)) for step in range(4)]
    for step, noised_there in enumerate(found):
        gap = (noised_there.cpu().int() - augment(images, ("k", step)).int()).abs()
        # A grey level that is rounded the other way can be spread by an operation that comes after.
        assert (gap > 1).float().mean() < 0.01
