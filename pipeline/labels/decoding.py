"""What a decoder is: it turns one distribution per level into one path in the tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor


@dataclass(frozen=True)
class Decoded:
    """The paths of some images, each to a terminal, on the device that held their distributions."""

    paths: Tensor
    """int32 (images, levels): class per level, ``ABSENT`` below the end of the path."""
    confidence: Tensor
    """float32 (images, levels): probability of what the path says at each level."""


class Decoder(Protocol):
    """A rule that finds one path to a terminal for every image."""

    def decode(self, probabilities: Sequence[Tensor]) -> Decoded:
        """Find the labels of some images.

        Args:
            probabilities: Distribution per level, coarse first: float32 (images, outputs), on any device. They are
                left as they are.
        """


def path_confidence(probabilities: Sequence[Tensor], paths: Tensor, outputs: Outputs) -> Tensor:
    """Probability of what the path says at each level, float32 (images, levels).

    Where the path has ended that is the probability of 'nothing', or 0 in a model without an output for it.
    """
    confidence = []
    for level, distribution in enumerate(probabilities):
        path = paths[:, level].long()
        said = distribution.gather(1, path.clamp_min(0)[:, None])[:, 0]
        output = outputs.nothing(level)
        nothing = torch.zeros_like(said) if output is None else distribution[:, output]
        confidence.append(torch.where(path >= 0, said, nothing))
    return torch.stack(confidence, dim=1)
