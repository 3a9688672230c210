"""Networks averaged into one, and the statistics of batch normalisation estimated anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from nstudent.config.schema import ModelConfig
from nstudent.models.device import Placement
from nstudent.models.network import build_network
from nstudent.models.normalisation import estimate_statistics
from nstudent.models.soup import greedy_soup, plain_batches, soup_of
from timm.layers import EvoNorm2dB0
from torch import Tensor, nn
from trees import outputs_of

Batches = Callable[[], Iterable[Tensor]]
IMAGES = torch.rand(12, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def batches_of(images: Tensor, *sizes: int) -> Batches:
    return lambda: images.split(list(sizes))


def normed(seed: int) -> nn.Sequential:
    """Two convolutions, each with batch normalisation, and a dropout between them, in double precision."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.9), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2))
    )
    return network.double()


def test_ingredients_come_in_by_their_score_and_stay_if_the_soup_is_no_worse() -> None:
    tasted: list[tuple[int, ...]] = []
    scores = {(1, 3): 0.9, (1, 3, 2): 0.89, (1, 3, 4): 0.95, (1, 3, 4, 0): 0.949}

    def score_of(numbers: tuple[int, ...]) -> float:
        tasted.append(numbers)
        return scores[numbers]

    assert greedy_soup([0.5, 0.9, 0.8, 0.9, 0.7], score_of) == ((1, 3, 4), 0.95)
    assert tasted == list(scores)


def test_a_soup_is_never_worse_than_its_best_network_on_the_images_it_was_chosen_on() -> None:
    assert greedy_soup([0.2, 0.7, 0.4], lambda _: 0.6) == ((1,), 0.7)
    assert greedy_soup([0.3], lambda _: 1.0) == ((0,), 0.3)


def test_weights_are_the_means_of_those_of_the_networks(cpu: Placement) -> None:
    networks = [nn.Linear(1, 1).double() for _ in range(3)]
    for network, weight, bias in zip(networks, (1.0, 2.0, 6.0), (0.5, 0.0, -2.0), strict=True):
        nn.init.constant_(network.weight, weight)
        nn.init.constant_(network.bias, bias)
    soup = soup_of(networks, batches_of(IMAGES, 12), cpu)
    assert soup.weight.item() == 3.0
    assert soup.bias.item() == -0.5
    assert [network.weight.item() for network in networks] == [1.0, 2.0, 6.0], "they stay as they are"
    assert not soup.training


def test_statistics_are_those_of_all_images_together() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1)).double()
    images = torch.tensor([1.0, 2.0, 3.0, 6.0, 8.0], dtype=torch.float64).view(5, 1, 1, 1)
    estimate_statistics(network, batches_of(images, 2, 3))
    assert network[0].running_mean.item() == pytest.approx(4.0, rel=1e-15)
    # Sum of squared deviations 9 + 4 + 1 + 4 + 16, over one less than there are.
    assert network[0].running_var.item() == pytest.approx(34 / 4, rel=1e-15)


def test_later_layers_are_given_what_batches_that_normalise_by_themselves_give() -> None:
    network, parts = normed(0), IMAGES.split([5, 7])
    estimate_statistics(network, batches_of(IMAGES, 5, 7))
    given = []
    with torch.no_grad():
        for part in parts:
            found = network[0](part)
            mean, variance = found.mean((0, 2, 3), keepdim=True), found.var((0, 2, 3), correction=0, keepdim=True)
            scale, shift = network[1].weight.view(1, -1, 1, 1), network[1].bias.view(1, -1, 1, 1)
            normal = (found - mean) / (variance + network[1].eps).sqrt() * scale + shift
            given.append(network[4](normal.relu()).transpose(0, 1).flatten(1))
        first = network[0](IMAGES).transpose(0, 1).flatten(1)
    for layer, seen in ((network[1], first), (network[5], torch.cat(given, dim=1))):
        assert torch.allclose(layer.running_mean, seen.mean(1), rtol=1e-12, atol=1e-14)
        assert torch.allclose(layer.running_var, seen.var(1), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sizes", [(12,), (2,) * 6, (3, 9), (7, 5)])
def test_the_first_layer_does_not_depend_on_the_batches(sizes: tuple[int, ...]) -> None:
    whole, parted = normed(0), normed(0)
    estimate_statistics(whole, batches_of(IMAGES, 12))
    estimate_statistics(parted, batches_of(IMAGES, *sizes))
    assert torch.allclose(parted[1].running_mean, whole[1].running_mean, rtol=1e-13, atol=0)
    assert torch.allclose(parted[1].running_var, whole[1].running_var, rtol=1e-13, atol=0)


def test_nothing_else_changes_and_no_generator_is_asked() -> None:
    network, before = normed(0), normed(0).state_dict()
    state = torch.get_rng_state()
    estimate_statistics(network.train(), batches_of(IMAGES, 6, 6))
    assert torch.equal(torch.get_rng_state(), state)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{layer}.running_{what}" for layer in (1, 5) for what in ("mean", "var")}
    assert not any(layer.training for layer in network.modules())
    assert not any(layer._forward_pre_hooks for layer in network.modules())


def test_the_variance_of_an_evolved_normalisation_is_estimated_too() -> None:
    network = nn.Sequential(EvoNorm2dB0(3)).double()
    estimate_statistics(network, batches_of(IMAGES, 5, 7))
    assert torch.allclose(network[0].running_var, IMAGES.transpose(0, 1).flatten(1).var(1), rtol=1e-12, atol=0)


def test_a_soup_of_one_is_that_network_and_looks_at_no_image(cpu: Placement) -> None:
    def none() -> Iterable[Tensor]:
        raise AssertionError("nobody should look")

    network = normed(0)
    network[1].running_mean.fill_(7)
    soup = soup_of([network], none, cpu)
    assert soup is not network
    assert all(
        torch.equal(a, b) for a, b in zip(soup.state_dict().values(), network.state_dict().values(), strict=True)
    )
    # Nor where there is nothing to be estimated.
    soup_of([nn.Linear(1, 1), nn.Linear(1, 1)], none, cpu)


def test_a_soup_of_equals_has_their_weights_to_the_bit(cpu: Placement) -> None:
    network = build_network(ModelConfig(), outputs_of(2, 3), ("key",))
    soup = soup_of([network] * 3, lambda: [torch.rand(4, 3, 16, 16)], cpu)
    assert {
        name for name, weight in soup.named_parameters() if not torch.equal(weight, network.get_parameter(name))
    } == set()
    assert soup.state_dict().keys() == network.state_dict().keys()


@pytest.mark.parametrize(("number", "sizes"), [(10, [5, 5]), (11, [6, 5]), (7, [7]), (3, [3])])
def test_no_batch_is_too_small_to_normalise_by(number: int, sizes: list[int], cpu: Placement) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    ids = np.arange(20)[::-1][:number]
    shown = list(plain_batches(pixels, ids, 5, cpu)())  # type: ignore[arg-type]
    assert [len(part) for part in shown] == sizes
    assert torch.equal(torch.cat(shown), cpu.images(torch.from_numpy(pixels[ids])))
