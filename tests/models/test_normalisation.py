"""Which layers normalise."""

import inspect

import pytest
import timm
import torch
from nstudent.models.normalisation import is_normalisation
from timm.layers import evo_norm, filter_response_norm, inplace_abn, norm, norm_act, split_batchnorm
from torch import nn


def _own_classes() -> list[type[nn.Module]]:
    return [
        each
        for module in (norm, norm_act, evo_norm, filter_response_norm, inplace_abn, split_batchnorm)
        for each in vars(module).values()
        if inspect.isclass(each) and issubclass(each, nn.Module) and each.__module__ == module.__name__
    ]


@pytest.mark.parametrize("kind", _own_classes(), ids=lambda kind: str(kind.__name__))
def test_every_normalisation_of_timm_is_one(kind: type[nn.Module]) -> None:
    """Without its constructor: some need a GPU's package, and the class is what counts."""
    assert is_normalisation(kind.__new__(kind))


@pytest.mark.parametrize("layer", [nn.Conv2d(1, 1, 1), nn.Linear(1, 1), nn.Dropout(), nn.Identity(), nn.ReLU()])
def test_other_layers_are_none(layer: nn.Module) -> None:
    assert not is_normalisation(layer)


@pytest.mark.parametrize("layer", [nn.RMSNorm(4), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)])
def test_those_of_torch_are(layer: nn.Module) -> None:
    assert is_normalisation(layer)


@pytest.mark.parametrize("name", ["test_vit4", "test_efficientnet_evos", "test_convnext3", "resmlp_12_224"])
def test_no_layer_that_calls_itself_one_is_missed(name: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0)
    found = [layer for layer in network.modules() if is_normalisation(layer)]
    assert len(found) > 4
    called = [layer for layer in network.modules() if type(layer).__name__ in ("RmsNorm", "EvoNorm2dS0", "Affine")]
    assert set(called) <= set(found)
