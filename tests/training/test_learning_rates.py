"""Learning rates by step: the schedules as their definitions say, in double precision, and what a plateau remembers."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from nstudent.config.schema import TrainingConfig
from nstudent.errors import ConfigError
from nstudent.training.learning_rates import SCHEDULES, LearningRates, Span
from torch import nn

HEIGHT = 0.02


def optimizer_of(**group: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], **group}], lr=HEIGHT)


def rates(config: dict[str, Any], span: Span, scores: dict[int, float] | None = None) -> list[float]:
    """The rate of every step, after which the scores are heard, by step."""
    optimizer = optimizer_of()
    learning = LearningRates(optimizer, TrainingConfig.model_validate({"learning_rate": HEIGHT, **config}), span)
    found = []
    for step in range(span.steps + span.finish_steps):
        learning.set(step)
        found.append(optimizer.param_groups[0]["lr"])
        if scores and step in scores:
            learning.hear(scores[step])
    return found


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_rises_from_a_hundredth_of_its_height_in_equal_steps(schedule: str) -> None:
    found = rates({"schedule": schedule, "warmup_epochs": 2}, Span(20, 4))
    np.testing.assert_allclose(found[:8], [HEIGHT * (0.01 + 0.99 * step / 8) for step in range(8)], rtol=1e-12)


def test_a_cosine_falls_to_nothing_over_the_training() -> None:
    found = rates({"warmup_epochs": 0}, Span(10, 1))
    np.testing.assert_allclose(found, [HEIGHT * (1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)])


def test_steps_drop_at_their_epochs_and_thirds_of_a_training_to_a_tenth() -> None:
    found = rates({"schedule": "step", "step_epochs": 2, "step_factor": 0.5, "warmup_epochs": 0}, Span(20, 3))
    np.testing.assert_allclose(found, [HEIGHT * 0.5 ** (step // 6) for step in range(20)], rtol=1e-12)
    found = rates({"schedule": "step", "warmup_epochs": 0}, Span(9, 1))
    np.testing.assert_allclose(found, [HEIGHT] * 3 + [HEIGHT / 10] * 3 + [HEIGHT / 100] * 3, rtol=1e-12)


def test_a_constant_rate_stays() -> None:
    assert rates({"schedule": "constant", "warmup_epochs": 0}, Span(50, 5)) == [HEIGHT] * 50


def test_a_plateau_drops_after_its_patience_and_waits_anew() -> None:
    # A rise of less than a ten-thousandth is none.
    scores = dict(enumerate([0.5, 0.6, 0.6, 0.60001, 0.55, 0.7, 0.7, 0.7]))
    found = rates({"schedule": "plateau", "warmup_epochs": 0, "plateau_factor": 0.5}, Span(9, 1), scores)
    np.testing.assert_allclose(found, [HEIGHT] * 4 + [HEIGHT / 2] * 4 + [HEIGHT / 4], rtol=1e-12)


def test_a_score_is_a_new_best_from_a_ten_thousandth_of_the_best_one_on() -> None:
    """A share of the score, not of its range: .50006 is one after .5, and .50009 none after that."""
    settings = {"schedule": "plateau", "warmup_epochs": 0, "plateau_patience": 0}
    found = rates(settings, Span(4, 1), dict(enumerate([0.5, 0.50006, 0.50009])))
    np.testing.assert_allclose(found, [HEIGHT] * 3 + [HEIGHT / 10], rtol=1e-12)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("patience", [0, 1, 3])
def test_a_plateau_drops_where_torch_would(seed: int, patience: int) -> None:
    scores = dict(enumerate(np.random.default_rng(seed).integers(0, 6, 40) / 5))
    found = rates({"schedule": "plateau", "warmup_epochs": 0, "plateau_patience": patience}, Span(41, 1), scores)
    optimizer = optimizer_of()
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", patience=patience, min_lr=0, eps=0)
    expected = [HEIGHT]
    for score in scores.values():
        torchs.step(score)
        expected.append(optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("heard", range(7))
def test_a_plateau_goes_on_from_what_it_has_heard(heard: int) -> None:
    scores = [0.5, 0.4, 0.4, 0.6, 0.6, 0.1, 0.6]
    config = TrainingConfig(schedule="plateau", learning_rate=HEIGHT, warmup_epochs=0)
    whole, first, second = (LearningRates(optimizer_of(), config, Span(9, 1)) for _ in range(3))
    for score in scores[:heard]:
        first.hear(score)
    # A checkpoint holds JSON.
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for score in scores[heard:]:
        second.hear(score)
    for score in scores:
        whole.hear(score)
    whole.set(8)
    second.set(8)
    assert second.state_dict() == whole.state_dict()
    assert second.now == whole.now < HEIGHT


def test_a_finish_begins_at_a_tenth_of_the_height_and_falls_to_nothing_in_every_schedule() -> None:
    for schedule in SCHEDULES:
        found = rates({"schedule": schedule, "warmup_epochs": 0}, Span(6, 2, finish_steps=4))
        expected = [HEIGHT / 10 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
        np.testing.assert_allclose(found[6:], expected, rtol=1e-12)
    config = {"train_image_size": 16, "finish_epochs": 1, "finish_rate": 2.0}
    assert rates(config, Span(6, 2, finish_steps=2))[6] == 2 * HEIGHT


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("step", [0, 3, 8, 10])
def test_a_group_with_a_scale_learns_so_many_times_as_fast(schedule: str, step: int) -> None:
    config = TrainingConfig.model_validate({"schedule": schedule, "learning_rate": HEIGHT, "warmup_epochs": 2})
    plain, scaled = optimizer_of(), optimizer_of(lr_scale=0.25)
    both = [LearningRates(each, config, Span(9, 2, finish_steps=2)) for each in (plain, scaled)]
    for each in both:
        for score in (0.5, 0.4, 0.4):
            each.hear(score)
        each.set(step)
    assert scaled.param_groups[0]["lr"] == pytest.approx(plain.param_groups[0]["lr"] / 4, rel=1e-12)
    assert both[1].now == pytest.approx(both[0].now, rel=1e-12), "what is shown is the rate before the scale"


def test_a_schedule_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    wrong = TrainingConfig.model_construct(**TrainingConfig().model_dump() | {"schedule": "sawtooth"})
    with pytest.raises(ConfigError, match="schedule: there is no 'sawtooth': choose from cosine, step"):
        LearningRates(optimizer_of(), wrong, Span(9, 1))
