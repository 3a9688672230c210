"""The optimiser of a training."""

from __future__ import annotations

import inspect

import torch
from nstudent.config import TrainingConfig
from timm.optim import create_optimizer_v2, get_optimizer_class
from torch import nn


def build_optimizer(network: nn.Module, config: TrainingConfig, device: torch.device) -> torch.optim.Optimizer:
    """timm's optimiser of this name; on CUDA in its fused form, where it has one.

    A fused one takes a step in a few kernels, and can leave it out on the device where the gradient is not finite: the
    host need not wait to see (`finite.py`). On the CPU the plain form stands: the fused one rounds in another way, and
    the bytes of a run would change.
    """
    fused = {"fused": True} if device.type == "cuda" and _has_fused(config.optimizer) else {}
    settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(network, opt=config.optimizer, **settings, **fused)
    return optimizer


def _has_fused(name: str) -> bool:
    try:
        return "fused" in inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters
    except ValueError:
        # No such optimiser: timm says so itself when it is to be built.
        return False
