"""The optimiser of a training."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from nstudent.config.schema import TrainingConfig
from nstudent.errors import RefusedError, summary
from timm.optim import create_optimizer_v2, get_optimizer_class
from torch import nn


def build_optimizer(network: nn.Module, config: TrainingConfig, device: torch.device) -> torch.optim.Optimizer:
    """timm's optimiser of this name; on CUDA and on the CPU in its fused form, where it has one.

    A fused one takes a step in a few kernels, and can leave it out on the device where the gradient is not finite: the
    host need not wait to see (`finite.py`).
    """
    fused = {"fused": True} if device.type in ("cuda", "cpu") and _has_fused(config.optimizer) else {}
    settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(network, opt=config.optimizer, **settings, **fused)
    return optimizer


def take_step(optimizer: torch.optim.Optimizer) -> None:
    """Let the optimiser take its step. Only its first one asks for memory: for its moments.

    Raises:
        RefusedError: there is no memory, also after what the backward pass has left was given back.
    """
    is_first = not optimizer.state
    try:
        optimizer.step()
        return
    except torch.OutOfMemoryError as error:
        said = summary(error)
        if not is_first:
            raise RefusedError(f"no memory for a step of the optimiser ({said})") from None
    # What the backward pass has left is free now, but for the error's hold on it. Half a state would not do.
    optimizer.state.clear()
    if optimizer.param_groups[0]["params"][0].is_cuda:
        torch.cuda.empty_cache()
    try:
        optimizer.step()
    except torch.OutOfMemoryError:
        raise RefusedError(
            f"no memory for the optimiser's moments, which take twice that of the weights ({said}): choose a "
            "smaller network"
        ) from None


def resume_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what ``state_dict`` gave, each moment in the layout of its weight.

    Files know no layout. A fused step walks through memory, not through indices: a moment that lies there in another
    order than its weight (channels last) would silently belong to other weights.
    """
    optimizer.load_state_dict(state)
    for weight, moments in optimizer.state.items():
        for name, moment in moments.items():
            if isinstance(moment, torch.Tensor) and moment.shape == weight.shape:
                moments[name] = torch.empty_like(weight, dtype=moment.dtype).copy_(moment)


def _has_fused(name: str) -> bool:
    try:
        return "fused" in inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters
    except ValueError:
        # No such optimiser: timm says so itself when it is to be built.
        return False
