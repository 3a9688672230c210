"""The optimiser of a training."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from nstudent.config.schema import TrainingConfig
from nstudent.errors import ConfigError, RefusedError, summary
from nstudent.models.network import Backbone
from timm.optim import Lookahead, create_optimizer_v2, get_optimizer_class, list_optimizers, param_groups_layer_decay
from torch import Tensor, nn

_NOT_OPTIONS = frozenset(
    {"params", "lr", "weight_decay", "fused", "foreach", "capturable", "differentiable", "maximize"}
)
"""Parameters of optimisers that have keys of their own, or follow from the device."""


def build_optimizer(network: nn.Module, config: TrainingConfig, device: torch.device) -> torch.optim.Optimizer:
    """timm's optimiser of this name; on CUDA and on the CPU in its fused form, where it has one.

    A fused one takes a step in a few kernels, and can leave it out on the device where the gradient is not finite: the
    host need not wait to see (`finite.py`).

    Raises:
        ConfigError: The optimiser does not take an option of the configuration, something other than lookahead stands
            before its name, or the layers of a backbone are to learn at rates of their own and timm cannot tell them.
    """
    own = _own_name(config.optimizer)
    fused = {"fused": True} if device.type in ("cuda", "cpu") and "fused" in _parameters(config.optimizer) else {}
    settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay, **_options(config, own)}
    weights: Any = network
    if (config.layer_decay, config.head_rate) != (1.0, 1.0):
        weights = list(_at_their_rates(network, config))
    optimizer: torch.optim.Optimizer = create_optimizer_v2(weights, opt=config.optimizer, **settings, **fused)
    return optimizer


def _at_their_rates(network: nn.Module, config: TrainingConfig) -> Iterator[dict[str, Any]]:
    """The weights of a network in groups; ``lr_scale`` says how many times as fast as ``learning_rate`` each learns.

    The layers of every backbone are counted from its own last one, which lies right below the head: fused backbones
    differ in depth.
    """
    taken: set[int] = set()
    for backbone in (each for each in network.modules() if isinstance(each, Backbone)):
        made: Any = backbone.network.pretrained_cfg
        if config.layer_decay != 1 and not hasattr(backbone.network, "group_matcher"):
            # timm would count parameters by the dozen, whatever layers they are of.
            raise ConfigError(
                f"layer_decay: timm does not say which layers '{made['architecture']}' has: set layer_decay=1, or "
                "choose another network"
            )
        layers = param_groups_layer_decay(
            backbone.network,
            config.weight_decay,
            no_weight_decay_list=getattr(backbone.network, "no_weight_decay", set)(),
            layer_decay=config.layer_decay,
        )
        for group in layers:
            taken |= {id(weight) for weight in group["params"]}
            yield {**group, "lr_scale": group["lr_scale"] * config.layer_decay}
    rest = [(name, weight) for name, weight in network.named_parameters() if id(weight) not in taken]
    for decays in (False, True):
        for of_head in (False, True):
            group = [w for name, w in rest if (w.ndim > 1) == decays and name.startswith("head.") == of_head]
            if group:
                # What lies beside the backbones, a wide convolution, is as far from the images as from the logits.
                scale = config.head_rate if of_head else 1.0
                yield {"params": group, "weight_decay": decays * config.weight_decay, "lr_scale": scale}


def _own_name(name: str) -> str:
    """Name of the optimiser itself, without the lookahead that may stand before it.

    timm reads what comes after the last underscore, and passes over everything else before it.
    """
    *before, own = name.lower().split("_")
    if before not in ([], ["lookahead"]) and own in list_optimizers():
        raise ConfigError(
            f"optimizer is '{name:.80}', of which timm would read '{own}' alone: write {own}, or lookahead_{own}"
        )
    return own


def _options(config: TrainingConfig, own_name: str) -> dict[str, Any]:
    """The further options of the optimiser, each one that it takes; a lookahead before its name hands them on."""
    takes = set(_parameters(own_name)) - _NOT_OPTIONS
    for name in config.optimizer_options:
        if name not in takes:
            raise ConfigError(
                f"optimizer_options: the optimizer '{config.optimizer:.80}' takes no '{name:.40}': choose from "
                f"{', '.join(sorted(takes)) or 'none'}"
            )
    return dict(config.optimizer_options)


def take_step(optimizer: torch.optim.Optimizer) -> None:
    """Let the optimiser take its step. Only its first one asks for memory: for its moments.

    Raises:
        RefusedError: there is no memory, also after what the backward pass has left was given back.
    """
    is_first = not _state(optimizer)
    try:
        optimizer.step()
        return
    except torch.OutOfMemoryError as error:
        said = summary(error)
        if not is_first:
            raise RefusedError(f"no memory for a step of the optimiser ({said})") from None
    # What the backward pass has left is free now, but for the error's hold on it. Half a state would not do.
    _state(optimizer).clear()
    if optimizer.param_groups[0]["params"][0].is_cuda:
        torch.cuda.empty_cache()
    try:
        optimizer.step()
    except torch.OutOfMemoryError:
        raise RefusedError(
            f"no memory for the optimiser's moments, which take twice that of the weights ({said}): choose a "
            "smaller network"
        ) from None


def forget(optimizer: torch.optim.Optimizer, new: torch.optim.Optimizer) -> None:
    """Let an optimiser begin as ``new``, one of the same weights and settings that has not taken a step.

    To clear what it remembers would not do for all: some count their steps in the groups of weights, some remember
    something of every weight from the start, and timm's lookahead keeps it in the optimiser that it wraps.
    """
    optimizer.load_state_dict(new.state_dict())


def _state(optimizer: torch.optim.Optimizer) -> MutableMapping[Tensor, dict[str, Any]]:
    """What an optimiser remembers of each weight; timm's lookahead keeps it in the optimiser that it wraps."""
    return optimizer._base_optimizer.state if isinstance(optimizer, Lookahead) else optimizer.state


def resume_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what ``state_dict`` gave, each moment in the layout of its weight.

    Files know no layout. A fused step walks through memory, not through indices: a moment that lies there in another
    order than its weight (channels last) would silently belong to other weights.
    """
    optimizer.load_state_dict(state)
    for weight, moments in _state(optimizer).items():
        for name, moment in moments.items():
            if isinstance(moment, torch.Tensor) and moment.shape == weight.shape:
                moments[name] = torch.empty_like(weight, dtype=moment.dtype).copy_(moment)


def _parameters(name: str) -> tuple[str, ...]:
    """Names of what an optimiser is made with; nothing where timm has none of the name, which it says itself."""
    try:
        found = inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters
    except ValueError:
        return ()
    return tuple(key for key, each in found.items() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD))
