"""RandAugment's operations: their pixels by hand and by Pillow, both ways of noising, and how they are drawn."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from nstudent.config.schema import NoiseConfig
from nstudent.noise import draws
from nstudent.noise.batch_noise import apply_noise
from nstudent.noise.draws import NoiseDraws, draw_noise, draw_operations, operation_matrix, strengths
from nstudent.noise.image_noise import operated
from PIL import Image
from scipy.stats import chisquare

SIDE = 32
KINDS = range(draws.NUM_OPERATIONS)
SIGNED = [draws.COLOUR, draws.CONTRAST, draws.BRIGHTNESS, draws.SHARPNESS, *draws.MOVES]
Tiny = list[list[int]]


def quiet(**options: Any) -> NoiseConfig:
    return NoiseConfig(**{"shift": 0.0, "zoom": 0.0, "rotate": 0.0} | options)


def pictures(number: int = 16, side: int = SIDE) -> np.ndarray:
    """Smooth coloured shapes under a little grain, no two alike; some with channels of one value, and with white."""
    random = np.random.default_rng(5)
    coarse = random.integers(0, 256, (number, 5, 5, 3), dtype=np.uint8)
    smooth = np.stack([cv2.resize(each, (side, side), interpolation=cv2.INTER_CUBIC) for each in coarse])
    images = np.clip(smooth.astype(int) + random.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)
    images[0, ..., 0], images[1, ..., 1], images[2, :5] = 77, 255, 255
    return images


def by_batch(images: np.ndarray, operations: list[int], strength: list[float]) -> np.ndarray:
    """The images after these operations in this order, the same for every image."""
    shape = (len(images), len(operations))
    drawn = NoiseDraws(None, None, np.broadcast_to(operations, shape), np.broadcast_to(strength, shape).astype(float))
    return apply_noise(torch.from_numpy(images.copy()), drawn).numpy()


def grey(values: Tiny) -> np.ndarray:
    """A batch of one image whose three channels are the same."""
    return np.repeat(np.array(values, dtype=np.uint8)[None, ..., None], 3, axis=3)


# Values by hand. Blends are plain + factor * (value - plain), cut off below the point.
RAMP = [[0, 40, 100, 127], [128, 150, 200, 240], [10, 20, 30, 250], [60, 70, 80, 90]]
BY_HAND: dict[str, tuple[int, float, Tiny, Tiny]] = {
    "nothing": (draws.NOTHING, 0, RAMP, RAMP),
    "invert": (draws.INVERT, 0, [[0, 1], [128, 255]], [[255, 254], [127, 0]]),
    # Four bits: multiples of 16.
    "posterize": (draws.POSTERIZE, 4, [[0, 15], [16, 255]], [[0, 0], [16, 240]]),
    "posterize to all bits": (draws.POSTERIZE, 8, RAMP, RAMP),
    "solarize": (draws.SOLARIZE, 100, [[0, 99], [100, 255]], [[0, 99], [155, 0]]),
    "solarize all": (draws.SOLARIZE, 0, [[0, 99], [100, 255]], [[255, 156], [155, 0]]),
    "solarize nothing": (draws.SOLARIZE, 256, RAMP, RAMP),
    "solarize add": (draws.SOLARIZE_ADD, 110, [[0, 100], [127, 128]], [[110, 210], [237, 128]]),
    "brightness": (draws.BRIGHTNESS, 1.5, [[0, 3], [100, 180]], [[0, 4], [150, 255]]),
    "less brightness": (draws.BRIGHTNESS, 0.5, [[0, 3], [100, 255]], [[0, 1], [50, 127]]),
    # Mean 100: 100 + 1.5 * (40 - 100) = 10, 100 + 1.5 * (241 - 100) = 311.5.
    "contrast": (draws.CONTRAST, 1.5, [[40, 100], [19, 241]], [[10, 100], [0, 255]]),
    "less contrast": (draws.CONTRAST, 0.5, [[40, 100], [19, 241]], [[70, 100], [59, 170]]),
    # 255 * (v - 50) / 100.
    "autocontrast": (draws.AUTOCONTRAST, 0, [[50, 75], [100, 150]], [[0, 63], [127, 255]]),
    "autocontrast of one value": (draws.AUTOCONTRAST, 0, [[50, 50], [50, 50]], [[50, 50], [50, 50]]),
    "colour of grey": (draws.COLOUR, 1.75, RAMP, RAMP),
    # Two columns to the right of a place are shown there, and grey comes from outside.
    "translate x": (draws.TRANSLATE_X, 0.5, RAMP, [[r[2], r[3], 128, 128] for r in RAMP]),
    "translate x back": (draws.TRANSLATE_X, -0.25, RAMP, [[128, *r[:3]] for r in RAMP]),
    "translate y": (draws.TRANSLATE_Y, 0.25, RAMP, [*RAMP[1:], [128] * 4]),
    "translate y back": (draws.TRANSLATE_Y, -0.5, RAMP, [[128] * 4, [128] * 4, *RAMP[:2]]),
    # Row y reads 2 * (y + 1/2) columns further right: 1, 3 and 5 of three columns.
    "shear x": (draws.SHEAR_X, 2, [[1, 2, 3]] * 3, [[2, 3, 128], [128] * 3, [128] * 3]),
    "shear y": (draws.SHEAR_Y, 2, [[1] * 3, [2] * 3, [3] * 3], [[2, 128, 128], [3, 128, 128], [128] * 3]),
    "shear y back": (draws.SHEAR_Y, -2, [[1] * 3, [2] * 3, [3] * 3], [[128] * 3, [1, 128, 128], [2, 128, 128]]),
    # Rows read 1/2, 3/2 and 5/2 columns further left: (128 + 2) / 2 where half of it is grey.
    "shear x back": (draws.SHEAR_X, -1, [[2, 4, 6]] * 3, [[65, 3, 5], [128, 65, 3], [128, 128, 65]]),
    # Counter-clockwise.
    "rotate": (draws.ROTATE, 90, [[1, 2], [3, 4]], [[2, 4], [1, 3]]),
    # Smooth centre (5 * 130 + 8 * 0) / 13 = 50, the border stays: 50 + 1.5 * 80.
    "sharpness": (draws.SHARPNESS, 1.5, [[0] * 3, [0, 130, 0], [0] * 3], [[0] * 3, [0, 170, 0], [0] * 3]),
    "less sharpness": (draws.SHARPNESS, 0.25, [[0] * 3, [0, 130, 0], [0] * 3], [[0] * 3, [0, 70, 0], [0] * 3]),
    "sharpness of two pixels": (draws.SHARPNESS, 1.5, [[0, 200], [9, 50]], [[0, 200], [9, 50]]),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_an_operation_gives_the_values_worked_out_by_hand_both_ways(name: str) -> None:
    operation, strength, before, after = BY_HAND[name]
    assert by_batch(grey(before), [operation], [strength])[..., 0].tolist() == [after]
    assert operated(grey(before)[0], operation, strength)[..., 0].tolist() == after


def test_colour_is_blended_with_its_grey() -> None:
    # Grey of (200, 100, 0): .299 * 200 + .587 * 100 = 118.5 and a little less by 2^16 parts, 118.
    image = np.array([[[[200, 100, 0]]]], dtype=np.uint8).repeat(2, 1).repeat(2, 2)
    assert by_batch(image, [draws.COLOUR], [0.5])[0, 0, 0].tolist() == [159, 109, 59]
    assert by_batch(image, [draws.COLOUR], [1.5])[0, 0, 0].tolist() == [241, 91, 0]
    assert operated(image[0], draws.COLOUR, 0.5)[0, 0].tolist() == [159, 109, 59]


def test_equalizing_spreads_values_by_how_many_are_below() -> None:
    # 1,024 pixels, 512 of 10, 256 of 20 and 256 of 30: a step is (1024 - 256) // 255 = 3 pixels, of which half is
    # rounded to 1: 10 -> 1 // 3, 20 -> (1 + 512) // 3, 30 -> (1 + 768) // 3 cut off at 255.
    image = grey([[10] * SIDE] * 16 + [[20] * SIDE] * 8 + [[30] * SIDE] * 8)
    for found in (by_batch(image, [draws.EQUALIZE], [0.0])[0], operated(image[0], draws.EQUALIZE, 0.0)):
        assert [found[row, 0, 0] for row in (0, 16, 24)] == [0, 171, 255]


def drawn_strengths(operation: int, magnitude: float) -> list[float]:
    """Of both signs."""
    return [float(strengths(np.array(operation), np.array(magnitude), np.array(sign))) for sign in (False, True)]


@pytest.mark.parametrize("operation", KINDS)
@pytest.mark.parametrize("magnitude", [1.0, 4.3, 9.0, 10.0])
def test_a_batch_has_the_pixels_that_images_have_one_by_one(operation: int, magnitude: float) -> None:
    images = pictures()
    for strength in drawn_strengths(operation, magnitude):
        found = by_batch(images, [operation], [strength])
        expected = np.stack([operated(image, operation, strength) for image in images])
        # Two ways to round: floats that lie on a whole number, and 32nds of a pixel, which OpenCV 4 rounds once more.
        most, share = (1, 0.03) if int(cv2.__version__.partition(".")[0]) > 4 else (4, 0.2)
        assert np.abs(found.astype(int) - expected).max() <= most
        assert np.mean(found != expected) < share


@pytest.mark.parametrize("operation", draws.MOVES)
def test_pixels_are_moved_to_the_places_that_pillow_moves_them_to(operation: int) -> None:
    images, bilinear, grey = pictures(4), Image.Resampling.BILINEAR, (draws.GREY,) * 3
    for strength in drawn_strengths(operation, 10.0):
        (matrix,) = operation_matrix(np.array([operation]), np.array([strength]), SIDE, SIDE)
        # Pillow counts from the edge of the first pixel.
        matrix[:, 2] += 0.5 - matrix[:, :2] @ [0.5, 0.5]
        if operation == draws.ROTATE:
            twins = [Image.fromarray(each).rotate(strength, bilinear, fillcolor=grey) for each in images]
        else:
            pixels = np.rint(strength * SIDE)
            plain = {
                draws.SHEAR_X: (1, strength, 0, 0, 1, 0),
                draws.SHEAR_Y: (1, 0, 0, strength, 1, 0),
                draws.TRANSLATE_X: (1, 0, pixels, 0, 1, 0),
                draws.TRANSLATE_Y: (1, 0, 0, 0, 1, pixels),
            }[operation]
            assert matrix.reshape(-1) == pytest.approx(plain)
            size, affine = (SIDE, SIDE), Image.Transform.AFFINE
            twins = [Image.fromarray(each).transform(size, affine, plain, bilinear, fillcolor=grey) for each in images]
        expected = np.stack([np.asarray(each) for each in twins]).astype(int)
        gap = np.abs(by_batch(images, [operation], [strength]).astype(int) - expected)
        # Along its edge we mix the image with grey, and Pillow does not.
        assert (gap <= 1).all(axis=3).mean() > 0.9
        assert (gap[:, 12:20, 12:20] <= 1).all()
        assert (expected == draws.GREY).all(axis=3).mean() > 0.05


@pytest.mark.parametrize(
    ("operation", "weak", "strong"),
    [
        (draws.POSTERIZE, 8, 4),
        (draws.SOLARIZE, 256, 0),
        (draws.SOLARIZE_ADD, 0, 110),
        (draws.COLOUR, 1, 1.9),
        (draws.CONTRAST, 1, 1.9),
        (draws.BRIGHTNESS, 1, 1.9),
        (draws.SHARPNESS, 1, 1.9),
        (draws.ROTATE, 0, 30),
        (draws.SHEAR_X, 0, 0.3),
        (draws.SHEAR_Y, 0, 0.3),
        (draws.TRANSLATE_X, 0, 0.45),
        (draws.TRANSLATE_Y, 0, 0.45),
    ],
)
def test_ranges_are_those_of_the_literature(operation: int, weak: float, strong: float) -> None:
    negative = 2 * weak - strong if operation in SIGNED else strong
    assert drawn_strengths(operation, 0.0) == [weak, weak]
    assert drawn_strengths(operation, 10.0) == pytest.approx([strong, negative])
    assert drawn_strengths(operation, 5.0) == pytest.approx([(weak + strong) / 2, (weak + negative) / 2])


def test_only_whole_numbers_of_bits_are_kept() -> None:
    bits = [drawn_strengths(draws.POSTERIZE, magnitude)[0] for magnitude in range(11)]
    assert bits == [8, 8, 7, 7, 6, 6, 6, 5, 5, 4, 4]


def many(noise: NoiseConfig, number: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    return draw_operations(noise, number, np.random.default_rng(3))


def test_the_magnitude_is_fixed_and_no_draw_is_weaker() -> None:
    operation, strength = many(quiet(operations=2, magnitude=7))
    for kind in KINDS:
        expected = set(drawn_strengths(kind, 7.0))
        assert set(strength[operation == kind].tolist()) == expected
        assert len(expected) == (2 if kind in SIGNED else 1)


def test_signs_are_random() -> None:
    operation, strength = many(quiet(operations=2, magnitude=10))
    for kind in SIGNED:
        up, _ = drawn_strengths(kind, 10.0)
        assert np.mean(strength[operation == kind] == up) == pytest.approx(0.5, abs=0.09)


def test_a_spread_lets_the_magnitude_vary_around_its_value_within_its_range() -> None:
    operation, strength = many(quiet(operations=2, magnitude=9, magnitude_spread=2), 20_000)
    magnitude = np.abs(strength[operation == draws.ROTATE]) / 3
    assert magnitude.max() == 10
    assert np.mean(magnitude == 10) == pytest.approx(0.309, abs=0.03)  # P(normal > 1/2)
    assert np.median(magnitude) == pytest.approx(9, abs=0.15)
    assert np.mean(magnitude < 7) == pytest.approx(0.159, abs=0.03)  # P(normal < -1)
    operation, strength = many(quiet(operations=2, magnitude=1, magnitude_spread=2), 20_000)
    assert strength[operation == draws.SOLARIZE_ADD].min() == 0


def test_every_operation_is_as_likely_as_any_other_in_every_place_whatever_comes_before() -> None:
    first, second = many(quiet(operations=2), 30_000)[0].T
    pairs = np.bincount(first * draws.NUM_OPERATIONS + second, minlength=draws.NUM_OPERATIONS**2)
    # In both orders, and twice the same.
    assert chisquare(pairs).pvalue > 0.001


def test_operations_are_applied_in_the_order_in_which_they_are_drawn() -> None:
    image = grey([[0, 100], [160, 255]])
    # Inverting after brightening is not brightening after inverting.
    bright = (draws.BRIGHTNESS, 0.5)
    assert by_batch(image, [bright[0], draws.INVERT], [bright[1], 0])[0, ..., 0].tolist() == [[255, 205], [175, 128]]
    assert by_batch(image, [draws.INVERT, bright[0]], [0, bright[1]])[0, ..., 0].tolist() == [[127, 77], [47, 0]]


def test_images_of_a_batch_have_operations_of_their_own() -> None:
    images = pictures(draws.NUM_OPERATIONS)
    order = np.random.default_rng(1).permutation(draws.NUM_OPERATIONS)
    strength = np.array([drawn_strengths(kind, 8.0)[0] for kind in order])
    drawn = NoiseDraws(None, None, order[:, None], strength[:, None])
    found = apply_noise(torch.from_numpy(images), drawn).numpy()
    for place, kind in enumerate(order):
        assert np.array_equal(found[place], by_batch(images[place][None], [kind], [strength[place]])[0])


def test_what_is_drawn_for_a_batch_is_drawn_for_one_image_too() -> None:
    noise = quiet(operations=3, magnitude=8, magnitude_spread=1)
    alone = [draw_operations(noise, 1, np.random.default_rng(seed))[0][0] for seed in range(3000)]
    counts = np.bincount(np.concatenate(alone), minlength=draws.NUM_OPERATIONS)
    assert chisquare(counts).pvalue > 0.001
    assert draw_noise(noise, 5, SIDE, ("k",)).operation.shape == (5, 3)


@pytest.mark.gpu
@pytest.mark.parametrize("operation", KINDS)
def test_a_gpu_gives_the_same_pixels_without_being_waited_for(
    operation: int, not_waiting: Callable[[], AbstractContextManager[None]]
) -> None:
    images = pictures()
    shape = (len(images), 1)
    drawn = NoiseDraws(None, None, np.full(shape, operation), np.full(shape, drawn_strengths(operation, 9.0)[0]))
    there = torch.from_numpy(images).cuda()
    apply_noise(there, drawn)
    with not_waiting():
        found = [apply_noise(there, drawn) for _ in range(2)]
    assert torch.equal(*found)
    gap = (found[0].cpu().int() - apply_noise(torch.from_numpy(images), drawn).int()).abs()
    assert gap.max() <= 1
    exact = operation not in SIGNED
    assert (gap > 0).float().mean() <= (0.0 if exact else 0.01)
