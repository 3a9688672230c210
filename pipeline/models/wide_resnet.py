"""Wide residual networks for images of about 32 px (Zagoruyko & Komodakis, arXiv 1605.07146), registered with timm.

timm's residual networks divide the side by four before their first block and end in a single pixel at 32 px. These
keep the full side in their first group of blocks and end in side / 4 x side / 4: ``wrn_28_2`` is the network of the
CIFAR-10 figures in the semi-supervised literature (MixMatch, FixMatch and their successors). Importing this module
makes the names known to ``timm.create_model``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.layers import DropPath
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

__all__ = ["WideResNet", "wrn_28_2", "wrn_28_10"]

_STEM_CHANNELS = 16
_GROUPS = 3
_LAYERS_BESIDE_BLOCKS = 4
"""Layers of the paper's count that are in no block: the stem and one shortcut a group."""
_LEAK = 0.1
"""Slope of the activation below zero, as in the semi-supervised literature; the paper of the network has 0."""


class _Norm(nn.BatchNorm2d):
    """Batch normalisation with the larger epsilon of the semi-supervised literature."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3)


class _Block(nn.Module):
    """Two 3 x 3 convolutions, each after normalisation and activation, beside a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = _Norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.norm2 = _Norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        changes = stride > 1 or channels_in != channels
        self.shortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False) if changes else None

    def forward(self, images: Tensor) -> Tensor:
        """(b, channels_in, side, side) -> (b, channels, side / stride, side / stride)."""
        active = _activated(self.norm1(images))
        kept = images if self.shortcut is None else self.shortcut(active)
        changed = self.conv2(_activated(self.norm2(self.conv1(active))))
        out: Tensor = kept + self.drop_path(changed)
        return out


class WideResNet(nn.Module):
    """A pre-activation residual network of three groups of blocks.

    Args:
        depth: Layers in the paper's count: 6 n + 4 for n blocks a group.
        widen: Factor on the channels 16, 32 and 64 of the groups.
        num_classes: Outputs of the classifier; 0: the pooled features are the output.
        in_chans: Channels of the images.
        drop_path_rate: Share of residual branches dropped in the last block (stochastic depth, arXiv 1603.09382);
            earlier blocks drop proportionally fewer.
    """

    def __init__(
        self, depth: int, widen: int, num_classes: int = 1000, in_chans: int = 3, drop_path_rate: float = 0.0
    ) -> None:
        super().__init__()
        blocks = (depth - _LAYERS_BESIDE_BLOCKS) // (2 * _GROUPS)
        self.num_classes = num_classes
        self.num_features = 64 * widen
        self.feature_info = [
            {"num_chs": 16 * 2**group * widen, "reduction": 2**group, "module": f"blocks.{(group + 1) * blocks - 1}"}
            for group in range(_GROUPS)
        ]
        self.stem = nn.Conv2d(in_chans, _STEM_CHANNELS, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList()
        channels_in, number, last = _STEM_CHANNELS, 0, _GROUPS * blocks - 1
        for group in range(_GROUPS):
            for place in range(blocks):
                channels, stride = 16 * 2**group * widen, 2 if group and not place else 1
                self.blocks.append(_Block(channels_in, channels, stride, drop_path_rate * number / max(1, last)))
                channels_in, number = channels, number + 1
        self.norm = _Norm(channels_in)
        self.classifier = nn.Linear(channels_in, num_classes) if num_classes else nn.Identity()
        self._checkpointing = False
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", a=_LEAK, nonlinearity="leaky_relu")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the input of each block in training, and compute the rest again in the backward pass."""
        self._checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The layers in the order of their depth, under timm's name for that: the stem, each block, and the last
        normalisation with the last block; ``coarse``, which timm's networks have for whole groups, changes nothing.
        """
        return {"stem": r"^stem", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}

    def forward(self, images: Tensor) -> Tensor:
        """(b, in_chans, side, side) -> (b, num_classes), or (b, num_features) without a classifier."""
        final, _ = self.forward_intermediates(images, [])
        return self.forward_head(final)

    def forward_intermediates(
        self, images: Tensor, indices: Sequence[int], output_fmt: str = "NCHW"
    ) -> tuple[Tensor, list[Tensor]]:
        """The last map, normalised, and those of some groups of blocks as they leave it, under timm's name for that.

        Args:
            images: (b, in_chans, side, side).
            indices: Numbers of the groups, ascending.
            output_fmt: Layout of the maps; there is this one.
        """
        assert output_fmt == "NCHW"
        found, maps = self.stem(images), []
        of_group = len(self.blocks) // _GROUPS
        for number, block in enumerate(self.blocks, 1):
            again = self._checkpointing and self.training
            found = checkpoint(block, found, use_reentrant=False) if again else block(found)
            if number % of_group == 0 and number // of_group - 1 in indices:
                maps.append(found)
        return self.norm(found), maps

    def forward_head(self, final: Tensor) -> Tensor:
        """The last map, (b, channels, side, side) -> (b, num_classes), or (b, num_features) without a classifier."""
        out: Tensor = self.classifier(_activated(final).mean(dim=(2, 3)))
        return out


def _activated(images: Tensor) -> Tensor:
    return F.leaky_relu(images, _LEAK, inplace=True)


def _build(name: str, pretrained: bool, **options: Any) -> WideResNet:
    network: WideResNet = build_model_with_cfg(WideResNet, name, pretrained, **options)
    return network


_CONFIG = {
    "input_size": (3, 32, 32),
    "num_classes": 1000,
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2471, 0.2435, 0.2616),
    "first_conv": "stem",
    "classifier": "classifier",
}
"""Mean and deviation are those of the CIFAR-10 training images; there are no pretrained weights."""

default_cfgs = generate_default_cfgs({"wrn_28_2": _CONFIG, "wrn_28_10": _CONFIG})


@register_model  # type: ignore[untyped-decorator]
def wrn_28_2(pretrained: bool = False, **options: Any) -> WideResNet:
    """28 layers, twice the channels: 1.47 million weights, 0.2 billion multiply-adds at 32 px."""
    return _build("wrn_28_2", pretrained, depth=28, widen=2, **options)


@register_model  # type: ignore[untyped-decorator]
def wrn_28_10(pretrained: bool = False, **options: Any) -> WideResNet:
    """28 layers, ten times the channels: 36.5 million weights, 5.2 billion multiply-adds at 32 px."""
    return _build("wrn_28_10", pretrained, depth=28, widen=10, **options)
