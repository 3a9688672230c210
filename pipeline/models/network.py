"""The networks that are trained: backbones side by side, their pooled features concatenated, one head."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from nstudent.config.members import HEADS_ON_MAPS
from nstudent.config.schema import ModelConfig
from nstudent.errors import ConfigError, NstudentError, summary
from nstudent.models.activation_checkpointing import checkpoint_activations
from nstudent.models.heads import LAST_LAYERS, HeadSettings, Logits, build_head, normalised
from nstudent.models.maps import Maps, columns_of, pooled_maps, shallow_maps
from nstudent.models.options import MAX_BACKBONES, check_network, check_options
from nstudent.models.resizing import resized
from nstudent.models.stem import keep_side
from nstudent.randomness import Key, seed
from nstudent.taxonomy.outputs import Outputs
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

with warnings.catch_warnings():
    # torch deprecates what timm decorates at import; nothing here uses it.
    warnings.simplefilter("ignore")
    # Makes its networks known to timm.
    import nstudent.models.wide_resnet  # noqa: F401
    import timm


class Backbone(nn.Module):
    """One timm network without its classifier, with its own normalisation in front."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], native_px: int, maps: Maps | None = None
    ) -> None:
        """Put a normalisation before a network.

        Args:
            network: The network.
            mean: Mean of each channel of the images that it was made for.
            std: Standard deviation of each.
            native_px: Side of the images that its pretrained weights were made with.
            maps: Shallower maps whose means stand before its features; ``None``: none do.
        """
        super().__init__()
        self.network = network
        self.native_px = native_px
        self.maps = maps
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, side, side) in 0..1 -> (batch, features), before them those of ``maps``."""
        seen = _normalised(images, self.mean, self.std)
        features: Tensor = self.network(seen) if self.maps is None else pooled_maps(self.network, seen, self.maps)
        return features


def _normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(images - mean) / std, row by row of pixels.

    With channels last in memory torch would go three numbers at a time: on a CPU 2 to 10 times slower.
    """
    width = images.shape[3]
    last = images.permute(0, 2, 3, 1)
    rows = (last.flatten(2) - mean.flatten().repeat(width)).div_(std.flatten().repeat(width))
    return rows.view(last.shape).permute(0, 3, 1, 2)


class WideConvolution(nn.Module):
    """One wide convolution on the image itself, pooled: shallow features such as colour and texture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, kernel_size=7, stride=4, padding=3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, side, side) in 0..1 -> (batch, channels)."""
        features: Tensor = self.layers(images - 0.5)
        return features


class Network(nn.Module):
    """Backbones, fusion by concatenation, dropout, head."""

    def __init__(
        self,
        backbones: Sequence[nn.Module],
        head: nn.Module,
        dropout: float,
        side: int | None = None,
        logit_norm: float | None = None,
    ) -> None:
        """Put a network together.

        Args:
            backbones: Each gives (batch, features).
            head: Gives the logits.
            dropout: Share of the features dropped in training.
            side: What larger images are brought to, in pixels; ``None``: they stay as they are.
            logit_norm: Temperature of the normalised logits (``heads.normalised``); ``None``: they stay as they are.
        """
        super().__init__()
        self._side = side
        self._logit_norm = logit_norm
        self.backbones = nn.ModuleList(backbones)
        self.dropout = nn.Dropout(dropout)
        self.head = head

    def forward(self, images: Tensor) -> Logits:
        """(batch, 3, side, side) in 0..1 -> logits per level, each (batch, outputs)."""
        seen = self.seen(images)
        features = torch.cat([backbone(seen) for backbone in self.backbones], dim=1)
        logits: Logits = self.head(self.dropout(features))
        return logits if self._logit_norm is None else normalised(logits, self._logit_norm)

    def seen(self, images: Tensor) -> Tensor:
        """The images at the size at which the backbones see them."""
        if self._side is not None and images.shape[-1] > self._side:
            return resized(images, self._side)
        return images

    def no_weight_decay(self) -> set[str]:
        """Patterns of the names of weights that backbones want to be kept from decaying: tokens and positions.

        timm's optimisers ask a network for them under this name.
        """
        return {
            f"backbones.{number}.network.{name}"
            for number, backbone in enumerate(self.backbones)
            if isinstance(backbone, Backbone)
            for name in getattr(backbone.network, "no_weight_decay", set)()
        }


def is_of_classifier(name: str) -> bool:
    """Whether a weight of a network, by its name there, is one of the layers that give the logits."""
    return name.startswith(f"head.{LAST_LAYERS}.")


def build_network(
    config: ModelConfig,
    outputs: Outputs,
    key: Key,
    *,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    checkpointing: bool = False,
    load_pretrained: bool = True,
) -> Network:
    """Build a network with weights that depend on ``key`` alone (or on the pretrained ones).

    Args:
        outputs: What the network is to say, on which tree.
        dropout: Share of the pooled features dropped in training.
        drop_path: Stochastic depth of the backbones in training.
        checkpointing: Whether the backbones keep few activations, and compute the others twice.
        load_pretrained: False where trained weights are laid over it at once.

    Raises:
        ConfigError: timm has no such network, or cannot build it with these options.
    """
    if len(config.backbones) > MAX_BACKBONES:
        raise ConfigError(f"a member has {len(config.backbones)} backbones: at most {MAX_BACKBONES} are fused")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed(*key, "weights"))
        backbones: list[nn.Module] = []
        widths: list[int] = []
        coarse_levels = len(outputs.sizes) - 1 if config.head in HEADS_ON_MAPS else 0
        maps: list[Maps | None] = []
        for name in config.backbones:
            backbone, width = build_backbone(name, config, drop_path, load_pretrained, coarse_levels)
            if checkpointing:
                checkpoint_activations(backbone.network, name)
            backbones.append(backbone)
            widths.append(width)
            maps.append(backbone.maps)
        if config.wide_channels:
            backbones.append(WideConvolution(config.wide_channels))
            widths.append(config.wide_channels)
            maps.append(None)
        num_features = sum(widths) + sum(sum(each.widths) for each in maps if each is not None)
        columns = columns_of(maps, widths, coarse_levels) if coarse_levels else None
        settings = HeadSettings(num_features, outputs, config.head_width, columns, config.routing_threshold or 0.0)
        head = build_head(config.head, settings)
    return Network(backbones, head, dropout, config.image_size, config.logit_norm)


def build_backbone(
    name: str, config: ModelConfig, drop_path: float, load_pretrained: bool, coarse_levels: int = 0
) -> tuple[Backbone, int]:
    """One backbone of a network, and the number of its features without those of its maps.

    Args:
        name: Its name in timm.
        config: The settings of the network.
        drop_path: As of ``build_network``.
        load_pretrained: As of ``build_network``.
        coarse_levels: Number of levels that read shallower maps of it.

    Raises:
        ConfigError: timm has no such network, or cannot build it with these options.
    """
    check_network(name)
    check_options(name, config.backbone_options)
    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:6]}*")[:3]
        hint = f" (near: {', '.join(near)})" if near else ""
        raise ConfigError(f"timm {timm.__version__} has no network '{name}'{hint}: see timm.list_models()")
    options = dict(config.backbone_options)
    if drop_path:
        options["drop_path_rate"] = drop_path
    try:
        network = timm.create_model(
            name, num_classes=0, pretrained=load_pretrained and config.pretrained is True, **options
        )
        width: int = network.num_features if not hasattr(network, "head_hidden_size") else network.head_hidden_size
    except NstudentError:
        raise
    except OSError as error:
        raise ConfigError(
            f"the pretrained weights of '{name}' cannot be fetched ({error}): "
            "set pretrained to the path of a safetensors file, or to false"
        ) from error
    except Exception as error:
        # Options that do not go together make networks raise nearly anything, ZeroDivisionError included.
        remedy = (
            " (no stochastic depth in this network: set noise.drop_path=0)" if "drop_path_rate" in str(error) else ""
        )
        raise ConfigError(f"timm cannot build '{name}' with {options}: {error}{remedy}") from error
    if load_pretrained and isinstance(config.pretrained, str):
        _load_weights(network, name, Path(config.pretrained))
    if config.stem == "small":
        keep_side(network, name)
    if options.get("in_chans", 3) != 3 or options.get("global_pool") == "":
        raise ConfigError(f"'{name}' with {options} does not turn a colour image into one row of features")
    made = network.pretrained_cfg
    maps = shallow_maps(network, name, coarse_levels) if coarse_levels else None
    return Backbone(network, made["mean"], made["std"], made["input_size"][-1], maps), width


def _load_weights(network: nn.Module, name: str, path: Path) -> None:
    file = path / f"{name}.safetensors" if path.is_dir() else path
    try:
        weights = load_file(file)
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"pretrained: {file} is not a readable safetensors file: {error}") from error
    wrong = [key for key, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise ConfigError(
            f"pretrained: {file} holds numbers that are not finite, the first in {wrong[0]}: it is damaged"
        )
    classifier = set(weights) - set(network.state_dict())
    own = {key: value for key, value in weights.items() if key not in classifier}
    try:
        missing, _ = network.load_state_dict(own, strict=False)
    except RuntimeError as error:
        said = summary(error)
        raise ConfigError(f"pretrained: {file} does not fit '{name}': {said}") from error
    if missing:
        raise ConfigError(f"pretrained: {file} lacks {len(missing)} tensors of '{name}', the first is {missing[0]}")
