"""Stems for small images: networks made for 224 px that keep the side of an image of about 32 px for longer.

Most convolutional networks of timm divide the side by four before their first stage and by 32 in all: an image of 32 px
ends in a single pixel. On CIFAR such networks are used without their first two halvings (He et al., arXiv 1512.03385,
section 4.2), so that it ends in 4 x 4. No weight changes its shape by that: pretrained ones fit as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from nstudent.errors import ConfigError
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

_TRIED_SIDE_PX = 64
"""Side of the image, without content, that is sent through a network to see where it is halved."""
_HALVINGS = 2
"""Number of halvings of the side that a small stem leaves out."""


@dataclass(frozen=True)
class _Halving:
    """A layer that makes the side of its input smaller."""

    name: str
    layer: nn.Module
    side_before: int


def keep_side(network: nn.Module, name: str) -> None:
    """Take the first two halvings of the side out of a timm network, in place.

    The first convolution gets stride 1. The layer that halves the side next is the max-pool in networks that have one
    (ResNet, ResNeXt, DenseNet), which is left out; in the others (EfficientNet, MobileNet, ReXNet, RegNet) it is a
    convolution, with that of the shortcut beside it, and gets stride 1. Which layers these are is read from the sides
    of the maps as they pass through the network, not from names.

    Args:
        network: A timm network without its classifier.
        name: Its name, for messages.

    Raises:
        ConfigError: The network has no such stem: its first layer cuts the image into patches, or keeps the side.
    """
    was_training = network.training
    network.eval()
    try:
        halvings, before = _tried(network)
        for layer in _stem(halvings, name):
            if isinstance(layer.layer, nn.Conv2d):
                layer.layer.stride = (1, 1)
            else:
                network.set_submodule(layer.name, nn.Identity())
        _, after = _tried(network)
    except (RuntimeError, AssertionError, AttributeError, ValueError, TypeError) as error:
        raise _refused(name) from error
    finally:
        network.train(was_training)
    if after != 2**_HALVINGS * before:
        raise _refused(name)


def _stem(halvings: Sequence[_Halving], name: str) -> Iterator[_Halving]:
    """The layers of the first two halvings.

    Raises:
        ConfigError: The first one is not a convolution on the image whose windows overlap, or there is no second one.
    """
    sides = [_TRIED_SIDE_PX // 2**number for number in range(_HALVINGS)]
    groups = [[layer for layer in halvings if layer.side_before == side] for side in sides]
    if not all(groups) or not any(_overlaps(layer.layer) for layer in groups[0]):
        raise _refused(name)
    for group in groups:
        yield from group


def _overlaps(layer: nn.Module) -> bool:
    """Whether it is a convolution whose windows overlap: others cut an image into patches."""
    return isinstance(layer, nn.Conv2d) and layer.kernel_size[0] > layer.stride[0]


def _refused(name: str) -> ConfigError:
    return ConfigError(
        f"'{name}' has no stem that could be made small (a first convolution with overlapping windows that halves the "
        "side, and another halving after it): set stem to timm, or choose a network like resnet18, efficientnet_lite0 "
        "or wrn_28_2 (which keeps the side by itself)"
    )


def _tried(network: nn.Module) -> tuple[list[_Halving], int]:
    """The layers that halve the side, in the order in which they are used, and the side of the final map.

    Costs no memory and hardly any time: only shapes are computed.
    """
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    shapes = {f"network.{name}": tensor.to("meta") for name, tensor in tensors.items()}
    image = torch.empty(1, 3, _TRIED_SIDE_PX, _TRIED_SIDE_PX, device="meta")
    halvings: list[_Halving] = []
    with _noted(network, halvings), torch.no_grad():
        final: Tensor = functional_call(_Features(network), shapes, (image,))
    # A network of patches gives rows of features and no map.
    return halvings, final.shape[-1] if final.ndim == 4 else 0


class _Features(nn.Module):
    """The final map of a timm network, as a module of its own: ``functional_call`` wants to call one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(1, 3, side, side) -> (1, channels, final side, final side)."""
        final: Tensor = self.network.forward_features(images)  # type: ignore[operator]
        return final


@contextmanager
def _noted(network: nn.Module, halvings: list[_Halving]) -> Iterator[None]:
    """While it lasts, layers that make the side smaller are noted."""
    hooks: list[RemovableHandle] = []
    for name, layer in network.named_modules():
        # What holds other layers is not itself a layer; an average over the whole map has no stride.
        if hasattr(layer, "stride") and not any(layer.children()):
            hooks.append(layer.register_forward_hook(_noting(name, halvings)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _noting(name: str, halvings: list[_Halving]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def note(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        before, after = inputs[0].shape[-1], out.shape[-1]
        if after < before:
            halvings.append(_Halving(name, layer, before))

    return note
