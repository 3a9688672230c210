"""Steps that are recorded and replayed. On a CPU a stand-in records: it keeps the work and does it again when asked."""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nstudent.config.schema import NoiseConfig
from nstudent.data.batches import Batch
from nstudent.data.dataset import Dataset
from nstudent.distributed.world import Alone
from nstudent.errors import TrainingError
from nstudent.models.device import Placement, _choose_kernels
from nstudent.progress import Progress, Silence
from nstudent.training.cross_entropy import CrossEntropy
from nstudent.training.gradient import Learnt
from nstudent.training.loop import Length, Loop
from nstudent.training.objective import Moment, Supervised
from nstudent.training.recording import Recording, can_be_recorded
from torch import nn

NOISY = NoiseConfig(dropout=0.3, drop_path=0.2, cutmix=0.5, cutmix_schedule="constant")
LENGTH = Length(epochs=4, steps_per_epoch=3)
SILENCE = Silence()


class Listener(Silence):
    def __init__(self) -> None:
        self.said = []

    def say(self, text: str) -> None:
        self.said.append(text)


def fit(loop: Loop, folder: Path, progress: Progress | None = None) -> tuple[list[float], list[nn.Parameter]]:
    folder.mkdir(exist_ok=True)
    trained = loop.fit(folder / "checkpoint.safetensors", progress or Silence(), "member")
    return [entry["loss"] for entry in trained.history], list(trained.network.parameters())


def recorded(
    loop: Loop, record: Callable[[Callable[[], None]], Callable[[], None]], say: Callable[[str], None] = SILENCE.say
) -> Loop:
    """The loop with a recording that ``record`` makes."""
    learner = loop.method
    learner.finite.asks_always = True
    learner.recording = Recording(learner.gradient, learner.optimizer, learner.finite, say, record)
    return loop


class Again:
    """Does the recorded work at every replay, but not when it is recorded."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.replays = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        network, optimizer = self.loop.method.network, self.loop.method.optimizer
        state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        moments = {id(w): {k: v.clone() for k, v in each.items()} for w, each in optimizer.state.items()}
        work()
        network.load_state_dict(state)
        for weight, each in optimizer.state.items():
            for name, moment in each.items():
                moment.copy_(moments[id(weight)][name])
        rates = [group["lr"] for group in optimizer.param_groups]

        def replay() -> None:
            self.replays += 1
            self.loop.method.gradient.clear()
            before = [group["lr"] for group in optimizer.param_groups]
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            # A GPU would write to the tensors that were there when it was recorded.
            learnt, figures, largest = self.cells(work)
            for group, rate in zip(optimizer.param_groups, before, strict=True):
                group["lr"] = rate
            held = self.loop.method.recording._recorded
            held.loss.copy_(learnt.loss)
            held.figures.copy_(figures)
            held.largest.copy_(largest)

        return replay

    def cells(self, work: Callable[[], None]) -> tuple[Learnt, torch.Tensor, torch.Tensor]:
        work()
        (made,) = [cell.cell_contents for cell in work.__closure__ if isinstance(cell.cell_contents, list)]
        return made[-1]


@pytest.mark.slow
def test_recorded_steps_learn_what_others_learn(
    make_loop: Callable[..., Loop], digits: Dataset, tmp_path: Path
) -> None:
    # Classes of unequal weight: each batch has its own sum of weights, which its loss is divided by.
    weights = [torch.linspace(0.1, 3.0, size) for size in digits.taxonomy.num_classes]
    uneven = Supervised(CrossEntropy(weights), CrossEntropy(weights), (1.0, 1.0, 1.0))
    plain = fit(make_loop(LENGTH, NOISY, objective=uneven), tmp_path / "plain")
    loop = make_loop(LENGTH, NOISY, objective=uneven)
    again = Again(loop)
    replayed = fit(recorded(loop, again), tmp_path / "recorded")
    # The first three steps are launched one by one; all others are replayed, each with its batch, rate and seed.
    assert again.replays == LENGTH.steps - 3
    # Rates are float32 in what is replayed, and training makes that difference grow.
    np.testing.assert_allclose(replayed[0], plain[0], rtol=1e-4)
    for ours, theirs in zip(replayed[1], plain[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_recording_leaves_the_settings_of_the_optimiser_as_they_were(
    make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    loop = make_loop(LENGTH, NOISY)
    fit(recorded(loop, Again(loop)), tmp_path)
    for group in loop.method.optimizer.param_groups:
        assert isinstance(group["lr"], float)
        assert group["capturable"] is False


def stepwise(loop: Loop, calls: list[str]) -> Iterator[None]:
    """Walks through a training; ``calls`` grows where it lets the next batch begin."""
    with closing(loop.feed.between(0, LENGTH.steps)) as prepared:
        for seen in prepared:
            loop.take(replace(seen, meanwhile=lambda: calls.append("begin")))
            yield


def test_the_next_batch_is_begun_once_a_step_and_not_by_what_is_recorded(make_loop: Callable[..., Loop]) -> None:
    def record(work: Callable[[], None]) -> Callable[[], None]:
        work()
        return lambda: None

    calls, counted = [], []
    for _ in stepwise(recorded(make_loop(LENGTH, NOISY), record), calls):
        counted.append(len(calls))
    assert counted == list(range(1, LENGTH.steps + 1))


@pytest.mark.slow
def test_a_batch_that_has_to_be_cut_is_not_replayed_as_a_whole(make_loop: Callable[..., Loop]) -> None:
    """Memory may run out later on, for whatever else the GPU has to do."""
    loop = make_loop(LENGTH, NOISY)
    again = Again(loop)
    replays = []
    for _ in stepwise(recorded(loop, again), []):
        replays.append(again.replays)
        loop.method.gradient.num_portions = 2 if len(replays) == 6 else 1
    assert replays[:8] == [0, 0, 0, 1, 2, 3, 3, 4]


@pytest.mark.slow
def test_images_of_another_size_are_recorded_anew(make_loop: Callable[..., Loop]) -> None:
    loop = make_loop(LENGTH, NOISY)
    again = Again(loop)
    recorded(loop, again)
    replays = []
    with closing(loop.feed.between(0, LENGTH.steps)) as prepared:
        for step, seen in enumerate(prepared):
            loop.take(seen if step < 6 else replace(seen, images=seen.images[..., ::2, ::2]))
            replays.append(again.replays)
    assert replays == [0, 0, 0, 1, 2, 3, 3, 3, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_replayed_step_sees_the_rows_and_views_of_its_own_batch(make_loop: Callable[..., Loop]) -> None:
    """What stood in the recorded batch would be learnt from again and again, without a word."""
    rows, views = [], []

    class Looking:
        is_recordable = True
        average_passes = 0

        def __call__(self, moment: Moment) -> torch.Tensor:
            rows.append(moment.rows.tolist())
            views.append(moment.views["plain"].clone())
            return moment.logits[0].square().mean()

    loop = make_loop(LENGTH, NoiseConfig(), objective=Looking())
    again = Again(loop)
    recorded(loop, again)
    with closing(loop.feed.between(0, LENGTH.steps)) as prepared:
        for seen in prepared:
            batch = replace(seen.batch, views={"plain": seen.batch.images})
            loop.take(replace(seen, batch=batch))
            assert rows[-1] == batch.rows.tolist()
            assert torch.equal(views[-1], loop.feed.preparation._placement.images(batch.images))
    assert again.replays == LENGTH.steps - 3


@pytest.mark.slow
def test_where_nothing_can_be_recorded_the_training_says_so_and_goes_on(
    make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    def fail(work: Callable[[], None]) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    plain = fit(make_loop(LENGTH, NOISY), tmp_path / "plain")
    listener = Listener()
    trained = fit(recorded(make_loop(LENGTH, NOISY), fail, listener.say), tmp_path / "failed")
    assert trained[0] == plain[0]
    assert len(listener.said) == 1
    assert "launched one by one (operation not permitted when stream is capturing more)" in listener.said[0]


@pytest.mark.slow
def test_a_number_that_is_not_finite_is_named_in_replayed_steps_too(
    make_loop: Callable[..., Loop], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(Length(1, 40), NoiseConfig(), checkpoint_seconds=1e9)
    load = loop.feed.batches.load

    def poisoned(*arguments: Any, **words: Any) -> Iterator[Batch]:
        for step, batch in enumerate(load(*arguments, **words)):
            if step == 5:
                batch.targets[1][3] = math.nan
            yield batch

    monkeypatch.setattr(loop.feed.batches, "load", poisoned)
    name = digits.name(loop.feed.batches.ids(5)[3])
    with pytest.raises(TrainingError, match=f"at step 5 .*1 of 8 images: {name}"):
        fit(recorded(loop, Again(loop)), tmp_path)


def test_only_what_depends_on_tensors_alone_is_recorded(make_loop: Callable[..., Loop]) -> None:
    loop = make_loop(LENGTH)
    objective, optimizer = loop.method.objective, loop.method.optimizer

    there = type("Gpu", (), {"parameters": lambda self: iter([OnCuda()])})()
    assert can_be_recorded(there, optimizer, objective)
    assert not can_be_recorded(loop.method.network, optimizer, objective), "a CPU"
    assert not can_be_recorded(there, torch.optim.SGD([torch.zeros(1)], lr=0.1), objective), "a rate of the host"
    ensembling = make_loop(LENGTH, self_ensemble=True).method.objective
    assert not can_be_recorded(there, optimizer, ensembling), "its ramp is a number of the host"


class OnCuda:
    device = torch.device("cuda", 0)


@pytest.mark.gpu
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_gpu_learns_the_same_from_recorded_steps(
    deterministic: bool, make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    _choose_kernels(deterministic)
    try:
        plain = fit(make_loop(LENGTH, NOISY, device="cuda"), tmp_path / "plain")
        listener = Listener()
        placement = Placement(torch.device("cuda"), "float32", records=True)
        loop = make_loop(LENGTH, NOISY, placement=placement, say=listener.say)
        replayed = fit(loop, tmp_path / "recorded", listener)
    finally:
        _choose_kernels(deterministic=False)
    assert listener.said == []
    assert loop.method.recording._recorded is not None
    np.testing.assert_allclose(replayed[0], plain[0], rtol=1e-4 if deterministic else 2e-2)


@pytest.mark.gpu
def test_a_gpus_memory_is_given_back_after_recorded_steps(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    placement = Placement(torch.device("cuda"), "float32", records=True)
    fit(make_loop(LENGTH, NOISY, placement=placement), tmp_path / "first")
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    fit(make_loop(LENGTH, NOISY, placement=placement), tmp_path / "second")
    assert torch.cuda.memory_allocated() <= before


@pytest.mark.parametrize(
    ("recorded", "records", "mode", "settings"),
    [
        (True, True, "none", {}),
        (False, False, "none", {}),
        (False, True, "default", {}),
        (False, True, "none", {"checkpoint_activations": True}),
    ],
    ids=["as it is", "not asked for", "compiled", "activations computed twice"],
)
def test_steps_are_recorded_where_that_was_asked_for_and_nothing_else_is_in_the_way(
    recorded: bool,
    records: bool,
    mode: str,
    settings: dict[str, bool],
    make_loop: Callable[..., Loop],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nstudent.training.learner.can_be_recorded", lambda *_: True)
    monkeypatch.setattr(Placement, "compile", lambda *_: None)
    placement = Placement(torch.device("cpu"), "float32", mode, records)
    assert (make_loop(LENGTH, placement=placement, **settings).method.recording is not None) is recorded


def test_steps_that_several_processes_share_are_not_recorded(
    make_loop: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nstudent.training.learner.can_be_recorded", lambda *_: True)
    monkeypatch.setattr("nstudent.training.gradient.shared", lambda network, world: network)
    monkeypatch.setattr(Alone, "size", 2)
    assert make_loop(LENGTH, placement=Placement(torch.device("cpu"), "float32", records=True)).method.recording is None
