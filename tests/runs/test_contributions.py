"""What each member of an ensemble costs and adds, worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from nstudent.config.schema import Config, ModelConfig
from nstudent.data.dataset import Dataset, Ids
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.members import Levels
from nstudent.models.recipe import Recipe
from nstudent.runs.contributions import contributions_of, in_words
from torch import Tensor
from trees import outputs_of

IMAGES = 20
SAID = ([0.9] * IMAGES, [0.2] * 10 + [0.8] * 10, [0.05] * 5 + [0.95] * 15)
"""Probability of the first of two classes, which all images show, by each member."""
CONFIG = Config.model_validate({"device": "cpu", "precision": "float32", "threads": 1})


class Speaker:
    """A member that has something to say of every image by its number, which the image shows."""

    def __init__(self, first: list[float], cost: float) -> None:
        self.first, self.cost = torch.tensor(first), cost

    def distributions(self, images: Tensor) -> Levels:
        said = self.first[(images[:, 0, 0, 0] * 255).round().long()]
        return (torch.stack([said, 1 - said], dim=1),)

    def compile(self) -> None:
        """Nothing here can be compiled."""

    def gmacs(self, image_size: int) -> float:
        return self.cost

    def tensors(self) -> Mapping[str, Tensor]:
        return {}


class Numbered:
    """Images that show their number, all of the first class and all for validation."""

    def __init__(self) -> None:
        self.labels = np.zeros((IMAGES, 1), dtype=np.int32)
        self.validation = np.arange(IMAGES)
        self.pixels = self

    def read_into(self, ids: Ids, images: npt.NDArray[np.uint8]) -> None:
        images[:] = ids[:, None, None, None]


def ensemble(members: int, weights: tuple[float, ...] | None) -> Ensemble:
    recipe = Recipe.of(CONFIG, outputs_of(2).taxonomy, [ModelConfig()] * members).changed(weights=weights)
    speakers = [Speaker(said, cost) for said, cost in zip(SAID[:members], (0.1, 0.2, 0.4), strict=False)]
    return Ensemble(recipe, speakers, Placement.from_config(CONFIG))


@pytest.mark.parametrize(
    ("weights", "shares", "gains"),
    [
        # All three name the other class of the first five images; so do two of them in either pair with the last one.
        (None, [1 / 3, 1 / 3, 1 / 3], [0.0, 0.0, -0.25]),
        # The first one has its way with either of the others, and these err of five without it.
        ((3.0, 1.0, 1.0), [0.6, 0.2, 0.2], [0.25, 0.0, 0.0]),
    ],
)
def test_golden_a_member_adds_what_all_score_above_the_others(
    weights: tuple[float, ...] | None, shares: list[float], gains: list[float]
) -> None:
    found = contributions_of(ensemble(3, weights), cast(Dataset, Numbered()), None)
    assert found is not None
    assert [each.weight for each in found] == pytest.approx(shares, abs=1e-6)
    assert [each.gain.value for each in found] == pytest.approx(gains)
    assert [each.gmacs for each in found] == [0.1, 0.2, 0.4]
    assert all(each.gain.low <= each.gain.value <= each.gain.high for each in found)
    lines = list(in_words(found))
    assert [line.split()[:2] for line in lines] == [["member", "0"], ["member", "1"], ["member", "2"]]
    assert all(f"adds {100 * gain:+.1f} points" in line for line, gain in zip(lines, gains, strict=True))


def test_a_single_member_has_no_part() -> None:
    assert contributions_of(ensemble(1, None), cast(Dataset, Numbered()), None) is None
    assert list(in_words(None)) == []
