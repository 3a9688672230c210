from copy import deepcopy

import pytest
import torch
from nstudent.config.schema import ModelConfig, TrainingConfig
from nstudent.models.network import build_network
from nstudent.training.optimizer import build_optimizer, resume_optimizer
from torch import nn
from trees import outputs_of


@pytest.mark.parametrize(
    ("name", "fused"), [("adamw", True), ("sgd", True), ("lamb", False), ("lookahead_adamw", False)]
)
def test_fused_where_torch_promises_it_and_the_optimizer_can(name: str, fused: bool) -> None:
    config = TrainingConfig(optimizer=name)
    # Fused optimisers look at their weights only when they take a step: no GPU is needed to build one.
    for device in ("cuda", "cpu"):
        assert bool(build_optimizer(nn.Linear(2, 2), config, torch.device(device)).defaults.get("fused")) is fused
    assert not build_optimizer(nn.Linear(2, 2), config, torch.device("mps")).defaults.get("fused")


def test_what_is_decayed_and_learnt_is_what_the_configuration_says() -> None:
    optimizer = build_optimizer(
        nn.Linear(2, 2), TrainingConfig(learning_rate=0.1, weight_decay=0.3), torch.device("cpu")
    )
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.3]
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}


def test_tokens_and_positions_of_a_transformer_do_not_decay() -> None:
    model = ModelConfig(backbones=("test_resnet", "test_vit"), backbone_options={}, wide_channels=4)
    network = build_network(model, outputs_of(2, 3), ("key",))
    optimizer = build_optimizer(network, TrainingConfig(weight_decay=0.3), torch.device("cpu"))
    decay = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    decays = {name: decay[id(weight)] > 0 for name, weight in network.named_parameters()}
    tokens = {name for name in decays if name.endswith(("cls_token", "pos_embed", "reg_token"))}
    assert tokens
    assert not any(decays[name] for name in tokens)
    assert all(is_decayed for name, is_decayed in decays.items() if name.endswith("conv1.weight"))
    # Matrices decay, biases and scales do not.
    of_others = {name for name in decays if name not in tokens}
    assert {name for name in of_others if decays[name]} == {
        name for name, weight in network.named_parameters() if name in of_others and weight.ndim > 1
    }


def test_what_is_loaded_lies_in_memory_as_the_weights_do() -> None:
    """A fused step goes through memory: there contiguous moments are those of other channels-last weights."""
    layer = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(layer, TrainingConfig(), torch.device("cpu"))

    def step() -> None:
        layer.weight.grad = (
            torch.arange(layer.weight.numel())
            .reshape_as(layer.weight)
            .float()
            .contiguous(memory_format=torch.channels_last)
        )
        optimizer.step()

    step()
    weight, state = layer.weight.detach().clone(), optimizer.state_dict()
    as_from_a_file = deepcopy(state)
    for moments in as_from_a_file["state"].values():
        moments.update({name: moment.contiguous() for name, moment in moments.items()})
    step()
    expected = layer.weight.detach().clone()
    layer.weight.data.copy_(weight)
    resume_optimizer(optimizer, as_from_a_file)
    step()
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=0, atol=0)
