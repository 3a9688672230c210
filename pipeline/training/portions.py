"""Batches that a device cannot hold at once: the same step in portions, whose gradients add up to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from nstudent.data.resident import free_memory
from nstudent.errors import RefusedError
from torch import Tensor

ONE_VALUE = "Expected more than 1 value per channel"
"""Beginning of what torch says where batch normalisation has a single value to take the mean of."""


@dataclass(frozen=True)
class Portion:
    """Some images of a batch, labelled ones first as in the batch."""

    rows: Tensor
    """int64: places in the batch."""
    num_labelled: int


def portions(batch_size: int, num_labelled: int, number: int) -> Iterator[Portion]:
    """Cut a batch into ``number`` portions that each hold their share of its labelled and of its other images."""
    parts = (range(num_labelled), range(num_labelled, batch_size))
    for i in range(number):
        labelled, rest = (part[len(part) * i // number : len(part) * (i + 1) // number] for part in parts)
        if labelled or rest:
            rows = torch.cat([torch.arange(part.start, part.stop) for part in (labelled, rest)])
            yield Portion(rows, len(labelled))


@contextmanager
def one_value_explained(images: int, side_px: int) -> Iterator[None]:
    """Say in a line that a portion was cut down to where batch normalisation cannot work.

    Raises:
        RefusedError: It was.
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(ONE_VALUE):
            raise
        raise RefusedError(
            f"a portion of {images} image of {side_px} px leaves the batch normalisation one value for each channel, "
            "and the memory does not hold a larger one: lower data.image_size, or choose a smaller network"
        ) from error


def halved(number: int, batch_size: int, device: torch.device, side_px: int) -> int:
    """Twice as many portions as before, after the device ran out of memory.

    Raises:
        RefusedError: a portion of one image did not fit; the message says what to change.
    """
    if number >= batch_size:
        raise RefusedError(
            f"one image of {side_px} px does not fit in the memory of {device}{_free(device)}: memory falls with the "
            f"square of the side, so data.image_size={max(8, side_px // 2)} needs about a quarter; or choose a smaller "
            "network"
        )
    return min(2 * number, batch_size)


def _free(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    _, total = torch.cuda.mem_get_info(device)
    return f" ({free_memory(device) / 2**30:.1f} of {total / 2**30:.1f} GiB are free)"
