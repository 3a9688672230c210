import math

import numpy as np
import pytest
import torch
from nstudent.config.schema import NoiseConfig
from nstudent.data.batches import Batch
from nstudent.noise.mixing import Mixing, box, mixing_height
from nstudent.noise.steps import Prepared
from nstudent.randomness import Key, generator

NUM_IMAGES, NUM_LABELLED, SIDE = 6, 2, 20
ALWAYS = NoiseConfig(cutmix=1.0, cutmix_schedule="constant")
BLENDED = NoiseConfig(mixup=1.0)

# Image i is i everywhere and its target is class i: a mixed image shows which images it is made of.
IMAGES = torch.arange(NUM_IMAGES, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE).contiguous()
TARGETS = (torch.eye(NUM_IMAGES),)


def mix(
    step: int = 0,
    targets: tuple[torch.Tensor, ...] = TARGETS,
    noise: NoiseConfig = ALWAYS,
    done: float = 0.0,
    key: Key = ("seed", 0),
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    rows = torch.arange(NUM_IMAGES)
    prepared = Prepared(
        Batch(IMAGES, targets, NUM_LABELLED, rows, (NUM_LABELLED, NUM_IMAGES - NUM_LABELLED)), IMAGES, targets
    )
    # A training of so many steps that this one stands where it should.
    steps = step / done if done and step else math.inf
    mixed = Mixing(lambda _: noise, steps, key)(prepared, step)
    return mixed.images, mixed.targets


def areas(images: torch.Tensor) -> torch.Tensor:
    """Share of each image's area that shows image j: (images, j)."""
    return torch.stack([(images[:, 0] == j).float().mean(dim=(1, 2)) for j in range(NUM_IMAGES)], dim=1)


@pytest.mark.parametrize("step", range(40))
def test_targets_are_mixed_by_the_area_that_was_really_pasted(step: int) -> None:
    images, (mass,) = mix(step)
    torch.testing.assert_close(mass, areas(images))


@pytest.mark.parametrize("step", range(40))
def test_labelled_and_pseudo_labelled_images_stay_apart(step: int) -> None:
    shown = areas(mix(step)[0]) > 0
    assert not shown[:NUM_LABELLED, NUM_LABELLED:].any()
    assert not shown[NUM_LABELLED:, :NUM_LABELLED].any()


def test_one_rectangle_is_pasted_at_the_same_place() -> None:
    images, _ = mix(step=1)
    foreign = images[:, 0] != IMAGES[:, 0]
    touched = foreign[foreign.any(dim=2).any(dim=1)]
    assert len(touched) > 1
    assert (touched == touched[0]).all()
    rows, columns = touched[0].any(dim=1), touched[0].any(dim=0)
    assert torch.equal(touched[0], rows[:, None] & columns[None, :])


def test_every_level_is_mixed_and_a_masked_one_adds_no_mass() -> None:
    coarse = torch.eye(NUM_IMAGES)
    fine = torch.eye(NUM_IMAGES)
    fine[3] = 0
    images, (mixed_coarse, mixed_fine) = mix(step=2, targets=(coarse, fine))
    shown = areas(images)
    assert shown[:, 3].max() > 0
    torch.testing.assert_close(mixed_coarse.sum(dim=1), torch.ones(NUM_IMAGES))
    # What is left is the share of the images whose fine class is known.
    torch.testing.assert_close(mixed_fine.sum(dim=1), 1 - shown[:, 3])


@pytest.mark.parametrize("noise", [ALWAYS, BLENDED], ids=["cutmix", "mixup"])
def test_the_batch_that_came_in_stays_as_it_was(noise: NoiseConfig) -> None:
    before = IMAGES.clone()
    mix(step=1, noise=noise)
    assert torch.equal(IMAGES, before)
    assert torch.equal(TARGETS[0], torch.eye(NUM_IMAGES))


def test_the_same_key_and_step_give_the_same_mixture() -> None:
    for step in range(5):
        (images, (mass,)), (again, (mass_again,)) = mix(step), mix(step)
        assert torch.equal(images, again)
        assert torch.equal(mass, mass_again)


def test_other_steps_and_other_keys_give_other_mixtures() -> None:
    mixtures = [mix(step)[0] for step in range(10)] + [mix(step, key=("seed", 1))[0] for step in range(10)]
    different = {images.numpy().tobytes() for images in mixtures}
    assert len(different) == len(mixtures)


@pytest.mark.parametrize("step", range(40))
def test_mixup_blends_images_and_targets_by_the_same_weight(step: int) -> None:
    images, (mass,) = mix(step, noise=BLENDED)
    # Image i is i everywhere, so a blend is one number, and the same blend of the indices of its targets.
    assert images.flatten(1).std(dim=1).max() < 1e-5
    torch.testing.assert_close(images.mean(dim=(1, 2, 3)), mass @ torch.arange(NUM_IMAGES, dtype=torch.float32))
    torch.testing.assert_close(mass.sum(dim=1), torch.ones(NUM_IMAGES))
    assert not mass[:NUM_LABELLED, NUM_LABELLED:].any()
    assert not mass[NUM_LABELLED:, :NUM_LABELLED].any()


@pytest.mark.parametrize(("alpha", "mean_of_the_smaller"), [(0.2, 0.098), (1.0, 0.25)])
def test_mixup_draws_its_weight_from_the_beta_distribution(alpha: float, mean_of_the_smaller: float) -> None:
    noise = NoiseConfig(mixup=1.0, mixup_alpha=alpha)
    smaller = []
    for step in range(1500):
        kept = mix(step, noise=noise)[1][0].diagonal()
        # One that was blended with itself says nothing.
        shares = kept[kept < 1 - 1e-6]
        if len(shares):
            assert shares.max() - shares.min() < 1e-5, "one weight a batch"
            smaller.append(min(float(shares[0]), 1 - float(shares[0])))
    # By numerical integration of min(x, 1 - x) over Beta(alpha, alpha); four standard errors.
    assert np.mean(smaller) == pytest.approx(mean_of_the_smaller, abs=0.016)


def kinds(noise: NoiseConfig, number: int = 400, done: float = 0.0) -> tuple[int, int, int]:
    """How many of so many batches were pasted, blended and left as they were."""
    mixed = [mix(step, noise=noise, done=done)[0] for step in range(number)]
    left = sum(images is IMAGES for images in mixed)
    # A pasted box shows in some image; a blend does not, nor do the few boxes without an area or with the image itself.
    pasted = sum(bool(images.flatten(1).std(dim=1).max() > 1e-3) for images in mixed)
    return pasted, number - left - pasted, left


@pytest.mark.parametrize(
    ("cutmix", "mixup"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.3), (0.3, 0.5), (1.0, 0.0), (0.0, 1.0), (0.7, 0.3)]
)
def test_batches_are_mixed_as_often_as_the_config_says(cutmix: float, mixup: float) -> None:
    pasted, blended, left = kinds(NoiseConfig(cutmix=cutmix, cutmix_schedule="constant", mixup=mixup))
    assert pasted == pytest.approx(400 * cutmix, abs=30)
    assert blended == pytest.approx(400 * mixup, abs=30)
    if cutmix + mixup in (0, 1):
        assert left == 400 * round(1 - cutmix - mixup)
    if not cutmix:
        assert pasted == 0


def test_each_way_has_its_own_schedule() -> None:
    noise = NoiseConfig(cutmix=0.5, cutmix_schedule="late", mixup=0.5, mixup_schedule="early")
    assert kinds(noise, 100, done=0.2)[0] == 0
    assert kinds(noise, 100, done=0.2)[1] >= 35
    assert kinds(noise, 100, done=0.8)[0] >= 35
    assert kinds(noise, 100, done=0.8)[1] <= 8


def test_cutmix_draws_the_same_with_mixup_beside_it() -> None:
    beside = NoiseConfig(cutmix=0.5, cutmix_schedule="constant", mixup=0.5)
    alone = NoiseConfig(cutmix=0.5, cutmix_schedule="constant")
    for step in range(50):
        images = mix(step, noise=alone)[0]
        if images is not IMAGES:
            assert torch.equal(images, mix(step, noise=beside)[0])


@pytest.mark.parametrize(("done", "expected"), [(0.0, False), (0.49, False), (0.5, True), (0.99, True)])
def test_the_schedule_decides_when(done: float, expected: bool) -> None:
    late = NoiseConfig(cutmix=1.0, cutmix_schedule="late")
    assert (mix(step=1, noise=late, done=done)[0] is not IMAGES) is expected


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_box_lies_inside_and_is_never_larger_than_asked_for(kept: float) -> None:
    sizes = []
    for number in range(200):
        top, bottom, left, right = box(30, 50, kept, generator("box", number))
        assert 0 <= top <= bottom <= 30
        assert 0 <= left <= right <= 50
        sizes.append((bottom - top) * (right - left) / (30 * 50))
    # Rounding to whole pixels moves each side by one at most.
    assert max(sizes) <= 1 - kept + 1 / 30 + 1 / 50
    if 0 < kept < 1:
        assert min(sizes) < 0.75 * max(sizes), "some boxes are clipped at the border"


def test_a_box_that_fits_has_the_area_asked_for() -> None:
    for number in range(200):
        top, bottom, left, right = box(100, 100, 0.84, generator("area", number))
        if top > 0 and left > 0 and bottom < 100 and right < 100:
            assert (bottom - top, right - left) == (40, 40)
            return
    raise AssertionError("no box lay inside")


def test_the_mixture_does_not_depend_on_the_generators_of_numpy_and_torch() -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    first = mix(step=4)[0]
    np.random.seed(2)
    torch.manual_seed(2)
    assert torch.equal(mix(step=4)[0], first)


@pytest.mark.parametrize(
    ("schedule", "heights"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("late", [0, 0, 1, 1, 1]),
        ("early", [1, 1, 0, 0, 0]),
        ("ramp", [0, 0.25, 0.5, 0.75, 1]),
    ],
)
def test_cutmix_has_its_height_when_the_schedule_says(schedule: str, heights: list[float]) -> None:
    assert [mixing_height(schedule, done) for done in (0, 0.25, 0.5, 0.75, 1)] == heights
