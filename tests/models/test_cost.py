from functools import partial

import pytest
import torch
from nstudent.config.schema import ModelConfig
from nstudent.errors import ConfigError
from nstudent.models.cost import check_cost, gmacs
from nstudent.models.network import build_network
from torch import nn
from trees import outputs_of


def by_hand(size: int) -> float:
    """A 3x3 convolution from 3 to 4 channels, pooled, and a linear layer from 4 to 5."""
    return (size * size * 4 * 3 * 9 + 4 * 5) / 1e9


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def test_counts_multiply_adds_of_a_network_known_by_hand(network: nn.Module) -> None:
    assert gmacs([network], 8) == pytest.approx(6932e-9, abs=0)
    assert gmacs([network], 32) == pytest.approx(by_hand(32), abs=0)


def test_counts_known_networks() -> None:
    member = build_network(ModelConfig(), outputs_of(2, 3, 5), ("key",))
    # The embedded default at 32 px. A change here changes the published cost of every run.
    assert gmacs([member], 32) == pytest.approx(0.004, rel=0.05)


def test_an_ensemble_costs_the_sum_of_its_members(network: nn.Module) -> None:
    other = nn.Sequential(nn.Conv2d(3, 8, 1), nn.AdaptiveAvgPool2d(1))
    assert gmacs([network, other, network], 16) == pytest.approx(2 * by_hand(16) + 16 * 16 * 24 / 1e9)


def test_counting_leaves_the_network_as_it_was(network: nn.Module) -> None:
    network.train()
    before = [weight.clone() for weight in network.parameters()]
    gmacs([network], 64)
    assert network.training
    for weight, old in zip(network.parameters(), before, strict=True):
        assert weight.device.type == "cpu"
        assert torch.equal(weight, old)


def test_no_limit_and_a_limit_that_holds_give_the_cost(network: nn.Module) -> None:
    assert check_cost(partial(gmacs, [network]), 32, None) == gmacs([network], 32)
    assert check_cost(partial(gmacs, [network]), 32, by_hand(32)) == gmacs([network], 32)


@pytest.mark.parametrize(("fits", "image_size"), [(24, 32), (16, 32), (8, 32), (40, 64)])
def test_above_the_limit_the_largest_image_size_that_fits_is_named(
    network: nn.Module, fits: int, image_size: int
) -> None:
    with pytest.raises(ConfigError, match=f"teacher.max_gmacs.*data.image_size={fits} fits"):
        check_cost(partial(gmacs, [network]), image_size, by_hand(fits) * 1.01)


def test_where_nothing_fits_it_says_so(network: nn.Module) -> None:
    with pytest.raises(ConfigError, match="no image size fits"):
        check_cost(partial(gmacs, [network]), 32, by_hand(4))


@pytest.mark.parametrize("image_size", [15, 30, 33])
def test_the_named_size_is_one_that_the_config_takes(network: nn.Module, image_size: int) -> None:
    """The config's smallest image has 8 px; going down from 30 in steps of 8 leads past it, to 6."""
    with pytest.raises(ConfigError, match="no image size fits"):
        check_cost(partial(gmacs, [network]), image_size, by_hand(8) * 0.999)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("test_vit", {"img_size": 32}, id="its size is fixed"),
        pytest.param("test_convnext2", {}, id="halved too often for 8 px"),
    ],
)
def test_a_network_that_cannot_run_at_smaller_sizes_is_still_only_too_dear(name: str, options: dict[str, int]) -> None:
    member = build_network(ModelConfig(backbones=(name,), backbone_options=options), outputs_of(2), ("key",))
    with pytest.raises(ConfigError, match=r"teacher.max_gmacs.*no image size fits"):
        check_cost(partial(gmacs, [member]), 32, 1e-9)
