"""Gradients that are too long."""

import math

import pytest
import torch
from nstudent.config.schema import TrainingConfig
from nstudent.errors import ConfigError
from nstudent.training.clipping import CLIPS, NormClip, build_clip
from torch import nn


def weights_with_gradient(*gradients: list[float]) -> dict[str, nn.Parameter]:
    weights = {}
    for number, gradient in enumerate(gradients):
        weight = nn.Parameter(torch.zeros(len(gradient)))
        weight.grad = torch.tensor(gradient)
        weights[str(number)] = weight
    return weights


def test_a_gradient_is_shortened_as_a_whole_to_its_limit() -> None:
    weights = weights_with_gradient([3.0], [0.0, 4.0])
    assert NormClip(weights, 1.0)() == pytest.approx(5.0), "the norm that it had"
    torch.testing.assert_close(weights["0"].grad, torch.tensor([0.6]), rtol=1e-5, atol=0)
    torch.testing.assert_close(weights["1"].grad, torch.tensor([0.0, 0.8]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("limit", [5.0, 7.0, None])
def test_a_gradient_within_its_limit_stays_as_it_is(limit: float | None) -> None:
    weights = weights_with_gradient([3.0, 4.0])
    assert NormClip(weights, limit)() == pytest.approx(5.0)
    assert weights["0"].grad is not None
    assert weights["0"].grad.tolist() == [3.0, 4.0]


def test_weights_without_a_gradient_are_left_alone() -> None:
    weights = weights_with_gradient([3.0, 4.0]) | {"frozen": nn.Parameter(torch.zeros(2))}
    assert NormClip(weights, 1.0)() == pytest.approx(5.0)
    assert weights["frozen"].grad is None


@pytest.mark.parametrize("name", CLIPS)
def test_every_clip_tells_the_norm_of_all_weights_and_lets_through_that_it_is_not_finite(name: str) -> None:
    """It is what says that a step is not finite: none may hide it, also of a weight that it leaves alone."""
    for broken in ("layer.weight", "head.classify.0.weight"):
        weights = {key: nn.Parameter(torch.tensor([[3.0, 4.0]])) for key in ("layer.weight", "head.classify.0.weight")}
        for weight in weights.values():
            weight.grad = torch.tensor([[300.0, 400.0]])
        clip = CLIPS[name](weights, TrainingConfig())
        torch.testing.assert_close(clip(), torch.tensor(500 * 2**0.5))
        weights[broken].grad = torch.tensor([[math.nan, 1.0]])
        assert clip().isnan()


def test_the_configuration_names_its_clip() -> None:
    network = nn.Linear(2, 1, bias=False)
    network.weight.grad = torch.tensor([[3.0, 4.0]])
    clip = build_clip(network, TrainingConfig(clip_norm=2.5))
    assert clip() == pytest.approx(5.0)
    torch.testing.assert_close(network.weight.grad, torch.tensor([[1.5, 2.0]]), rtol=1e-5, atol=0)


def test_a_clip_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    wrong = TrainingConfig.model_construct(clip="elastic")
    with pytest.raises(ConfigError, match="clip: there is no 'elastic': choose from norm"):
        build_clip(nn.Linear(1, 1), wrong)
