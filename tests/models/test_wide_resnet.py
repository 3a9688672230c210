from typing import Any

import pytest
import timm
import torch
from nstudent.config.schema import ModelConfig
from nstudent.models.cost import gmacs
from nstudent.models.network import Network, build_network
from timm.layers import DropPath
from torch import nn
from torch.nn import functional as F
from trees import outputs_of

OUTPUTS = outputs_of(2, 6, 8)


def build(name: str = "wrn_28_2", **noise: Any) -> Network:
    return build_network(ModelConfig(backbones=(name,)), OUTPUTS, ("key",), **noise)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "weights"), [("wrn_28_2", 1_467_610), ("wrn_28_10", 36_479_194)])
def test_timm_builds_them_with_the_weights_of_the_literature(name: str, weights: int) -> None:
    network = timm.create_model(name, num_classes=10)
    assert sum(weight.numel() for weight in network.parameters()) == weights
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    # 28 in the paper's count: the shortcuts stand for the layers that its count takes twice.
    assert len([layer for layer in convolutions if layer.kernel_size == (3, 3)]) == 25
    assert len([layer for layer in convolutions if layer.kernel_size == (1, 1)]) == 3


def test_the_side_is_halved_twice_and_not_more() -> None:
    network = timm.create_model("wrn_28_2", num_classes=0).eval()
    sides = []
    for block in network.blocks:
        block.register_forward_hook(lambda _module, _inputs, out: sides.append(tuple(out.shape[1:])))
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 128)
    assert sides == [(32, 32, 32)] * 4 + [(64, 16, 16)] * 4 + [(128, 8, 8)] * 4


def test_it_costs_a_fifth_of_a_billion_multiply_adds() -> None:
    assert gmacs([build()], 32) == pytest.approx(0.2144, abs=1e-4)


def test_stochastic_depth_rises_from_none_to_the_rate_that_was_asked_for() -> None:
    rates = [layer.drop_prob for layer in build(drop_path=0.2).modules() if isinstance(layer, DropPath)]
    # The first block drops nothing.
    assert rates == pytest.approx([0.2 * number / 11 for number in range(1, 12)])


def test_a_residual_branch_that_is_dropped_leaves_the_shortcut_alone() -> None:
    network = timm.create_model("wrn_28_2", drop_path_rate=1.0).train()
    passed = {}
    network.blocks[-1].register_forward_hook(lambda _module, inputs, out: passed.update(before=inputs[0], after=out))
    network(torch.rand(2, 3, 32, 32))
    assert torch.equal(passed["after"], passed["before"])


def written_out(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The network in evaluation mode as the literature has it, from its weights alone."""
    w = network.state_dict()

    def active(images: torch.Tensor, norm: str) -> torch.Tensor:
        parts = [w[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.leaky_relu(F.batch_norm(images, *parts, eps=0.001), 0.1)

    found = F.conv2d(images, w["stem.weight"], padding=1)
    for number in range(12):
        block, stride = f"blocks.{number}", 2 if number in (4, 8) else 1
        first = active(found, f"{block}.norm1")
        inner = F.conv2d(first, w[f"{block}.conv1.weight"], stride=stride, padding=1)
        changed = F.conv2d(active(inner, f"{block}.norm2"), w[f"{block}.conv2.weight"], padding=1)
        kept = F.conv2d(first, w[f"{block}.shortcut.weight"], stride=stride) if number in (0, 4, 8) else found
        found = kept + changed
    return F.linear(active(found, "norm").mean(dim=(2, 3)), w["classifier.weight"], w["classifier.bias"])


def test_it_computes_what_the_literature_writes() -> None:
    torch.manual_seed(0)
    network = timm.create_model("wrn_28_2", num_classes=10)
    images = torch.rand(4, 3, 32, 32)
    # Its normalisation has seen some images.
    network.train()(images)
    torch.testing.assert_close(network.eval()(images), written_out(network, images))


def test_weights_begin_with_the_spread_that_keeps_the_size_of_gradients() -> None:
    torch.manual_seed(0)
    for layer in timm.create_model("wrn_28_2").modules():
        if isinstance(layer, nn.Conv2d):
            # He et al., arXiv 1502.01852: by what a channel goes out to, and the slope of the activation.
            expected = (2 / (1 + 0.1**2) / (layer.out_channels * layer.kernel_size[0] ** 2)) ** 0.5
            assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.15)


def test_activations_computed_twice_change_no_number() -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gradients = []
    for checkpointing in (False, True):
        member = build(checkpointing=checkpointing).train()
        sum(level.square().sum() for level in member(images)).backward()
        gradients.append([weight.grad for weight in member.parameters()] + list(member.buffers()))
    assert member.backbones[0].network._checkpointing
    for plain, again in zip(*gradients, strict=True):
        assert torch.equal(plain, again)


def test_there_are_no_pretrained_weights_and_nothing_is_fetched() -> None:
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        timm.create_model("wrn_28_2", pretrained=True)
