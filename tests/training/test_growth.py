"""Sizes and noise of trainings that grow, by the numbers of EfficientNetV2, and the finish of FixRes."""

import pickle

import pytest
from nstudent.config.schema import NoiseConfig, TrainingConfig
from nstudent.training.growth import Growth, Phase

FULL = NoiseConfig(
    operations=2, magnitude=9.0, erase=0.3, cutout=0.2, dropout=0.2, cutmix=0.5, mixup=0.25, mixup_alpha=0.4
)


def test_the_sizes_are_those_of_efficientnet_v2_s() -> None:
    growth = Growth(stages=4, start_px=128, last_px=300, full_px=300, steps=8)
    assert [growth.side_at(step / 8) for step in range(8)] == [171, 171, 214, 214, 257, 257, 300, 300]
    assert growth.phases == (Phase(171, 0.25), Phase(214, 0.25), Phase(257, 0.25), Phase(300, 0.25))


def test_what_an_image_costs_on_average_is_that_of_the_sizes_as_long_as_each_lasts() -> None:
    training = TrainingConfig(train_image_size=24, progressive_stages=2, finish_epochs=2)
    growth = Growth.of(training, 32, epochs=6, steps_per_epoch=3)
    assert growth.mean(lambda side: side**2) == pytest.approx((18**2 + 24**2 + 32**2) / 3)
    assert Growth.of(TrainingConfig(), 32, epochs=6, steps_per_epoch=3).mean(lambda side: 0.1 * side) == 0.1 * 32


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 49, 1000])
@pytest.mark.parametrize("stages", [1, 2, 3, 4, 7])
def test_every_stage_is_as_long_as_the_others_up_to_a_step_and_the_last_one_has_the_last_size(
    stages: int, steps: int
) -> None:
    growth = Growth(stages, start_px=100, last_px=170, full_px=170, steps=steps)
    sides = [growth.side_at(step / steps) for step in range(steps)]
    assert sides == sorted(sides)
    counts = [sides.count(phase.side_px) for phase in growth.phases]
    assert sum(counts) == steps
    assert max(counts) - min(counts) <= 1
    assert growth.phases[-1].side_px == 170


def test_noise_grows_from_a_third_of_the_magnitude_and_no_mixtures_to_its_full_strength() -> None:
    growth = Growth(stages=4, start_px=16, last_px=32, full_px=32, steps=4)
    first, second, third, last = (growth.weakened(FULL, step / 4) for step in range(4))
    assert [each.magnitude for each in (first, second, third, last)] == pytest.approx([3, 5, 7, 9])
    assert (first.cutmix, first.mixup) == (0, 0)
    assert [each.cutmix_alpha for each in (second, third)] == pytest.approx([1 / 3, 2 / 3])
    assert [each.mixup_alpha for each in (second, third)] == pytest.approx([0.4 / 3, 0.8 / 3])
    assert (second.cutmix, second.mixup) == (0.5, 0.25)
    assert last == FULL
    unchanged = {"operations", "erase", "cutout", "dropout", "shift", "zoom", "rotate"}
    assert first.model_dump(include=unchanged) == FULL.model_dump(include=unchanged)


def test_noise_of_one_stage_is_always_the_full_one() -> None:
    growth = Growth(stages=1, start_px=8, last_px=16, full_px=32, steps=3)
    assert all(growth.weakened(FULL, step / 3) is FULL for step in range(3))
    assert {growth.side_at(step / 3) for step in range(3)} == {16}


def test_a_finish_sees_whole_images_without_noise_and_the_stages_lie_before_it() -> None:
    training = TrainingConfig(train_image_size=24, progressive_stages=2, finish_epochs=2)
    growth = Growth.of(training, 32, epochs=6, steps_per_epoch=3)
    sides = [growth.side_at(step / 18) for step in range(18)]
    assert sides == [18] * 6 + [24] * 6 + [32] * 6
    assert growth.weakened(FULL, 11 / 18) == FULL
    clean = growth.weakened(FULL.model_copy(update={"flip": True}), 12 / 18)
    assert clean == NoiseConfig(
        shift=0, zoom=0, rotate=0, flip=False, magnitude=9.0, cutout=0, dropout=0.2, mixup_alpha=0.4
    )
    assert growth.phases == (
        Phase(18, pytest.approx(1 / 3)),
        Phase(24, pytest.approx(1 / 3)),
        Phase(32, pytest.approx(1 / 3), late_layers_alone=True),
    )


def test_a_finish_leaves_an_epoch_to_train_before_it() -> None:
    training = TrainingConfig(train_image_size=16, finish_epochs=5)
    assert Growth.of(training, 32, epochs=3, steps_per_epoch=4).stage_steps == 4


@pytest.mark.parametrize(
    ("settings", "steady"),
    [
        ({}, True),
        ({"train_image_size": 32}, True),
        ({"train_image_size": 24}, False),
        ({"progressive_stages": 2}, False),
        ({"train_image_size": 24, "finish_epochs": 1}, False),
    ],
)
def test_a_training_without_any_of_it_is_left_alone(settings: dict[str, int], steady: bool) -> None:
    assert Growth.of(TrainingConfig.model_validate(settings), 32, 9, 2).is_steady is steady


def test_images_grow_from_half_the_last_size_where_nothing_is_said() -> None:
    growth = Growth.of(TrainingConfig(progressive_stages=4), 64, 4, 1)
    assert [phase.side_px for phase in growth.phases] == [40, 48, 56, 64]
    growth = Growth.of(TrainingConfig(progressive_stages=4, progressive_start=16), 64, 4, 1)
    assert [phase.side_px for phase in growth.phases] == [28, 40, 52, 64]


def test_processes_that_load_images_can_be_sent_it() -> None:
    growth = Growth(2, 16, 32, 32, 4)
    assert pickle.loads(pickle.dumps(growth.weakened))(FULL, 0.0) == growth.weakened(FULL, 0.0)
