"""The forms that noise takes: on one image, on the pixels of batches, and on a batch that is ready for the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nstudent.data.batches import Batch
from torch import Tensor

Mass = tuple[Tensor, ...]
"""Per level, coarse first: float32 (b, classes), mass on each class."""


@dataclass(frozen=True)
class Mixture:
    """How the images of a batch were mixed, each with a partner of its own part."""

    partner: Tensor
    """int64 (b,): place of the image that was mixed in."""
    share: float
    """Share of the partner, 0 to 1."""

    def of(self, mass: Mass) -> Mass:
        """What the mixed images teach, from what each teaches by itself: per level (b, classes)."""
        return tuple((1 - self.share) * level + self.share * level[self.partner] for level in mass)


PixelStep = Callable[[Tensor, Sequence[int]], Tensor]
"""(images, uint8 (k * b, side, side, 3) of k batches end to end; the number of the step of each batch) -> the same
images, noised. Those that are given stay as they are."""


@dataclass(frozen=True)
class Prepared:
    """A batch on the device, as the network is to see it."""

    batch: Batch
    """As it was loaded; its images are those before any step on the device."""
    images: Tensor
    """float32 (b, 3, side, side) in 0..1."""
    targets: Mass
    """What is to be learnt from them."""
    whole_mass: Mass = ()
    """Per level (2, classes): mass of all labelled images of the whole batch, and of all others. It is filled in after
    the last step on the batch."""
    mixture: Mixture | None = None
    """How ``images`` and ``targets`` were mixed; ``None``: they were not."""
    meanwhile: Callable[[], None] = lambda: None
    """To be called before a backward pass, which leaves Python's lock to others: the next batch is begun then."""


BatchStep = Callable[[Prepared, int], Prepared]
"""(batch, number of its step) -> the batch, resized, mixed or changed otherwise. At each level it keeps the mass of
each class, summed over the labelled images, and summed over the others: other processes have added it up before."""
