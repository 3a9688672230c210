"""Activation checkpointing (Chen et al., arXiv 1604.06174): memory of a training, paid for with a second forward pass.

timm's networks do it by themselves, and batch normalisation then sees every batch twice: once in the forward pass, once
when the backward pass asks for what was not kept. Its running statistics would move twice as fast. Here they do not: a
training with checkpointing has the numbers of one without.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from nstudent.errors import ConfigError
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def checkpoint_activations(network: nn.Module, name: str) -> None:
    """Keep only what goes into each block of a timm network, and compute the rest again when its gradient is due.

    Raises:
        ConfigError: this network cannot.
    """
    try:
        network.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:
        raise ConfigError(f"'{name}' cannot checkpoint its activations: set checkpoint_activations=false") from error
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            layer.register_forward_pre_hook(partial(_count_once, layer.momentum))


def _count_once(momentum: float | None, layer: nn.Module, inputs: Any) -> None:
    """Before a forward pass of batch normalisation: one that repeats an earlier one leaves the statistics alone."""
    assert isinstance(layer, _BatchNorm)
    # Inside of a backward pass torch has a number for it.
    repeated = torch._C._current_graph_task_id() != -1
    layer.momentum = 0.0 if repeated else momentum
    # One that no longer learns has not counted the earlier pass either.
    if repeated and layer.training and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.sub_(1)
