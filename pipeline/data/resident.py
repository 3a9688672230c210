"""Small images as one tensor on the device that trains: no copy a step, and none to wait for."""

from __future__ import annotations

import numpy as np
import torch
from nstudent.data.dataset import Ids, PixelStore
from nstudent.data.transfer import array_sent
from torch import Tensor

_COPIED_TOGETHER = 8192
_SHARE_OF_FREE_MEMORY = 4
"""One part in so many of the free memory; networks, gradients and activations need the rest."""


class ResidentPixels:
    """The images of a store, on a device: uint8 (images, side, side, 3)."""

    def __init__(self, store: PixelStore, images: int, side_px: int, device: torch.device) -> None:
        self._images = torch.empty((images, side_px, side_px, 3), dtype=torch.uint8, device=device)
        for first in range(0, images, _COPIED_TOGETHER):
            ids = np.arange(first, min(first + _COPIED_TOGETHER, images))
            self._images[first : first + len(ids)] = torch.from_numpy(store[ids])

    def __getitem__(self, ids: Ids) -> Tensor:
        """Images by id: (n,) -> uint8 (n, side, side, 3), on the device."""
        return self._images[array_sent(ids, self._images.device)]


def fits_beside_training(num_bytes: int, device: torch.device) -> bool:
    """Whether a GPU that holds so many bytes of data has the memory left to train; never true of another device.

    On a CPU, files that are mapped into memory serve as well and cost nothing.
    """
    return device.type == "cuda" and num_bytes <= free_memory(device) // _SHARE_OF_FREE_MEMORY


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU's memory that this process can still have: free ones, and those that torch holds unused."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
