"""Networks for small images: what is taken out of which stem, and which networks have none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from nstudent.config.members import read_member
from nstudent.config.schema import Config, ModelConfig
from nstudent.errors import ConfigError
from nstudent.models.cost import gmacs
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.network import Network, build_network
from nstudent.models.recipe import Recipe
from nstudent.models.stem import keep_side
from nstudent.storage.artifact import Artifact
from safetensors.torch import save_file
from torch import nn
from trees import outputs_of

OUTPUTS = outputs_of(2, 3, 5)
SMALL = [
    *("test_resnet", "resnet18", "seresnet18", "resnet26d", "resnetblur18", "resnext26ts", "test_nfnet"),
    *("efficientnet_lite0", "tf_efficientnet_lite0", "efficientnet_b0", "test_efficientnet", "mobilenetv3_small_050"),
    *("mobilenetv3_large_100", "mobilenetv4_conv_small", "lcnet_050", "rexnet_100", "regnetx_002", "regnety_002"),
    *("repvgg_a0", "ghostnet_100", "hardcorenas_a"),
]
LARGE = ["resnext50_32x4d", "tf_efficientnetv2_s", "densenet121", "dpn48b", "mixnet_s", "mobilevit_xxs"]
WITHOUT = ["test_vit", "test_convnext2", "vgg11_bn", "inception_v3", "coatnet_nano_rw_224", "wrn_28_2", "test_mambaout"]


def final_side(network: nn.Module, side: int) -> int:
    """Side of the final map, for an image of so many pixels a side."""
    with torch.no_grad():
        return int(network.eval().forward_features(torch.zeros(1, 3, side, side)).shape[-1])


def build(*backbones: str, stem: str = "small", **options: object) -> Network:
    return build_network(read_member({"backbones": backbones, "stem": stem, **options}), OUTPUTS, ("key",))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL + LARGE)
def test_at_32_px_the_final_map_keeps_4_x_4(name: str) -> None:
    network = timm.create_model(name, num_classes=0)
    shapes = {key: tensor.shape for key, tensor in network.state_dict().items()}
    assert final_side(network, 32) == 1
    keep_side(network, name)
    assert final_side(network, 32) == 4
    assert {key: tensor.shape for key, tensor in network.state_dict().items()} == shapes


def test_the_stem_and_the_pool_of_a_residual_network_and_nothing_else_are_changed() -> None:
    network, untouched = (timm.create_model("resnet18", num_classes=0) for _ in range(2))
    keep_side(network, "resnet18")
    assert isinstance(network.maxpool, nn.Identity)
    before = {name: layer.stride for name, layer in untouched.named_modules() if isinstance(layer, nn.Conv2d)}
    after = {name: layer.stride for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    assert after == before | {"conv1": (1, 1)}


def test_the_shortcut_beside_a_convolution_keeps_the_side_too() -> None:
    network = timm.create_model("regnetx_002", num_classes=0)
    keep_side(network, "regnetx_002")
    strided = [n for n, layer in network.named_modules() if isinstance(layer, nn.Conv2d) and layer.stride != (1, 1)]
    assert strided == [f"s{stage}.b1.{layer}.conv" for stage in (2, 3, 4) for layer in ("conv2", "downsample")]


@pytest.mark.parametrize("name", [name for name in WITHOUT if name.startswith(("test_", "wrn"))])
def test_a_network_without_such_a_stem_is_refused_with_a_remedy(name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"'{name}' has no stem that could be made small.*set stem to timm"
    ) as refusal:
        build(name)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT)
def test_a_network_that_does_not_work_with_a_small_stem_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' has no stem"):
        build(name)


def test_each_of_two_backbones_needs_a_stem() -> None:
    assert [final_side(each.network, 32) for each in build("test_resnet", "test_efficientnet").backbones] == [4, 4]
    with pytest.raises(ConfigError, match="'test_vit' has no stem"):
        build("test_resnet", "test_vit")


def test_to_look_for_the_stem_leaves_weights_and_mode_alone() -> None:
    plain, small = build("test_resnet", stem="timm"), build("test_resnet")
    for one, other in zip(plain.state_dict().items(), small.state_dict().items(), strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])
    assert all(layer.training for layer in small.modules())
    assert not any(layer._forward_hooks for layer in small.modules())


def test_pretrained_weights_fit_as_they_did(tmp_path: Path) -> None:
    trained = timm.create_model("test_resnet", num_classes=10).state_dict()
    save_file(trained, tmp_path / "test_resnet.safetensors")
    weights = build("test_resnet", pretrained=str(tmp_path)).backbones[0].network.state_dict()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in weights.items())


def test_options_of_the_backbone_hold_beside_a_small_stem() -> None:
    narrow = build("test_resnet", backbone_options={"channels": (8, 16, 24, 32), "stem_width": 8})
    assert final_side(narrow.backbones[0].network, 32) == 4
    assert narrow.backbones[0].network.num_features == 32


def test_its_cost_is_counted_as_it_is() -> None:
    assert gmacs([build("test_resnet", stem="timm")], 32) == pytest.approx(0.0041, abs=1e-4)
    assert gmacs([build("test_resnet")], 32) == pytest.approx(0.0430, abs=1e-4)


def test_a_recipe_keeps_the_stem_and_older_ones_have_that_of_timm() -> None:
    members = [ModelConfig(stem="small"), ModelConfig()]
    kept = Recipe.of(Config(), OUTPUTS.taxonomy, members).to_json()
    assert [Recipe.from_json(kept).members[number].stem for number in range(2)] == ["small", "timm"]
    for member in kept["members"]:
        del member["stem"]
    assert [member.stem for member in Recipe.from_json(kept).members] == ["timm", "timm"]


def test_a_saved_network_with_a_small_stem_predicts_bit_identically(
    committed: Callable[[Ensemble], Artifact], noise_images: Callable[[int], np.ndarray], cpu: Placement
) -> None:
    recipe = Recipe.of(Config(), OUTPUTS.taxonomy, [ModelConfig(stem="small")])
    ensemble = Ensemble.of_networks(recipe, [build("test_resnet")], cpu)
    loaded = Ensemble.load(committed(ensemble), cpu)
    assert loaded.gmacs == ensemble.gmacs
    for before, after in zip(
        ensemble.probabilities(noise_images(4)), loaded.probabilities(noise_images(4)), strict=True
    ):
        assert before.tobytes() == after.tobytes()


def test_a_training_of_the_small_stem_is_another_one_and_that_of_timm_is_the_one_before_there_was_the_key() -> None:
    assert ModelConfig(stem="small").asked()["stem"] == "small"
    assert "stem" not in ModelConfig().asked()


class TwoLayers(nn.Module):
    """The first two layers of a network, each of which halves the side."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        halved: torch.Tensor = self.second(self.first(images))
        return halved


class Squeezed(nn.Module):
    """A block that has a stride, of which its convolution is the layer, and weighs channels by their means."""

    stride = (2, 2)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze = nn.Conv2d(4, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weighed: torch.Tensor = self.conv(images) * self.squeeze(images)
        return weighed


@pytest.mark.parametrize("first", [nn.Conv2d(3, 3, 2, 2), nn.Conv2d(3, 3, 1, 2), nn.MaxPool2d(2)])
def test_a_network_whose_first_layer_sees_no_pixel_twice_has_no_stem(first: nn.Module) -> None:
    with pytest.raises(ConfigError, match="'patches' has no stem"):
        keep_side(TwoLayers(first, nn.Conv2d(3, 4, 3, 2, 1)), "patches")


def test_neither_a_block_nor_the_mean_over_a_map_is_a_layer_that_halves_the_side() -> None:
    network = TwoLayers(nn.Conv2d(3, 4, 3, 2, 1), Squeezed())
    keep_side(network, "squeezed")
    assert final_side(network, 32) == 32
    assert isinstance(network.second.squeeze, nn.AdaptiveAvgPool2d)
