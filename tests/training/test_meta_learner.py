"""Two networks that teach each other: what each is given, what a gain is, and that nothing is lost after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fitting import LENGTH, bytes_of, check_goes_on, fit, losses
from nstudent.config.schema import MetaConfig, ModelConfig
from nstudent.config.training import NoiseConfig
from nstudent.data.batches import Batch
from nstudent.data.dataset import Dataset
from nstudent.distributed.world import Alone
from nstudent.errors import TrainingError
from nstudent.models.cost import gmacs
from nstudent.models.device import Placement
from nstudent.noise.steps import Mixture, Prepared
from nstudent.progress import Silence
from nstudent.training.loop import Length, Loop, Trained
from nstudent.training.meta_batches import for_student, for_teacher
from nstudent.training.meta_learner import MetaLearner
from nstudent.training.own_beliefs import WEAK
from torch import Tensor
from torchrun_processes import said, torchrun

META = MetaConfig(uda_threshold=0.0, uda_ramp=0.5)
PLAIN = NoiseConfig(shift=0.02, zoom=0.0, rotate=0.0)
STEEPEST: dict[str, Any] = {
    "optimizer": "momentum",
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "clip_norm": None,
    "warmup_epochs": 0.0,
    "schedule": "constant",
}
"""Settings with which the first step is the learning rate times the gradient."""


def batch_of(number: int = 5, num_labelled: int = 2) -> Prepared:
    """A batch whose two views are full of the number of the image, and of 100 more than that."""
    views = [torch.arange(start, start + number, dtype=torch.uint8) for start in (0, 100)]
    strong, weak = (view[:, None, None, None].expand(-1, 4, 4, 3) for view in views)
    targets = (torch.eye(number)[:, :3], torch.eye(number)[:, :2])
    counts = num_labelled, number - num_labelled
    batch = Batch(strong, targets, num_labelled, torch.arange(number) + 10, counts, {WEAK: weak})
    whole = tuple(torch.stack([level[:num_labelled].sum(0), level[num_labelled:].sum(0)]) for level in targets)
    return Prepared(batch, strong.permute(0, 3, 1, 2).float(), targets, whole)


def of_heap(*rows: list[list[float]]) -> list[Tensor]:
    return [torch.tensor(level) for level in rows]


HARD = of_heap([[1, 0, 0], [0, 1, 0], [0, 1, 0]], [[1, 0], [0, 0], [0, 1]])
SOFT = of_heap([[0.8, 0.2, 0], [0, 0, 0], [0.1, 0.9, 0]], [[0.7, 0.3], [0, 0], [0, 0]])


def test_the_student_sees_the_strong_view_of_the_heap_alone_with_hard_labels() -> None:
    seen = for_student(batch_of(), HARD, Alone())
    assert seen.images[:, 0, 0, 0].tolist() == [2, 3, 4]
    assert (seen.batch.num_labelled, seen.batch.whole_images, seen.batch.rows.tolist()) == (0, (0, 3), [12, 13, 14])
    assert all(torch.equal(ours, hard) for ours, hard in zip(seen.targets, HARD, strict=True))
    assert [whole.tolist() for whole in seen.whole_mass] == [[[0, 0, 0], [1, 2, 0]], [[0, 0], [1, 1]]]
    assert not seen.batch.views


def test_the_teacher_sees_labels_both_views_and_its_own_labels_times_what_they_were_worth() -> None:
    prepared = batch_of()
    weak = prepared.batch.views[WEAK][2:].permute(0, 3, 1, 2).float()
    seen = for_teacher(prepared, weak, SOFT, [-0.5 * level for level in HARD])
    assert seen.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 102, 103, 104]
    assert (seen.batch.num_labelled, seen.batch.whole_images) == (2, (2, 6))
    assert seen.batch.rows.tolist() == [10, 11, 12, 13, 14, 12, 13, 14]
    for given, soft, hard, ours in zip(prepared.targets, SOFT, HARD, seen.targets, strict=True):
        assert torch.equal(ours, torch.cat([given[:2], soft, -0.5 * hard]))


def test_what_mixed_images_teach_is_mixed_and_what_the_weak_view_does_is_not() -> None:
    prepared = batch_of()
    mixture = Mixture(torch.tensor([1, 0, 3, 4, 2]), 0.25)
    mixed = Prepared(
        prepared.batch, prepared.images, mixture.of(prepared.targets), prepared.whole_mass, mixture=mixture
    )
    of_student = for_student(mixed, HARD, Alone()).targets[0]
    torch.testing.assert_close(of_student, 0.75 * HARD[0] + 0.25 * HARD[0][[1, 2, 0]])
    of_teacher = for_teacher(mixed, prepared.images[2:], SOFT, HARD).targets[0]
    torch.testing.assert_close(of_teacher[:2], 0.75 * prepared.targets[0][:2] + 0.25 * prepared.targets[0][[1, 0]])
    torch.testing.assert_close(of_teacher[2:5], 0.75 * SOFT[0] + 0.25 * SOFT[0][[1, 2, 0]])
    assert torch.equal(of_teacher[5:], HARD[0])


@contextmanager
def first_batch(loop: Loop) -> Iterator[Prepared]:
    with closing(loop.feed.between(0, 1)) as batches:
        yield next(batches)


def learner_of(loop: Loop) -> MetaLearner:
    assert isinstance(loop.method, MetaLearner)
    return loop.method


def weights_of(network: torch.nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten().double() for weight in network.parameters()])


@pytest.mark.slow
def test_the_gain_of_a_step_is_to_first_order_what_the_step_goes_down_the_slope_of_the_labels(
    make_loop: Callable[..., Loop],
) -> None:
    """In a training, with batch normalisation and dropout: what the statistics have moved is no part of it.

    The head is one through which all gradients flow. The default head detaches levels from each other, so that what
    torch calls its gradient is not the whole slope.
    """
    head = ModelConfig(head="independent")
    loop = make_loop(Length(1, 1), NoiseConfig(dropout=0.3), meta=META, model=head, **STEEPEST)
    method = learner_of(loop)
    network = method.student.network
    with first_batch(loop) as prepared:
        number, statistics = prepared.batch.num_labelled, [buffer.clone() for buffer in network.buffers()]
        seen = method._placement.images(prepared.batch.views[WEAK][:number])
        network.eval()
        logits = network(seen)
        loss = torch.stack(
            [
                -(mass[:number] * level.log_softmax(dim=1)).sum() / mass[:number].sum()
                for level, mass in zip(logits, prepared.batch.targets, strict=True)
            ]
        ).mean()
        slope = torch.cat([each.flatten().double() for each in torch.autograd.grad(loss, list(network.parameters()))])
        network.train()
        before = weights_of(network)
        method.learn(prepared, 0, 0.0)
    moved = weights_of(network) - before
    assert method.epoch_figures()["meta_gain"] == pytest.approx(-float(slope.dot(moved)), rel=0.03)
    assert any(not torch.equal(now, was) for now, was in zip(network.buffers(), statistics, strict=True))


@pytest.mark.slow
def test_where_the_weights_do_not_move_nothing_is_gained(make_loop: Callable[..., Loop]) -> None:
    loop = make_loop(Length(1, 1), meta=META, **STEEPEST | {"learning_rate": 1e-12})
    method = learner_of(loop)
    with first_batch(loop) as prepared:
        method.learn(prepared, 0, 0.0)
    assert abs(method.epoch_figures()["meta_gain"]) < 1e-6
    assert method.student.network.training
    assert method.teacher.network.training


@pytest.mark.slow
@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_the_teacher_is_told_how_far_a_gain_lies_above_those_before(
    make_loop: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    """Its own labels come back times that, on the weak view; without a gain before it the first one counts in full."""
    loop = make_loop(Length(1, 2), meta=META.model_copy(update={"feedback": weight}), **STEEPEST)
    method = learner_of(loop)
    told: list[Prepared] = []
    learn = method.teacher.learn

    def spy(prepared: Prepared, step: int, done: float) -> Tensor:
        told.append(prepared)
        return learn(prepared, step, done)

    monkeypatch.setattr(method.teacher, "learn", spy)
    gains = []
    with closing(loop.feed.between(0, 2)) as batches:
        for step, prepared in enumerate(batches):
            method.learn(prepared, step, step / 2)
            gains.append(method.epoch_figures()["meta_gain"])
    for prepared, above in zip(told, (gains[0], gains[1] - gains[0]), strict=True):
        coarse = prepared.targets[0][16:]
        np.testing.assert_allclose(coarse.sum(dim=1), weight * above, rtol=1e-4, atol=1e-9)
        assert ((coarse != 0).sum(dim=1) == (1 if weight else 0)).all()
    # Consistency has begun with the second step, and is at its full weight from half of the training on.
    assert told[0].targets[0][8:16].abs().sum() == 0
    torch.testing.assert_close(told[1].targets[0][8:16].sum(dim=1), torch.ones(8))


@pytest.fixture(scope="module")
def whole(make_loop: Callable[..., Loop], tmp_path_factory: pytest.TempPathFactory) -> tuple[Loop, Trained]:
    """A training that nobody interrupts."""
    loop = make_loop(LENGTH, meta=META)
    return loop, fit(loop, tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", [1, 2, 6, 9, 12], ids=lambda steps: f"killed in step {steps} of 12")
def test_a_killed_training_goes_on_to_the_same_bits(
    killed_after: int,
    whole: tuple[Loop, Trained],
    make_loop: Callable[..., Loop],
    kill_after: Callable[[int], Silence],
    tmp_path: Path,
) -> None:
    """Both networks, their optimisers and averages, the mean of the gains, and an epoch that is half over."""
    make = partial(make_loop, LENGTH, meta=META)
    resumed = check_goes_on(make, kill_after(killed_after), tmp_path, whole, killed_after)
    ours, theirs = learner_of(resumed), learner_of(whole[0])
    for name in ("student", "teacher"):
        assert bytes_of(getattr(ours, name).network) == bytes_of(getattr(theirs, name).network)
    assert torch.equal(ours.state_dict()["mean"]["mean"], theirs.state_dict()["mean"]["mean"])


@pytest.mark.slow
def test_both_networks_and_every_look_are_counted(whole: tuple[Loop, Trained]) -> None:
    """A step has 8 labelled images, and 8 of the heap that the teacher learns from in two views, the student in one."""
    loop, trained = whole
    one = gmacs([learner_of(loop).student.network], 32)
    assert trained.spent.image_passes == 12 * (8 + 3 * 8)
    assert trained.spent.training_gmacs == pytest.approx(12 * (3 * (8 + 3 * 8) + 8 + 2 * 8) * one)
    assert set(trained.history[-1]) >= {"meta_gain", "teacher_loss", "uda_share"}
    assert trained.history[-1]["uda_share"] > 0.5


@pytest.mark.slow
def test_the_two_networks_begin_with_other_weights_and_part(whole: tuple[Loop, Trained]) -> None:
    method = learner_of(whole[0])
    assert not torch.equal(weights_of(method.student.network), weights_of(method.teacher.network))
    assert whole[1].network is method.student.kept


@pytest.mark.slow
def test_the_gains_change_what_the_teacher_learns(
    whole: tuple[Loop, Trained], make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    without = make_loop(LENGTH, meta=META.model_copy(update={"feedback": 0.0}))
    fit(without, tmp_path)
    assert bytes_of(learner_of(without).teacher.network) != bytes_of(learner_of(whole[0]).teacher.network)


@pytest.mark.slow
def test_where_memory_is_short_both_learn_in_portions(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    """Batch normalisation sees a portion at a time, so bits are not the same."""
    one, two = (make_loop(Length(3, 1), PLAIN, meta=META) for _ in range(2))
    method = learner_of(two)
    method.student.gradient.num_portions = method.teacher.gradient.num_portions = 2
    np.testing.assert_allclose(losses(fit(two, tmp_path / "two")), losses(fit(one, tmp_path / "one")), rtol=0.15)


@pytest.mark.slow
def test_in_bfloat16_it_trains(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    trained = fit(make_loop(LENGTH, PLAIN, meta=META, placement=Placement(torch.device("cpu"), "bfloat16")), tmp_path)
    assert all(np.isfinite(loss) for loss in losses(trained))


@pytest.mark.slow
@pytest.mark.parametrize("which", ["student", "teacher"])
def test_a_network_that_is_not_finite_is_named_by_its_images(
    which: str, make_loop: Callable[..., Loop], digits: Dataset, tmp_path: Path
) -> None:
    """The student learns from the heap alone; the teacher's batch has the heap twice."""
    loop = make_loop(Length(1, 1), PLAIN, meta=META)
    network = getattr(learner_of(loop), which).network
    with torch.no_grad():
        next(iter(network.head.parameters())).fill_(float("nan"))
    heap = {digits.name(int(image)) for image in digits.unlabelled}
    with pytest.raises(TrainingError, match="not a finite number") as error:
        fit(loop, tmp_path)
    count, named = (8, True) if which == "student" else (24, False)
    assert f"{count} of {count} images" in str(error.value)
    assert any(name in str(error.value) for name in heap) is named


@pytest.mark.slow
def test_two_processes_learn_what_one_does(digits: Dataset, tmp_path: Path) -> None:
    """Gains, sums of mass and the figures of the epochs are those of the whole batch."""
    script, data = Path(__file__).with_name("shared_meta.py"), digits.pixels._shards[0].parent
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = said(script, data, tmp_path / "one", "alone")
    two = said(*torchrun(2), script, data, tmp_path / "two", "several")
    assert one["history"][-1]["uda_share"] > 0
    for ours, theirs in zip(two["history"], one["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3, abs=1e-6)
