import pytest
import torch
from nstudent.config import TrainingConfig
from nstudent.training.optimizer import build_optimizer
from torch import nn


@pytest.mark.parametrize(
    ("name", "fused"), [("adamw", True), ("sgd", True), ("lamb", False), ("lookahead_adamw", False)]
)
def test_fused_where_it_is_a_gpu_and_the_optimizer_can(name, fused):
    config = TrainingConfig(optimizer=name)
    # Fused optimisers look at their weights only when they take a step: no GPU is needed to build one.
    on_gpu = build_optimizer(nn.Linear(2, 2), config, torch.device("cuda"))
    here = build_optimizer(nn.Linear(2, 2), config, torch.device("cpu"))
    assert bool(on_gpu.defaults.get("fused")) is fused
    assert not here.defaults.get("fused")


def test_what_is_decayed_and_learnt_is_what_the_configuration_says():
    optimizer = build_optimizer(
        nn.Linear(2, 2), TrainingConfig(learning_rate=0.1, weight_decay=0.3), torch.device("cpu")
    )
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.3]
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}
