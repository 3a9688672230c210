"""A limit on the memory that building a network takes: a description of a few bytes can ask for any amount."""

import math
from collections.abc import Callable
from typing import Any

from nstudent.errors import ArtifactError
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_BYTES_PER_ENTRY = 4


class AllocationLimit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this context tensors of more than ``limit`` bytes together are refused, before they are made.

    Raises:
        ArtifactError: beyond the limit.
    """

    def __init__(self, limit: int, what: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._left = limit
        self._what = what

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation of torch."""
        # Those that make a tensor out of nothing are given its size first; all others are seen once they are done.
        size = args[0] if args and isinstance(args[0], list | tuple) and all(type(n) is int for n in args[0]) else None
        if size is not None:
            self._take(math.prod(size) * _BYTES_PER_ENTRY)
        made = func(*args, **(kwargs or {}))
        if size is None and isinstance(made, Tensor) and not _shares_memory(made, args):
            self._take(made.untyped_storage().nbytes())
        return made

    def _take(self, num_bytes: int) -> None:
        self._left -= num_bytes
        if self._left < 0:
            raise ArtifactError(f"{self._what} describes a network far larger than its weights: refused")


def _shares_memory(made: Tensor, args: tuple[Any, ...]) -> bool:
    """Whether a tensor is one of the arguments, or a view of one."""
    tensors = (argument for argument in args if isinstance(argument, Tensor))
    return any(made.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr() for tensor in tensors)
