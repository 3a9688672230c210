"""Trainings in phases, with other choices: what learns when, what it costs, and that a kill changes nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import bytes_of, fit
from nstudent.config.schema import ModelConfig, NoiseConfig, TrainingConfig
from nstudent.data.dataset import Dataset
from nstudent.models.cost import gmacs
from nstudent.models.network import build_network
from nstudent.progress import Silence
from nstudent.training.finish import late_layers, train_late_layers
from nstudent.training.growth import Growth
from nstudent.training.loop import Length, Loop
from torch import nn
from torchrun_processes import said, torchrun
from trees import outputs_of

LENGTH = Length(epochs=4, steps_per_epoch=3)
NOISE = NoiseConfig(operations=1, erase=0.3, cutout=0.1, dropout=0.2, cutmix=0.5, cutmix_schedule="constant")
PHASES = {"train_image_size": 24, "progressive_stages": 2, "finish_epochs": 1}
CHOICES = {
    "phases and a lookahead": {**PHASES, "optimizer": "lookahead_adamw"},
    "phases, agc and plateau": {
        **PHASES,
        "clip": "agc",
        "schedule": "plateau",
        "plateau_patience": 0,
        "optimizer": "sgd",
        "optimizer_options": {"momentum": 0.8},
    },
    "layers, a faster head and steps": {
        **PHASES,
        "layer_decay": 0.7,
        "head_rate": 3.0,
        "schedule": "step",
        "step_epochs": 1.0,
    },
}


def phased(make_loop: Callable[..., Loop], **settings: Any) -> Loop:
    growth = Growth.of(TrainingConfig.model_validate(settings), 32, LENGTH.epochs, LENGTH.steps_per_epoch)
    lesson = {"weakened": growth.weakened, "side_at": growth.side_at}
    return make_loop(LENGTH, NOISE, lesson=lesson, **settings)


def score(network: nn.Module) -> float:
    """A score that rises and falls with the weights, as one on validation does."""
    first = next(network.parameters()).detach()
    return float(first.sum().sin().abs())


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("killed_after", [4, 9, 10])
def test_a_killed_training_of_any_choice_goes_on_to_the_same_bits(
    choice: str,
    killed_after: int,
    make_loop: Callable[..., Loop],
    kill_after: Callable[[int], Silence],
    tmp_path: Path,
) -> None:
    """In the second stage, before the first step of the finish, and after it."""
    whole = phased(make_loop, **CHOICES[choice])
    expected = fit(whole, tmp_path / "whole", validate=score)
    with pytest.raises(KeyboardInterrupt):
        fit(phased(make_loop, **CHOICES[choice]), tmp_path / "cut", kill_after(killed_after), validate=score)
    again = phased(make_loop, **CHOICES[choice])
    resumed = fit(again, tmp_path / "cut", validate=score)
    assert bytes_of(resumed.network) == bytes_of(expected.network)
    assert bytes_of(again.method.network) == bytes_of(whole.method.network)
    assert resumed.history == expected.history
    assert resumed.spent == expected.spent


@pytest.mark.slow
def test_in_the_finish_the_late_layers_alone_change_and_begin_from_the_average(
    make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    loop = phased(make_loop, **PHASES)
    kept: dict[int, dict[str, bytes]] = {}
    fit(loop, tmp_path, tell=lambda entry: kept.update({int(entry["epoch"]): bytes_of(loop.method.kept)}))
    before, after = kept[3], kept[4]
    late = {
        id(tensor) for layer in late_layers(loop.method.kept) for tensor in layer.state_dict(keep_vars=True).values()
    }
    names = {name for name, tensor in loop.method.kept.state_dict(keep_vars=True).items() if id(tensor) in late}
    changed = {name for name in after if after[name] != before[name]}
    assert changed == names
    assert {name.partition(".")[0] for name in names} == {"head", "backbones"}
    now = bytes_of(loop.method.network)
    assert all(now[name] == before[name] for name in set(now) - names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "steps"),
    [
        ("lookahead_sgd", lambda optimizer: optimizer.param_groups[0]["lookahead_step"]),
        ("adagrad", lambda optimizer: max(int(state["step"]) for state in optimizer.state.values())),
    ],
)
def test_the_optimiser_begins_anew_with_the_finish(
    optimizer: str, steps: Callable[[Any], int], make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    """Whatever it remembers of the steps before, and wherever it does: slow weights of before would pull it back."""
    loop = phased(make_loop, **PHASES, optimizer=optimizer)
    counted = []
    fit(loop, tmp_path, tell=lambda entry: counted.append(steps(loop.method.optimizer)))
    assert counted == [3, 6, 9, 3]


@pytest.mark.slow
def test_the_cost_counts_each_size_and_a_finish_as_a_way_forward(
    make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    loop = phased(make_loop, **PHASES)
    trained = fit(loop, tmp_path)
    cost = {side: gmacs([loop.method.network], side) for side in (18, 24, 32)}
    assert trained.spent.image_passes == 12 * 8
    # Nine steps before the finish: five of the first stage and four of the second.
    expected = 8 * (5 * 3 * cost[18] + 4 * 3 * cost[24] + 3 * cost[32])
    assert trained.spent.training_gmacs == pytest.approx(expected)


@pytest.mark.parametrize(
    ("backbone", "layer"),
    [
        ("test_resnet", "layer4.0.bn2"),
        ("test_vit", "norm"),
        ("test_convnext", "head.norm"),
        ("test_efficientnet", "bn2"),
        # Normalisations that only timm has: RmsNorm and EvoNorm.
        ("test_vit4", "fc_norm"),
        ("test_efficientnet_evos", "bn2"),
        ("vgg11", None),
    ],
)
def test_the_late_layers_are_the_head_and_the_last_normalisation_of_each_backbone(
    backbone: str, layer: str | None
) -> None:
    model = ModelConfig(backbones=(backbone,), backbone_options={}, wide_channels=4)
    network = build_network(model, outputs_of(2, 3), ("key",))
    train_late_layers(network)
    learning = {name for name, weight in network.named_parameters() if weight.requires_grad}
    of_backbones = {name.rpartition(".")[0] for name in learning if not name.startswith("head.")}
    assert of_backbones == {"backbones.1.layers.1", *([f"backbones.0.network.{layer}"] if layer else [])}
    assert {name for name, _ in network.named_parameters() if name.startswith("head.")} <= learning
    assert network.head.training
    assert not network.dropout.training


@pytest.mark.slow
def test_layers_that_no_longer_learn_stay_as_they_are_also_where_activations_are_computed_twice() -> None:
    """Batch normalisations count passes; those of frozen layers are not counted, and not taken back either."""
    network = build_network(ModelConfig(), outputs_of(2, 3), ("key",), checkpointing=True).train()
    images = torch.ones(2, 3, 32, 32)
    network(images)
    train_late_layers(network)
    before = bytes_of(network)
    torch.stack([level.square().sum() for level in network(images)]).sum().backward()  # type: ignore[no-untyped-call]
    changed = {name.rpartition(".")[0] for name, now in bytes_of(network).items() if now != before[name]}
    assert changed == {"backbones.0.network.layer4.0.bn2"}


@pytest.mark.slow
def test_two_processes_that_are_resumed_in_the_finish_end_like_two_that_are_not(
    digits: Dataset, tmp_path: Path
) -> None:
    script = Path(__file__).with_name("shared_phases.py")
    found = said(*torchrun(2), script, digits.pixels._shards[0].parent, tmp_path)
    assert found["numbers"] > 100_000
    assert found["different"] == 0
    assert found["alike"] is True
