"""Numbers in float32 at least, where those of a mixed precision would not do."""

import torch
from torch import Tensor


def in_full(numbers: Tensor) -> Tensor:
    """The same numbers, float64 as they are and others in float32."""
    return numbers if numbers.dtype == torch.float64 else numbers.float()
