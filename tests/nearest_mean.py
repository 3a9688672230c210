"""A kind of member that is not a network: the nearest mean of the pixels of a class."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from nstudent.config.members import MEMBERS, MemberConfig
from nstudent.config.types import Count
from nstudent.models.device import Placement
from nstudent.models.kinds import KINDS
from nstudent.models.members import FitInputs, Fitted, Levels, read_tensors
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor
from torch.nn import functional as F


class PixelMeans(MemberConfig):
    """Settings of a member that compares small copies of images with the mean of every class."""

    side: Count = 4
    """Side of the small copies, in pixels."""


class NearestMean:
    """The nearer the mean of a class, the more probable is the class. It is not a network, and has no device."""

    def __init__(self, settings: PixelMeans, means: Mapping[str, Tensor]) -> None:
        self._side = settings.side
        self._means = means

    def distributions(self, images: Tensor) -> Levels:
        rows = small(images, self._side)
        return tuple((-8 * torch.cdist(rows, means)).softmax(dim=1) for means in self._means.values())

    def compile(self) -> None:
        """Nothing here can be compiled."""

    def gmacs(self, image_size: int) -> float:
        return sum(means.numel() for means in self._means.values()) * image_size / 32 / 1e9

    def tensors(self) -> Mapping[str, Tensor]:
        return self._means


class NearestMeanKind:
    """How the means are taken and loaded."""

    resumes = False

    def cost(self, settings: PixelMeans, inputs: FitInputs) -> Callable[[int], float]:
        return NearestMean(settings, expected_means(settings, inputs.outputs)).gmacs

    def fit(self, settings: PixelMeans, inputs: FitInputs) -> Fitted:
        ids = inputs.examples.ids
        images = small(inputs.images(ids), settings.side)
        means = {}
        for level, mass in enumerate(inputs.examples.targets(np.arange(len(ids)))):
            shares = torch.from_numpy(mass).T
            means[f"level-{level}"] = (shares @ images) / shares.sum(dim=1, keepdim=True).clamp(min=1)
        return Fitted(NearestMean(settings, means))

    def load(self, settings: PixelMeans, path: Path, outputs: Outputs, link: str, placement: Placement) -> NearestMean:
        return NearestMean(settings, read_tensors(path, expected_means(settings, outputs), "the means"))


def small(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images, side, mode="area").flatten(1)


def expected_means(settings: PixelMeans, outputs: Outputs) -> dict[str, Tensor]:
    length = 3 * settings.side**2
    return {f"level-{level}": torch.empty(size, length, device="meta") for level, size in enumerate(outputs.sizes)}


def add_nearest_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that another kind of member needs: its settings, and what fits and loads it."""
    monkeypatch.setitem(MEMBERS, "nearest_mean", PixelMeans)
    monkeypatch.setitem(KINDS, "nearest_mean", NearestMeanKind())
