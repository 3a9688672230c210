"""Where a training reads its images, from the packed set or a copy on the GPU, and whether it waits for them."""

from __future__ import annotations

import torch
from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset, PixelStore
from nstudent.data.packing.shards import readable_size
from nstudent.data.resident import ResidentPixels, fits_beside_training
from nstudent.models.device import loader_workers, noises_in_batches

_WORTH_SAYING = 0.05
"""Share of a training's time above which waiting for images is reported."""


def training_pixels(config: Config, dataset: Dataset, device: torch.device) -> PixelStore | ResidentPixels:
    """Where a training reads its images: on the GPU, if they fit and are noised there, and no process fetches them."""
    dataset.pixels.open()
    images, side = len(dataset), dataset.image_size
    here = noises_in_batches(config) and not loader_workers(config, dataset.pixels.are_mapped)
    resident = here and fits_beside_training(images * side**2 * 3, device)
    return ResidentPixels(dataset.pixels, images, side, device) if resident else dataset.pixels


def packing_gains(name: str, data_wait: float, dataset: Dataset) -> str | None:
    """What to say of a training that has waited much for images that are decoded anew each time; ``None``: nothing.

    Args:
        name: Name of the training.
        data_wait: Share of its time in which it waited for images.
        dataset: Where the images came from.
    """
    if data_wait < _WORTH_SAYING or not dataset.pixels.decodes_anew:
        return None
    size = readable_size(len(dataset) * dataset.image_size**2 * 3)
    return (
        f"  {name}: {data_wait:.0%} of the time went into waiting for images, to be decoded and noised; "
        f"data.storage=pixels decodes them once ({size}), data.storage=jpeg in a third of that or less"
    )
