"""All noise of a training from its configuration: what is built, in which order, and as a function of the step."""

import pickle

import numpy as np
import pytest
import torch
from nstudent.config.schema import NoiseConfig
from nstudent.data.batches import Batch
from nstudent.noise.batch_noise import BatchNoise
from nstudent.noise.build import Course, LoadedNoise, Noise, Places, build_noise
from nstudent.noise.erasing import cutout, erasing
from nstudent.noise.image_noise import ImageNoise
from nstudent.noise.mixing import Mixing
from nstudent.noise.resizing import Resizing
from nstudent.noise.steps import Prepared

SIDE, STEPS = 16, 10
KEY = ("k", 1)
STRONG = NoiseConfig(flip=True, operations=2, erase=0.7, cutmix=0.5)
QUIET = NoiseConfig(shift=0.0, zoom=0.0, rotate=0.0)


def images(number: int = 12) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (number, SIDE, SIDE, 3), dtype=np.uint8))


def places(number: int = 6) -> Places:
    return Places(np.arange(number), number)


def built(course: Course, *, in_batches: bool = True) -> Noise:
    return build_noise(course, places(), KEY, in_batches=in_batches)


def stronger(full: NoiseConfig, done: float) -> NoiseConfig:
    """Nothing in the first half, and all of it in the second."""
    return full if done >= 0.5 else QUIET


@pytest.mark.parametrize(
    ("noise", "in_batches", "loaded", "on_pixels", "on_batches"),
    [
        (STRONG, True, False, 2, [Mixing]),
        (STRONG, False, True, 1, [Mixing]),
        (QUIET, True, False, 1, []),
        (QUIET, False, True, 0, []),
        (QUIET.model_copy(update={"cutout": 0.5}), False, True, 1, []),
        (STRONG.model_copy(update={"cutout": 0.5}), True, False, 3, [Mixing]),
        (NoiseConfig(mixup=0.1), False, True, 0, [Mixing]),
    ],
)
def test_only_the_noise_that_was_asked_for_is_built(
    noise: NoiseConfig, in_batches: bool, loaded: bool, on_pixels: int, on_batches: list[type]
) -> None:
    found = built(Course(noise, STEPS), in_batches=in_batches)
    assert (found.image is not None) is loaded
    assert len(found.pixels) == on_pixels
    assert [type(change) for change in found.batch] == on_batches


def test_images_are_resized_before_they_are_mixed() -> None:
    found = built(Course(STRONG, STEPS, side_at=lambda done: 8))
    assert [type(change) for change in found.batch] == [Resizing, Mixing]


@pytest.mark.parametrize("erase", [0.0, 0.7])
def test_batches_that_are_noised_together_have_the_noise_they_have_alone(erase: float) -> None:
    course = Course(STRONG.model_copy(update={"erase": erase}), STEPS)
    noise = build_noise(course, Places(np.arange(3, 9), 12), KEY, in_batches=True)
    together = images(18)
    alone = list(together.split(6))
    for change in noise.pixels:
        together = change(together, range(4, 7))
        alone = [change(part, [step]) for part, step in zip(alone, range(4, 7), strict=True)]
    assert torch.equal(together, torch.cat(alone))


def test_what_is_painted_over_is_painted_over_last() -> None:
    pixels = images(6)
    augment, erase = built(Course(STRONG, STEPS)).pixels
    expected = BatchNoise(STRONG)(pixels, (*KEY, "noise", 3))
    assert torch.equal(augment(pixels, [3]), expected)
    assert not torch.equal(erase(expected, [3]), expected)


def test_squares_and_rectangles_are_painted_by_keys_of_their_own() -> None:
    pixels = images(6)
    _, erase, square = built(Course(STRONG.model_copy(update={"cutout": 0.5}), STEPS)).pixels
    assert torch.equal(erase(pixels, [3]), erasing(STRONG.erase)(pixels, (*KEY, "erase", 3), np.arange(6), 6))
    assert torch.equal(square(pixels, [3]), cutout(0.5)(pixels, (*KEY, "cutout", 3), np.arange(6), 6))


def test_noise_by_the_batch_follows_how_far_the_training_is() -> None:
    noise = built(Course(STRONG, STEPS, stronger))
    quiet, strong = images(), images()
    for change in noise.pixels:
        quiet, strong = change(quiet, [0, 4]), change(strong, [5, 9])
    assert torch.equal(quiet, images())
    assert not torch.equal(strong, images())


def test_batches_of_before_and_after_a_change_of_noise_can_be_noised_together() -> None:
    noise = built(Course(STRONG, STEPS, stronger))
    together = images(24)
    alone = list(together.split(6))
    for change in noise.pixels:
        together = change(together, range(3, 7))
        alone = [change(part, [step]) for part, step in zip(alone, range(3, 7), strict=True)]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(together[:12], images(24)[:12])
    assert not torch.equal(together[12:], images(24)[12:])


def test_noise_on_one_image_follows_how_far_the_training_is() -> None:
    image, noise = images(1)[0].numpy(), LoadedNoise(Course(STRONG, STEPS, stronger))
    strong = ImageNoise(STRONG)(image, KEY)
    assert np.array_equal(noise(image, KEY, 5), strong)
    assert np.array_equal(noise(image, KEY, 4), image)
    assert np.array_equal(noise(image, KEY, 9), strong)
    sent = pickle.loads(pickle.dumps(noise))
    assert np.array_equal(sent(image, KEY, 9), strong)


def prepared(side: int = SIDE) -> Prepared:
    pixels = images(4)
    batch = Batch(pixels, (torch.eye(4),), 4, torch.arange(4), (4, 0))
    return Prepared(batch, pixels.permute(0, 3, 1, 2).float().div(255), batch.targets)


def test_mixing_follows_how_far_the_training_is() -> None:
    always = NoiseConfig(cutmix=1.0, cutmix_schedule="constant")
    (mixing,) = built(Course(always, STEPS, stronger)).batch
    before = prepared()
    assert all(mixing(before, step) is before for step in range(5))
    assert any(not torch.equal(mixing(before, step).images, before.images) for step in range(5, 10))


def test_images_have_the_size_of_their_step() -> None:
    resizing = Resizing(lambda done: 8 if done < 0.5 else SIDE, STEPS)
    before = prepared()
    small, whole = resizing(before, 4), resizing(before, 5)
    assert small.images.shape == (4, 3, 8, 8)
    assert whole.images is before.images
    # Half the side, smoothed: the mean stays.
    torch.testing.assert_close(small.images.mean(), before.images.mean(), atol=0.01, rtol=0)
    assert small.images.std() < before.images.std()
