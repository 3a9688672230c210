"""A probe: a regression on features that are not trained, as a torch module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from nstudent.config.members import ModelConfig, ProbeConfig
from nstudent.models.gradients import Gradients
from nstudent.models.network import build_backbone
from nstudent.models.regression import Solution
from nstudent.models.resizing import resized
from torch import Tensor, nn

_CELLS_AT_ONCE = 1 << 24
"""Numbers of a kernel that are held at once: 64 MB."""


class Frozen(nn.Module):
    """A backbone that is not trained, at a size of its own."""

    def __init__(self, backbone: nn.Module, width: int, side: int | None) -> None:
        """``width``: number of its features; ``side``: of the images it sees, in pixels, ``None``: as they come."""
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.width = width
        self._side = side

    def forward(self, images: Tensor) -> Tensor:
        """float32 (b, 3, side, side) in 0..1 -> (b, features)."""
        features: Tensor = self.backbone(images if self._side is None else resized(images, self._side))
        return features


class Features(nn.Module):
    """One kind of features, or several side by side, each image's then divided by their norm so that they count
    alike."""

    def __init__(self, blocks: Sequence[Gradients | Frozen]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.width = sum(block.width for block in blocks)

    def forward(self, images: Tensor) -> Tensor:
        """float32 (b, 3, side, side) in 0..1 -> float32 (b, features)."""
        found = [block(images).float() for block in self.blocks]
        return found[0] if len(found) == 1 else torch.cat([F.normalize(block, dim=1) for block in found], dim=1)


class Probe(nn.Module):
    """Features, and a linear or kernel regression from them to the paths of a tree."""

    weights: Tensor
    bias: Tensor
    anchors: Tensor | None
    scale: Tensor

    def __init__(self, features: Features, num_paths: int, num_anchors: int) -> None:
        """A regression that gives zeros; ``num_anchors`` of 0: it is linear."""
        super().__init__()
        self.features = features
        self.register_buffer("weights", torch.zeros(num_anchors or features.width, num_paths))
        self.register_buffer("bias", torch.zeros(num_paths))
        self.register_buffer("anchors", torch.zeros(num_anchors, features.width) if num_anchors else None)
        self.register_buffer("scale", torch.zeros(()))

    @classmethod
    def of(cls, features: Features, solution: Solution) -> Probe:
        """The probe with a regression that was fitted to these features."""
        inputs, num_paths = solution.weights.shape
        probe = cls(features, num_paths, 0 if solution.anchors is None else inputs)
        probe.weights.copy_(torch.from_numpy(solution.weights))
        probe.bias.copy_(torch.from_numpy(solution.bias))
        probe.scale.fill_(solution.scale)
        if probe.anchors is not None and solution.anchors is not None:
            probe.anchors.copy_(torch.from_numpy(solution.anchors))
        return probe

    def forward(self, images: Tensor) -> Tensor:
        """float32 (b, 3, side, side) in 0..1 -> the score of each path, float32 (b, paths)."""
        features = self.features(images)
        if self.anchors is None:
            return torch.addmm(self.bias, features, self.weights)
        if torch.compiler.is_exporting():
            # A program is one piece, for any number of images.
            return self._by_kernel(features, self.anchors)
        rows = max(1, _CELLS_AT_ONCE // len(self.anchors))
        return torch.cat([self._by_kernel(part, self.anchors) for part in features.split(rows)])

    def _by_kernel(self, features: Tensor, anchors: Tensor) -> Tensor:
        lengths = (features**2).sum(dim=1, keepdim=True) + (anchors**2).sum(dim=1)
        squared = (lengths - 2 * (features @ anchors.T)).clamp_min_(0)
        kernel = torch.exp(-self.scale * squared)
        return torch.addmm(self.bias, kernel, self.weights)


def build_features(settings: ProbeConfig, *, load_pretrained: bool = True) -> Features:
    """The features that a probe goes by, in evaluation mode.

    Raises:
        ConfigError: timm has no such backbone, or its weights cannot be had.
    """
    blocks: list[Gradients | Frozen] = []
    if settings.features != "backbones":
        blocks.append(Gradients())
    if settings.features != "gradients":
        same = {key: getattr(settings, key) for key in ("backbones", "backbone_options", "pretrained")}
        for name in settings.backbones:
            backbone, width = build_backbone(name, ModelConfig(**same), 0.0, load_pretrained)
            native = backbone.native_px if settings.pretrained else None
            blocks.append(Frozen(backbone, width, settings.image_size or native))
    return Features(blocks).eval()
