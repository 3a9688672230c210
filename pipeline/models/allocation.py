"""A limit on what building a network takes: a description of a few bytes can ask for any memory, and any time."""

import math
from collections.abc import Callable
from typing import Any, Self

from nstudent.errors import ArtifactError
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

_BYTES_PER_ENTRY = 4


class AllocationLimit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this context tensors of more than ``limit`` bytes together are refused, before they are made.

    So are more than ``modules`` modules: thousands of them that hold next to nothing take time, and memory of Python.

    Raises:
        ArtifactError: beyond the limit.
    """

    def __init__(self, limit: int, modules: int, what: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._left = limit
        self._modules_left = modules
        self._what = what
        self._hook: RemovableHandle | None = None

    def __enter__(self) -> Self:
        self._hook = register_module_module_registration_hook(self._count)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        if self._hook is not None:
            self._hook.remove()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

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

    def _count(self, module: nn.Module, name: str, part: nn.Module) -> None:
        self._modules_left -= 1
        if self._modules_left < 0:
            raise ArtifactError(f"{self._what} describes a network of far more parts than its weights have: refused")

    def _take(self, num_bytes: int) -> None:
        self._left -= num_bytes
        if self._left < 0:
            raise ArtifactError(f"{self._what} describes a network far larger than its weights: refused")


def _shares_memory(made: Tensor, args: tuple[Any, ...]) -> bool:
    """Whether a tensor is one of the arguments, or a view of one."""
    tensors = (argument for argument in args if isinstance(argument, Tensor))
    return any(made.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr() for tensor in tensors)
