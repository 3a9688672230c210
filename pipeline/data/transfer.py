"""From the host to a device, without waiting for it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor, of any shape, on the device. A GPU fetches it from pinned memory by itself; otherwise one waits."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def array_sent(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """The same for an array of any shape and layout."""
    return sent(torch.from_numpy(np.ascontiguousarray(array)), device)
