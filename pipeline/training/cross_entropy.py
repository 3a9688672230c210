"""Cross-entropy at each level, and what all losses have in common: how much an image counts, and what it is taught."""

from __future__ import annotations

from collections.abc import Sequence

from nstudent.models.heads import Logits
from torch import Tensor

_NO_MASS = 1e-12
"""Below this an image has nothing to teach at a level."""


class ClassWeighted:
    """Images that count as much as the classes that their mass names: mass * class weight, summed.

    Label smoothing (arXiv 1512.00567) comes after that and spreads evenly what is to be learnt. If the classes were
    weighted after it, as in torch's own cross-entropy, smoothing would draw every image towards the rare classes.
    """

    def __init__(self, class_weights: Sequence[Tensor], smoothing: float = 0.0) -> None:
        """``class_weights``: per level (outputs,); ``smoothing``: share of the mass that is spread over all classes."""
        self.class_weights = list(class_weights)
        self.smoothing = smoothing

    def weight(self, mass: Sequence[Tensor]) -> Sequence[Tensor]:
        """Sum over classes of mass * class weight, per level: (..., outputs) -> (...,)."""
        return [(level * weights).sum(dim=-1) for level, weights in zip(mass, self.class_weights, strict=True)]

    def taught(self, mass: Sequence[Tensor]) -> Sequence[Tensor]:
        """The mass, (b, outputs) per level, smoothed and brought to what the image counts in all."""
        return [self._taught(level, counted) for level, counted in zip(mass, self.weight(mass), strict=True)]

    def _taught(self, mass: Tensor, counted: Tensor) -> Tensor:
        total = mass.sum(dim=1, keepdim=True)
        if self.smoothing:
            mass = (1 - self.smoothing) * mass + self.smoothing * total / mass.shape[1]
        # An image without mass counts nothing, so that what it is divided by does not matter.
        return mass * (counted[:, None] / total.clamp_min(_NO_MASS))


class CrossEntropy(ClassWeighted):
    """Cross-entropy against mass on classes, with a weight for every class.

    Without smoothing and with one class an image, or without class weights, it is torch's own.
    """

    def __call__(self, logits: Logits, mass: Sequence[Tensor]) -> Sequence[Tensor]:
        """What the image counts * its cross-entropy against the smoothed mass, per level, float32 (b,)."""
        rows = zip(logits, self.taught(mass), strict=True)
        return [-(taught * said.log_softmax(dim=1)).sum(dim=1) for said, taught in rows]
