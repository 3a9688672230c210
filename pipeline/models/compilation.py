"""torch.compile, with an error that says what to do where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from nstudent.errors import ConfigError
from torch import nn

_BACKEND = "inductor"
_COMPILERS = ("torch._dynamo", "torch._inductor")


def compile_network(network: nn.Module, mode: str) -> None:
    """Let torch compile the network when it is first called. Names of weights, copies and files stay as they are."""
    network.compile(mode=mode if _BACKEND == "inductor" else None, backend=_BACKEND)
    compiled = network._compiled_call_impl
    assert compiled is not None
    network._compiled_call_impl = partial(_explained, compiled)


def _explained(call: Callable[..., Any], *inputs: Any) -> Any:
    try:
        return call(*inputs)
    except Exception as error:
        if not type(error).__module__.startswith(_COMPILERS):
            raise
        said = " ".join(str(error).split())[:200]
        raise ConfigError(f"torch cannot compile this network here ({said}): set compile=none") from error
