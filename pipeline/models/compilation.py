"""torch.compile, with an error that says what to do where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from nstudent.errors import ConfigError, summary
from torch import nn

_BACKEND = "inductor"
_MOST_GRAPHS = 128
_COMPILERS = ("torch._dynamo", "torch._inductor")


def compile_network(network: nn.Module, mode: str) -> None:
    """Let torch compile the network when it is first called. Names of weights, copies and files stay as they are."""
    # It takes a second to import.
    from torch._dynamo import config

    # All networks of a run share one piece of code, and each counts against torch's limit of 8, in training, labelling
    # and with every size of batch: beyond it they would run uncompiled, and nothing would say so.
    config.recompile_limit = max(config.recompile_limit, _MOST_GRAPHS)
    # Not dynamic: where a batch was halved once, torch would take its size for any number and give up fast layouts.
    network.compile(mode=mode if _BACKEND == "inductor" else None, backend=_BACKEND, dynamic=False)
    compiled = network._compiled_call_impl
    assert compiled is not None
    network._compiled_call_impl = partial(_explained, compiled)


def _explained(call: Callable[..., Any], *inputs: Any) -> Any:
    try:
        return call(*inputs)
    except Exception as error:
        if not type(error).__module__.startswith(_COMPILERS):
            raise
        said = summary(error)
        raise ConfigError(f"torch cannot compile this network here ({said}): set compile=none") from error
