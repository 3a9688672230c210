from pathlib import Path
from typing import Any

import pytest
import torch
from nstudent.config.schema import ModelConfig
from nstudent.errors import ConfigError
from nstudent.models.network import Backbone, Network, build_network
from safetensors.torch import save_file
from timm import create_model
from torch import nn
from trees import outputs_of

OUTPUTS = outputs_of(2, 3, 5)
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def bytes_of(network: nn.Module) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())


def build(
    *backbones: str, key: tuple[str, ...] = ("key",), noise: dict[str, float] | None = None, **options: Any
) -> Network:
    return build_network(ModelConfig(backbones=backbones, **options), OUTPUTS, key, **(noise or {}))


@pytest.mark.parametrize(
    ("name", "options", "width"),
    [
        ("test_resnet", {}, 96),
        ("test_efficientnet", {}, 256),
        ("test_vit", {"img_size": 32}, 64),
        ("test_convnext2", {}, 128),
        ("test_nfnet", {}, 192),
        # Its pooled features pass a convolution of 1,024 channels; num_features says 288.
        ("mobilenetv3_small_050", {}, 1024),
    ],
)
def test_networks_of_any_family_give_logits_at_32_px(name: str, options: dict[str, int], width: int) -> None:
    member = build(name, backbone_options=options, noise={"drop_path": 0.1}).eval()
    assert member.backbones[0](IMAGES).shape == (2, width)
    assert [tuple(level.shape) for level in member(IMAGES)] == [(2, 2), (2, 3), (2, 5)]


def test_fusion_concatenates_two_backbones_and_the_wide_convolution() -> None:
    member = build("test_resnet", "test_efficientnet", wide_channels=24, head="independent").eval()
    assert [backbone(IMAGES).shape[1] for backbone in member.backbones] == [96, 256, 24]
    assert member.head.classify[0].in_features == 96 + 256 + 24
    for removed in range(3):
        # Every part has a say in the logits.
        with torch.no_grad():
            whole = member(IMAGES)[0]
            kept = member.backbones[removed]
            member.backbones[removed] = Silent(kept)
            assert not torch.equal(member(IMAGES)[0], whole)
            member.backbones[removed] = kept


class Silent(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(self.inner(images))


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [("test_resnet", (0.5,) * 3, (0.5,) * 3), ("mobilenetv3_small_050", IMAGENET_MEAN, IMAGENET_STD)],
)
def test_each_backbone_is_normalised_as_its_own_pretrained_cfg_says(
    name: str, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    backbone = build(name).backbones[0]
    assert backbone.mean.flatten().tolist() == pytest.approx(mean)
    assert backbone.std.flatten().tolist() == pytest.approx(std)


def test_normalisation_subtracts_the_mean_and_divides_by_the_deviation() -> None:
    backbone = Backbone(nn.Flatten(), IMAGENET_MEAN, IMAGENET_STD, 224)
    mean = torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1)
    torch.testing.assert_close(backbone(mean + 2 * std), torch.full((1, 3), 2.0))


def test_normalisation_is_not_among_the_weights() -> None:
    assert not [name for name in build("test_resnet").state_dict() if name.endswith((".mean", ".std"))]


def test_weights_depend_on_the_key_alone() -> None:
    torch.manual_seed(1)
    first = bytes_of(build("test_resnet", wide_channels=4))
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    assert bytes_of(build("test_resnet", wide_channels=4)) == first
    assert torch.equal(torch.random.get_rng_state(), state), "building a network leaves torch's generator alone"
    assert bytes_of(build("test_resnet", wide_channels=4, key=("other",))) != first


def test_dropout_and_stochastic_depth_do_not_change_the_start() -> None:
    assert bytes_of(build("test_resnet", noise={"dropout": 0.5, "drop_path": 0.5})) == bytes_of(build("test_resnet"))


def test_a_network_without_stochastic_depth_says_which_key_to_set() -> None:
    with pytest.raises(ConfigError, match=r"timm cannot build 'inception_v3'.*set noise\.drop_path=0"):
        build("inception_v3", noise={"drop_path": 0.1})


@pytest.mark.parametrize("noise", [{"dropout": 0.5}, {"drop_path": 0.5}], ids=["dropout", "drop_path"])
def test_noise_acts_in_training_and_not_in_evaluation(noise: dict[str, float]) -> None:
    # Ten images, so that all of them dropping the same branches is out of the question.
    images = IMAGES.repeat(5, 1, 1, 1)
    # Batch norm's running values would change with every pass in training mode, and with them the outcome.
    member = build("test_convnext2", head="independent", noise=noise)
    with torch.no_grad():
        _make_branches_count(member)
        member.train()
        assert not torch.equal(member(images)[2], member(images)[2])
        member.eval()
        assert torch.equal(member(images)[2], member(images)[2])


def _make_branches_count(member: Network) -> None:
    """ConvNeXt scales its residual branches by 1e-6 at the start: dropping them would be lost in rounding."""
    for name, weight in member.named_parameters():
        if name.endswith("gamma"):
            weight.fill_(1.0)


def test_an_unknown_backbone_is_named_with_near_ones() -> None:
    with pytest.raises(ConfigError, match=r"no network 'test_resnett'.*near: .*test_resnet"):
        build("test_resnett")


@pytest.mark.parametrize(
    "options",
    [
        {"bogus": 3},
        {"num_classes": 3},
        {"global_pool": "bogus"},
        {"act_layer": "bogus"},
        {"features_only": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_that_timm_refuses_is_a_config_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"test_resnet.*{next(iter(options))}"):
        build("test_resnet", backbone_options=options)


@pytest.mark.parametrize("options", [{"in_chans": 1}, {"global_pool": ""}], ids=["in_chans", "global_pool"])
def test_an_option_that_leaves_a_network_unusable_is_a_config_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="test_resnet"):
        build("test_resnet", backbone_options=options)


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    """A network as timm users keep it: with its classifier."""
    torch.manual_seed(7)
    return create_model("test_resnet", num_classes=10).state_dict()


def pretrained_from(path: Path, **options: Any) -> Network:
    return build("test_resnet", pretrained=str(path), **options)


def test_pretrained_weights_come_from_a_file_or_a_folder(trained: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(trained, tmp_path / "test_resnet.safetensors")
    for path in (tmp_path, tmp_path / "test_resnet.safetensors"):
        weights = pretrained_from(path).backbones[0].network.state_dict()
        assert set(trained) - set(weights) == {"fc.weight", "fc.bias"}
        assert all(torch.equal(weights[name], trained[name]) for name in weights)


def test_each_backbone_of_a_folder_gets_its_own_file(trained: dict[str, torch.Tensor], tmp_path: Path) -> None:
    other = create_model("test_efficientnet").state_dict()
    save_file(trained, tmp_path / "test_resnet.safetensors")
    save_file(other, tmp_path / "test_efficientnet.safetensors")
    member = build("test_resnet", "test_efficientnet", pretrained=str(tmp_path))
    for backbone, source in zip(member.backbones, (trained, other), strict=True):
        assert all(torch.equal(value, source[name]) for name, value in backbone.network.state_dict().items())


def test_pretrained_weights_are_left_alone_where_trained_ones_follow(tmp_path: Path) -> None:
    config = ModelConfig(pretrained=str(tmp_path / "gone.safetensors"))
    assert build_network(config, OUTPUTS, ("key",), load_pretrained=False).head is not None


def test_missing_tensors_are_counted_and_one_is_named(trained: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file({name: value for name, value in trained.items() if not name.startswith("conv1")}, path)
    with pytest.raises(ConfigError, match=r"half\.safetensors lacks \d+ tensors of 'test_resnet'.*conv1"):
        pretrained_from(path)


def test_tensors_of_a_wrapper_are_not_taken_for_those_of_the_network(
    trained: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """As several programs save them, with ``module.`` before each name: nothing is loaded in part."""
    path = tmp_path / "wrapped.safetensors"
    save_file({f"module.{name}": value for name, value in trained.items()}, path)
    with pytest.raises(ConfigError, match=r"wrapped\.safetensors lacks \d+ tensors of 'test_resnet'"):
        pretrained_from(path)


def test_weights_of_half_precision_are_taken(trained: dict[str, torch.Tensor], tmp_path: Path) -> None:
    half = {name: value.half() if value.is_floating_point() else value for name, value in trained.items()}
    save_file(half, tmp_path / "test_resnet.safetensors")
    weights = pretrained_from(tmp_path).backbones[0].network.state_dict()
    assert all(torch.equal(weights[name], half[name].to(weights[name].dtype)) for name in weights)
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


def test_tensors_of_another_shape_are_a_config_error(trained: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "wide.safetensors"
    save_file(trained | {"conv1.0.weight": torch.zeros(99, 3, 3, 3)}, path)
    with pytest.raises(ConfigError, match=r"wide\.safetensors.*test_resnet"):
        pretrained_from(path)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64], ids=["empty", "text", "bytes"])
def test_a_garbage_file_is_a_config_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "garbage.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"garbage\.safetensors is not a readable safetensors file"):
        pretrained_from(path)


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"test_resnet\.safetensors is not a readable safetensors file"):
        pretrained_from(tmp_path)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_images_are_normalised_as_the_weights_expect_it(layout: torch.memory_format) -> None:
    images = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).reshape(1, 3, 1, 1), torch.tensor([0.1, 0.2, 0.3]).reshape(1, 3, 1, 1)
    before = images.clone()
    seen = []
    Backbone(seen.append, mean.flatten().tolist(), std.flatten().tolist(), 224)(images)
    assert torch.equal(seen[0], (images - mean) / std)
    assert torch.equal(images, before), "other members see them, too"
