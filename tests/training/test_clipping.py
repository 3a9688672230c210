"""Gradients that are too long."""

import math

import pytest
import torch
from nstudent.config.schema import TrainingConfig
from nstudent.errors import ConfigError
from nstudent.training.clipping import CLIPS, AdaptiveClip, NormClip, build_clip
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


def matrix_with_gradient(dtype: torch.dtype = torch.float64) -> nn.Parameter:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0], [6.0, 8.0]], dtype=dtype))
    weight.grad = torch.tensor([[6.0, 8.0], [1.0, 0.0], [0.06, 0.07]], dtype=dtype)
    return weight


def test_each_row_is_shortened_to_a_share_of_its_own_length() -> None:
    """Rows that start at nothing count as a thousandth, and those that are short enough stay as they are."""
    weight = matrix_with_gradient()
    norm = AdaptiveClip({"layer.weight": weight}, 0.01)()
    assert norm == pytest.approx((100 + 1 + 0.06**2 + 0.07**2) ** 0.5, rel=1e-12)
    assert weight.grad is not None
    expected = torch.tensor([[0.03, 0.04], [1e-5, 0.0], [0.06, 0.07]], dtype=torch.float64)
    torch.testing.assert_close(weight.grad, expected, rtol=1e-12, atol=0)


def test_a_filter_of_a_convolution_and_a_whole_bias_are_one_row_each() -> None:
    kernel, bias = nn.Parameter(torch.ones(2, 1, 2, 2).double()), nn.Parameter(torch.tensor([3.0, 4.0]).double())
    kernel.grad, bias.grad = torch.ones(2, 1, 2, 2).double(), torch.tensor([0.3, 0.4], dtype=torch.float64)
    AdaptiveClip({"conv.weight": kernel, "conv.bias": bias}, 0.01)()
    torch.testing.assert_close(kernel.grad, torch.full((2, 1, 2, 2), 0.01, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(bias.grad, torch.tensor([0.03, 0.04], dtype=torch.float64), rtol=1e-12, atol=0)


def test_what_gives_the_logits_is_not_shortened_row_by_row_and_the_rest_of_the_head_is() -> None:
    weights = {name: matrix_with_gradient() for name in ("head.classify.0.weight", "head.project.0.0.weight")}
    AdaptiveClip(weights, 0.01)()
    lengths = [float(weight.grad.norm()) for weight in weights.values() if weight.grad is not None]
    assert lengths == pytest.approx([101.0085**0.5, (0.05**2 + 1e-10 + 0.0085) ** 0.5])


def test_the_share_is_that_of_the_configuration_or_a_hundredth() -> None:
    for factor, expected in ((None, 0.05), (0.1, 0.5)):
        network = nn.Linear(2, 1, bias=False)
        network.weight.data, network.weight.grad = torch.tensor([[3.0, 4.0]]), torch.tensor([[6.0, 8.0]])
        build_clip(network, TrainingConfig(clip="agc", agc_factor=factor))()
        assert network.weight.grad is not None
        assert float(network.weight.grad.norm()) == pytest.approx(expected)


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
    with pytest.raises(ConfigError, match="clip: there is no 'elastic': choose from norm, agc"):
        build_clip(nn.Linear(1, 1), wrong)
