"""Activation checkpointing: fewer activations are kept, and no number of a training changes."""

import pytest
import torch
from nstudent.config.schema import ModelConfig
from nstudent.errors import ConfigError
from nstudent.models.activation_checkpointing import checkpoint_activations
from nstudent.models.network import Network, build_network
from torch import nn
from trees import outputs_of

KEY = ("member", 0)


def member(checkpointing: bool, name: str = "test_resnet") -> Network:
    return build_network(
        ModelConfig(backbones=(name,)), outputs_of(3, 4), KEY, dropout=0.2, drop_path=0.2, checkpointing=checkpointing
    ).train()


def trained(network: Network, steps: int = 3) -> dict[str, torch.Tensor]:
    """Everything a training changes: weights, gradients, statistics."""
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(network.parameters(), 0.01)
    for step in range(steps):
        optimizer.zero_grad()
        torch.manual_seed(step)
        torch.stack([level.square().sum() for level in network(images)]).sum().backward()
        optimizer.step()
    gradients = {f"gradient of {name}": weight.grad for name, weight in network.named_parameters()}
    return network.state_dict() | gradients


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_no_number_changes_nor_any_count_of_batches(name: str) -> None:
    with_it, without = trained(member(True, name)), trained(member(False, name))
    assert with_it.keys() == without.keys()
    for key, tensor in without.items():
        assert torch.equal(with_it[key], tensor), key


def test_the_average_that_validates_leaves_statistics_alone_and_training_goes_on_counting() -> None:
    network = member(True)
    trained(network)
    (norm, *_) = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = norm.running_mean.clone()
    with torch.no_grad():
        network.eval()(torch.rand(2, 3, 32, 32))
    assert torch.equal(norm.running_mean, before)
    with torch.no_grad():
        network.train()(torch.rand(2, 3, 32, 32))
    assert not torch.equal(norm.running_mean, before)
    assert norm.num_batches_tracked == 4


def kept_bytes(network: Network) -> int:
    """What the forward pass leaves for the backward pass."""
    kept = []

    def keep(tensor: nn.Parameter | torch.Tensor) -> nn.Parameter | torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda packed: packed):
        network(torch.rand(16, 3, 64, 64))
    return sum({tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}.values())


def test_less_is_kept_for_the_backward_pass() -> None:
    assert kept_bytes(member(True)) < 0.7 * kept_bytes(member(False))


def test_a_network_that_cannot_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"'mine' cannot checkpoint its activations: set checkpoint_activations=false"
    ):
        checkpoint_activations(nn.Linear(2, 2), "mine")
