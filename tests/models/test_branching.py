"""The head ``branching``: coarse levels read shallower maps of the backbones, finer ones deeper maps."""

from typing import Any

import pytest
import timm
import torch
from nstudent.config.schema import ModelConfig
from nstudent.errors import ConfigError
from nstudent.models.cost import gmacs
from nstudent.models.heads import HeadSettings, build_head
from nstudent.models.maps import columns_of, pooled_maps, shallow_maps
from nstudent.models.network import Backbone, Network, build_network
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from trees import outputs_of

OUTPUTS = outputs_of(2, 3, 5)
COARSE, MID, FINE = range(3)
SMALL: dict[str, dict[str, Any]] = {
    "test_resnet": {},
    "test_efficientnet": {},
    "test_vit": {"img_size": 32, "patch_size": 8},
    "test_convnext": {},
    "wrn_28_2": {},
}


def network_of(*backbones: str, **keys: Any) -> Network:
    keys = {"backbone_options": SMALL[backbones[0]] if backbones else {}, **keys}
    names = backbones or ("test_resnet",)
    return build_network(ModelConfig(head="branching", backbones=names, head_width=8, **keys), OUTPUTS, ("key",))


def images(number: int = 2, side: int = 32) -> Tensor:
    return torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(0))


def maps_trained_by(network: Network, level: int) -> set[int]:
    """Numbers of the parts of the ResNet, from 1 on, whose weights the loss of a level has a gradient for."""
    network.zero_grad(set_to_none=True)
    network(images())[level].square().sum().backward()
    named = network.backbones[0].named_parameters()
    return {int(name.split("layer")[1][0]) for name, w in named if "layer" in name and w.grad.any()}


def test_a_coarse_level_trains_the_maps_that_it_reads_and_those_before_them_alone() -> None:
    """Of stem and four layers the coarse level reads the first layer, mid the second, and fine the whole network."""
    network = network_of()
    assert maps_trained_by(network, COARSE) == {1}
    assert maps_trained_by(network, MID) == {1, 2}
    assert maps_trained_by(network, FINE) == {1, 2, 3, 4}


@pytest.mark.parametrize("level", [COARSE, MID, FINE])
def test_a_level_trains_its_own_branch_alone(level: int) -> None:
    network = network_of()
    network(images())[level].square().sum().backward()
    for part in (network.head.project, network.head.classify):
        assert [any(w.grad is not None for w in each.parameters()) for each in part] == [i == level for i in range(3)]


@pytest.mark.parametrize(
    ("stages", "levels", "read"),
    # Blocks of VGG-16 in B-CNN: after the second and the third of five (arXiv 1709.09890, the CIFAR-100 models).
    [(5, 3, (1, 2)), (5, 2, (2,)), (4, 2, (1,)), (12, 3, (3, 7)), (3, 3, (0, 1)), (2, 4, (0, 0, 1)), (1, 3, (0, 0))],
)
def test_golden_the_stages_of_a_network_are_divided_evenly(stages: int, levels: int, read: tuple[int, ...]) -> None:
    network = nn.Module()
    network.feature_info = [{"num_chs": 10 * (stage + 1)} for stage in range(stages)]
    network.forward_intermediates = network.forward_head = lambda: None
    maps = shallow_maps(network, "made up", levels - 1)
    assert tuple(maps.stages[place] for place in maps.of_level) == read
    assert maps.widths == tuple(10 * (stage + 1) for stage in maps.stages)


def test_golden_columns_of_two_backbones_and_a_wide_convolution() -> None:
    """The first has maps of 2 and 1 channels and 3 features, the second one map of 1 for both levels and 2 features;
    the last two columns are of no backbone, and all levels read them."""
    network = nn.Module()
    network.forward_intermediates = network.forward_head = lambda: None
    network.feature_info = [{"num_chs": 2}, {"num_chs": 1}, {"num_chs": 9}]
    first = shallow_maps(network, "first", 2)
    network.feature_info = [{"num_chs": 1}]
    second = shallow_maps(network, "second", 2)
    assert columns_of([first, second, None], [3, 2, 2], 2) == [[0, 1, 6, 9, 10], [2, 6, 9, 10], [3, 4, 5, 7, 8, 9, 10]]


@pytest.mark.parametrize("name", SMALL)
def test_the_finest_level_reads_the_features_that_the_network_has_without_branches(name: str) -> None:
    """Pretrained weights mean the same with every head."""
    network = network_of(name).eval()
    backbone = network.backbones[0]
    assert isinstance(backbone, Backbone)
    assert backbone.maps is not None
    seen = images() - 0.5
    with torch.no_grad():
        found, plain = pooled_maps(backbone.network, seen, backbone.maps), backbone.network(seen)
    assert found.shape[1] == sum(backbone.maps.widths) + plain.shape[1]
    torch.testing.assert_close(found[:, sum(backbone.maps.widths) :], plain, rtol=0, atol=0)


@pytest.mark.parametrize("name", SMALL)
def test_a_step_of_every_kind_of_backbone_has_finite_gradients_everywhere(name: str) -> None:
    """Layers that work in place may not overwrite a map that a branch reads."""
    network = network_of(name).train()
    torch.stack([level.square().mean() for level in network(images(4))]).sum().backward()
    for key, weight in network.named_parameters():
        assert weight.grad is not None, key
        assert weight.grad.isfinite().all(), key


def test_weights_have_the_names_that_they_have_with_another_head() -> None:
    plain = build_network(ModelConfig(head="independent"), OUTPUTS, ("key",))
    assert set(network_of().backbones.state_dict()) == set(plain.backbones.state_dict())
    assert not [name for name in network_of().state_dict() if "columns" in name]


def test_fused_backbones_and_a_wide_convolution_are_read_side_by_side() -> None:
    network = network_of("test_resnet", "test_efficientnet", wide_channels=3).eval()
    widths = [project[0].in_features for project in network.head.project]
    # Layers 1 and 2 of the ResNet have 32 and 48 channels, and it has 96 features; the other 24, 32 and 256.
    assert widths == [32 + 24 + 3, 48 + 32 + 3, 96 + 256 + 3]
    assert [tuple(level.shape) for level in network(images())] == [(2, 2), (2, 3), (2, 5)]


def test_checkpointing_changes_no_gradient() -> None:
    found = []
    for again in (False, True):
        network = build_network(ModelConfig(head="branching"), OUTPUTS, ("key",), checkpointing=again).train()
        torch.stack([level.square().mean() for level in network(images(4))]).sum().backward()
        found.append([weight.grad for weight in network.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_the_cost_is_that_of_the_backbone_and_of_the_branches() -> None:
    """Levels read 32, 48 and 96 features, project 8 of them, and have 2, 3 and 5 outputs."""
    head = 8 * (32 + 48 + 96) + 8 * (2 + 3 + 5)
    alone = timm.create_model("test_resnet", num_classes=0)
    assert gmacs([network_of()], 32) == pytest.approx(gmacs([alone], 32) + head / 1e9, abs=1e-12)


def test_a_single_level_has_no_maps() -> None:
    network = build_network(ModelConfig(head="branching"), outputs_of(4), ("key",)).eval()
    assert isinstance(network.backbones[0], Backbone)
    assert network.backbones[0].maps is None
    assert network(images())[0].shape == (2, 4)


class _NoMaps(nn.Module):
    """A network that timm makes and that gives its features alone."""

    def __init__(self, num_classes: int = 0, in_chans: int = 3, **_: Any) -> None:
        super().__init__()
        self.num_features = 4
        self.layer = nn.Conv2d(in_chans, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.layer(images).mean(dim=(2, 3))
        return found


default_cfgs = generate_default_cfgs({"no_maps": {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}})


@register_model
def no_maps(pretrained: bool = False, **options: Any) -> nn.Module:
    made: nn.Module = build_model_with_cfg(_NoMaps, "no_maps", pretrained, **options)
    return made


def test_a_backbone_without_maps_is_refused_in_one_line() -> None:
    assert build_network(ModelConfig(backbones=("no_maps",)), OUTPUTS, ("key",))
    with pytest.raises(ConfigError, match="'no_maps' gives no maps before its last one") as refused:
        build_network(ModelConfig(backbones=("no_maps",), head="branching"), OUTPUTS, ("key",))
    assert "\n" not in str(refused.value)


def test_a_level_reads_no_column_of_another() -> None:
    settings = HeadSettings(4, outputs_of(2, 2), 8, columns=[[0, 3], [1, 2]])
    head, features = build_head("branching", settings), torch.rand(3, 4).requires_grad_()
    for level, read in enumerate(([0, 3], [1, 2])):
        (gradient,) = torch.autograd.grad(head(features)[level].square().sum(), features)
        assert gradient.abs().sum(dim=0).nonzero().flatten().tolist() == read
