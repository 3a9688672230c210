"""One gradient, whatever the batch is cut into and whoever has the rest of it."""

from contextlib import closing

import pytest
import torch
from fitting import LENGTH, MILD
from nstudent.config import ModelConfig, TrainingConfig
from nstudent.data.augment import Augment
from nstudent.data.batches import Batches, Examples
from nstudent.labels.targets import GivenTargets
from nstudent.models.device import Placement
from nstudent.models.member import build_member
from nstudent.outputs import Outputs
from nstudent.training.fit import Length, Trainer
from nstudent.training.objective import Supervised
from nstudent.world import Part


def test_the_losses_of_shares_add_up_to_that_of_the_batch(digits):
    """Each process divides by the targets of the whole batch: its labelled images, and apart from them the others."""
    outputs, key, noise = Outputs(digits.taxonomy), ("shares", 0), MILD
    ids = digits.labelled
    parts = [
        (Examples(part, GivenTargets(digits.labels[part], outputs)), size)
        for part, size in ((ids[:30], 7), (ids[30:], 9))
    ]
    objective = Supervised([torch.ones(size) for size in outputs.sizes], (1.0, 2.0, 1.0), 0.1, unlabelled_weight=0.5)

    def loss(rank, size):
        trainer = Trainer(
            build_member(ModelConfig(backbones=("test_convnext",)), outputs, key),
            Batches(digits.pixels, parts, Augment(noise), key, share=(rank, size)),
            objective,
            TrainingConfig(batch_size=7, noise=noise),
            Length(2, 1),
            Placement(torch.device("cpu"), "float32"),
            key,
            levels=digits.taxonomy.levels,
            name_of=digits.name,
        )
        with closing(trainer.prepared(1)) as prepared:
            return trainer._gradient.learnt(0.0, next(prepared)).loss.item()

    assert loss(0, 2) + loss(1, 2) == pytest.approx(loss(0, 1), rel=1e-5)


def test_a_gradient_is_shortened_where_it_is_too_long_and_only_there(make_trainer):
    found = []
    for clip_norm in (None, 1e9, 1e-3):
        trainer = make_trainer(LENGTH, MILD, clip_norm=clip_norm)
        with closing(trainer.prepared(1)) as prepared:
            trainer._train_step(next(prepared))
        found.append(torch.cat([weight.grad.flatten() for weight in trainer.trained_member.parameters()]))
    whole, kept, shortened = found
    assert whole.norm() > 0.1
    assert torch.equal(kept, whole)
    torch.testing.assert_close(shortened, 1e-3 * whole / whole.norm(), rtol=1e-4, atol=0.0)


def test_processes_that_share_a_batch_draw_different_dropout(make_trainer, monkeypatch):
    gradient, drawn = make_trainer(LENGTH)._gradient, []
    for rank in range(3):
        monkeypatch.setattr(gradient, "_world", Part(rank, 3))
        for step in (0, 1):
            gradient.seed(step)
            drawn.append(torch.rand(1).item())
    assert len(set(drawn)) == 6
