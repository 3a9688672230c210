"""One gradient, whatever the batch is cut into and whoever has the rest of it."""

from collections.abc import Callable
from contextlib import closing

import pytest
import torch
from fitting import LENGTH, MILD, supervised
from nstudent.config.schema import ModelConfig, TrainingConfig
from nstudent.data.batches import Examples
from nstudent.data.dataset import Dataset
from nstudent.distributed.world import IndependentJob
from nstudent.labels.targets import GivenTargets
from nstudent.models.device import Placement
from nstudent.models.network import build_network
from nstudent.taxonomy.outputs import Outputs
from nstudent.training.build import Lesson, Site, build_loop
from nstudent.training.loop import Length, Loop


def test_the_losses_of_shares_add_up_to_that_of_the_batch(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process divides by the targets of the whole batch: its labelled images, and apart from them the others."""
    outputs, key, noise = Outputs(digits.taxonomy), ("shares", 0), MILD
    ids = digits.labelled
    parts = [
        (Examples(part, GivenTargets(digits.labels[part], outputs)), size)
        for part, size in ((ids[:30], 7), (ids[30:], 9))
    ]
    objective = supervised(outputs, (1.0, 2.0, 1.0), unlabelled_weight=0.5)

    # There are no other processes here: each has its share, and nobody adds them up.
    monkeypatch.setattr("nstudent.training.gradient.shared", lambda network, world: network)
    monkeypatch.setattr("nstudent.training.gradient.sum_over", lambda world, loss: loss)

    def loss(rank: int, size: int) -> float:
        network = build_network(ModelConfig(backbones=("test_convnext",)), outputs, key)
        site = Site(
            Placement(torch.device("cpu"), "float32"),
            digits.pixels,
            digits.taxonomy.levels,
            digits.name,
            world=IndependentJob(rank, size),
        )
        config = TrainingConfig(batch_size=7, noise=noise)
        loop = build_loop(network, Lesson(parts, objective, Length(2, 1)), config, site, key)
        with closing(loop.feed.between(0, 1)) as prepared:
            return loop.method.gradient.learnt(0.0, next(prepared)).loss.item()

    assert loss(0, 2) + loss(1, 2) == pytest.approx(loss(0, 1), rel=1e-5)


def test_a_gradient_is_shortened_where_it_is_too_long_and_only_there(make_loop: Callable[..., Loop]) -> None:
    found = []
    for clip_norm in (None, 1e9, 1e-3):
        loop = make_loop(LENGTH, MILD, clip_norm=clip_norm)
        with closing(loop.feed.between(0, 1)) as prepared:
            loop.take(next(prepared))
        found.append(torch.cat([weight.grad.flatten() for weight in loop.method.network.parameters()]))
    whole, kept, shortened = found
    assert whole.norm() > 0.1
    assert torch.equal(kept, whole)
    torch.testing.assert_close(shortened, 1e-3 * whole / whole.norm(), rtol=1e-4, atol=0.0)


def test_processes_that_share_a_batch_draw_different_dropout(
    make_loop: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    gradient, drawn = make_loop(LENGTH).method.gradient, []
    for rank in range(3):
        monkeypatch.setattr(gradient, "_world", IndependentJob(rank, 3))
        for step in (0, 1):
            gradient.seed(step)
            drawn.append(torch.rand(1).item())
    assert len(set(drawn)) == 6
