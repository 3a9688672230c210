"""Optimisers by name, their options, and how fast each layer learns."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from nstudent.config.schema import ModelConfig, TrainingConfig
from nstudent.errors import ConfigError
from nstudent.models.network import build_network
from nstudent.training.checkpoint import load_checkpoint, save_checkpoint
from nstudent.training.optimizer import build_optimizer, forget, resume_optimizer
from timm.optim import list_optimizers, param_groups_layer_decay
from torch import nn
from torch.nn.functional import cross_entropy
from trees import outputs_of

CPU = torch.device("cpu")
ELSEWHERE = ("bnb", "fused", "adahessian", "kron", "adafactorbv", "cadafactorbv")
"""How optimisers begin that a trial refuses: they need another package or a gradient of the gradient, or keep what no
checkpoint holds (a generator of their own, a type of tensors)."""
NAMED = ("sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw")
WRAPPED = ("lookahead_sgd", "lookahead_adagrad", "lookahead_adamw", "lookahead_muon")
NAMES = sorted(name for name in list_optimizers() if not name.startswith(ELSEWHERE)) + list(WRAPPED)
RATES = {"adadelta": 30.0, "lars": 0.3, "nlars": 0.3}


class Learning:
    """A small network that learns three clouds of points by heart."""

    def __init__(self, **settings: Any) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 3))
        self.points = torch.randn(48, 4)
        self.labels = torch.arange(48) % 3
        self.points += 2 * torch.randn(3, 4)[self.labels]
        self.optimizer = self.new_optimizer(self.network, **settings)

    @staticmethod
    def new_optimizer(network: nn.Module, **settings: Any) -> torch.optim.Optimizer:
        return build_optimizer(network, TrainingConfig.model_validate(settings), CPU)

    def step(self) -> float:
        loss = cross_entropy(self.network(self.points), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def steps(self, number: int) -> list[float]:
        return [self.step() for _ in range(number)]


def test_the_optimizers_of_the_overview_are_there() -> None:
    assert set(NAMED) <= set(NAMES)
    assert build_optimizer(nn.Linear(2, 2), TrainingConfig(optimizer="sgd"), CPU).defaults["nesterov"]
    assert not build_optimizer(nn.Linear(2, 2), TrainingConfig(optimizer="momentum"), CPU).defaults["nesterov"]


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_reduces_a_loss_and_goes_on_from_a_checkpoint(name: str, tmp_path: Path) -> None:
    settings = {"optimizer": name, "learning_rate": RATES.get(name, 0.01)}
    whole, cut, again = (Learning(**settings) for _ in range(3))
    losses = whole.steps(40)
    assert losses[-1] < 0.9 * losses[0]
    torch.manual_seed(1)
    cut.steps(5)
    save_checkpoint(tmp_path / "cut", {"network": cut.network.state_dict(), "optimizer": cut.optimizer.state_dict()})
    state = load_checkpoint(tmp_path / "cut", print)
    assert state is not None
    again.network.load_state_dict(state["network"])
    resume_optimizer(again.optimizer, state["optimizer"])
    for learning in (cut, again):
        torch.manual_seed(2)
        learning.steps(5)
    for one, other in zip(cut.network.parameters(), again.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_that_forgets_goes_on_as_a_new_one(name: str) -> None:
    """Also those that count steps in their groups, remember something from the start, or wrap another."""
    old, new = (Learning(optimizer=name, learning_rate=RATES.get(name, 0.01)) for _ in range(2))
    old.steps(7)
    forget(old.optimizer, Learning.new_optimizer(old.network, optimizer=name, learning_rate=RATES.get(name, 0.01)))
    new.network.load_state_dict(old.network.state_dict())
    for learning in (old, new):
        torch.manual_seed(2)
        learning.steps(7)
    for one, other in zip(old.network.parameters(), new.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "own"),
    [("foo_adamw", "adamw"), ("lookahead_foo_sgd", "sgd"), ("_Lamb", "lamb"), ("lookahead_lookahead_sgd", "sgd")],
)
def test_what_timm_would_pass_over_in_a_name_is_an_error_that_says_so(name: str, own: str) -> None:
    with pytest.raises(ConfigError, match=f"optimizer is '{name}', .* '{own}' alone: write {own}, or lookahead_{own}$"):
        build_optimizer(nn.Linear(2, 2), TrainingConfig(optimizer=name), CPU)


@pytest.mark.parametrize("name", ["AdamW", "Lookahead_AdamW"])
def test_capital_letters_in_a_name_do_not_matter(name: str) -> None:
    config = TrainingConfig(optimizer=name, optimizer_options={"betas": (0.8, 0.9)})
    assert build_optimizer(nn.Linear(2, 2), config, CPU).param_groups[0]["betas"] == (0.8, 0.9)


@pytest.mark.parametrize(
    ("name", "options", "group"),
    [
        ("sgd", {"momentum": 0.5, "nesterov": False}, {"momentum": 0.5, "nesterov": False}),
        ("adamw", {"betas": [0.8, 0.99], "eps": 1e-6}, {"betas": (0.8, 0.99), "eps": 1e-6}),
        ("rmsprop", {"alpha": 0.9, "centered": True}, {"alpha": 0.9, "centered": True}),
        ("lookahead_adamw", {"betas": [0.8, 0.99]}, {"betas": (0.8, 0.99)}),
    ],
)
def test_the_options_of_an_optimizer_reach_it(name: str, options: dict[str, Any], group: dict[str, Any]) -> None:
    config = TrainingConfig.model_validate({"optimizer": name, "optimizer_options": options})
    made = build_optimizer(nn.Linear(2, 2), config, CPU).param_groups[0]
    assert {key: tuple(made[key]) if key == "betas" else made[key] for key in group} == group


@pytest.mark.parametrize("option", ["betas", "lr", "weight_decay", "fused", "foreach", "maximize", "params"])
def test_an_option_that_an_optimizer_does_not_take_is_an_error_that_lists_those_it_does(option: str) -> None:
    config = TrainingConfig.model_validate({"optimizer": "sgd", "optimizer_options": {option: True}})
    with pytest.raises(
        ConfigError, match=f"optimizer_options: .*'sgd' takes no '{option}': choose from dampening, momentum, nesterov$"
    ):
        build_optimizer(nn.Linear(2, 2), config, CPU)


def scales(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    """By the name of a weight: how many times as fast it learns, and how it decays."""
    found = {id(w): (g["lr_scale"], g["weight_decay"]) for g in optimizer.param_groups for w in g["params"]}
    return {name: found[id(weight)] for name, weight in network.named_parameters()}


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet"])
def test_layers_learn_and_decay_as_timm_has_it_for_the_whole_network(backbone: str) -> None:
    model = ModelConfig(backbones=(backbone,), backbone_options={})
    network = build_network(model, outputs_of(2, 3), ("key",))
    config = TrainingConfig(weight_decay=0.3, layer_decay=0.5)
    made = scales(network, build_optimizer(network, config, CPU))
    whole = timm.create_model(backbone, num_classes=5)
    groups = param_groups_layer_decay(
        whole, 0.3, whole.no_weight_decay() if backbone == "test_vit" else (), layer_decay=0.5
    )
    timms = {id(w): (g["lr_scale"], g["weight_decay"]) for g in groups for w in g["params"]}
    own = {name for name in made if name.startswith("backbones.")}
    prefix = "backbones.0.network."
    assert len(own) > 40
    named = dict(whole.named_parameters())
    assert {name: made[name] for name in own} == {name: timms[id(named[name.removeprefix(prefix)])] for name in own}
    assert {scale for name, (scale, _) in made.items() if name not in own} == {1.0}


def test_the_layers_of_a_wide_residual_network_are_its_stem_and_its_blocks() -> None:
    network = build_network(ModelConfig(backbones=("wrn_28_2",)), outputs_of(2, 3), ("key",))
    made = scales(network, build_optimizer(network, TrainingConfig(layer_decay=0.5), CPU))
    own = {name.removeprefix("backbones.0.network."): scale for name, (scale, _) in made.items() if "head" not in name}
    assert own.pop("stem.weight") == 0.5**13
    assert own.pop("norm.weight") == own.pop("norm.bias") == 0.5
    assert own == {name: 0.5 ** (12 - int(name.split(".")[1])) for name in own}
    assert len(own) == 12 * 6 + 3, "two norms and two convolutions a block, and a shortcut a group"


@pytest.mark.parametrize("backbone", ["pit_ti_224", "poolformer_s12"])
def test_a_backbone_whose_layers_timm_cannot_tell_is_refused_with_a_decay_over_them(backbone: str) -> None:
    """timm would take its parameters by the dozen."""
    model = ModelConfig(backbones=("test_resnet", backbone))
    with torch.device("meta"):
        network = build_network(model, outputs_of(2, 3), ("key",))
    with pytest.raises(ConfigError, match=f"layer_decay: timm does not say which layers '{backbone}' has: set layer_"):
        build_optimizer(network, TrainingConfig(layer_decay=0.9), CPU)
    made = scales(network, build_optimizer(network, TrainingConfig(head_rate=3.0), CPU))
    assert {scale for name, (scale, _) in made.items() if not name.startswith("head.")} == {1.0}


def test_each_of_several_backbones_counts_its_own_layers_and_the_head_learns_faster() -> None:
    model = ModelConfig(backbones=("test_resnet", "test_vit"), backbone_options={}, wide_channels=4)
    network = build_network(model, outputs_of(2, 3), ("key",))
    config = TrainingConfig(weight_decay=0.3, layer_decay=0.5, head_rate=10.0)
    optimizer = build_optimizer(network, config, CPU)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))
    made = scales(network, optimizer)
    for number in (0, 1):
        assert max(scale for name, (scale, _) in made.items() if name.startswith(f"backbones.{number}.")) == 0.5
    assert {scale for name, (scale, _) in made.items() if name.startswith("backbones.2.")} == {1.0}
    assert {scale for name, (scale, _) in made.items() if name.startswith("head.")} == {10.0}
    weights = dict(network.named_parameters())
    for name, (_, decay) in made.items():
        is_token = name.endswith(("cls_token", "pos_embed", "reg_token"))
        assert decay == (0.0 if is_token or weights[name].ndim < 2 else 0.3), name
    assert any(name.endswith("pos_embed") for name in made)


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
