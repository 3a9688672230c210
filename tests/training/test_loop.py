"""A training as a whole: resumed, stopped, told of, validated, and kept on disk."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fitting import LENGTH, MILD, bytes_of, check_goes_on, fit, losses, supervised
from nstudent.data.dataset import Dataset
from nstudent.distributed.world import Alone
from nstudent.errors import ArtifactError, StoppedError
from nstudent.models.cost import Spent
from nstudent.models.device import _choose_kernels
from nstudent.models.network import Network
from nstudent.noise.steps import Prepared
from nstudent.progress import Silence
from nstudent.signals import OverdueStop
from nstudent.taxonomy.outputs import Outputs
from nstudent.training.checkpoint import load_checkpoint
from nstudent.training.loop import Length, Loop, Trained
from nstudent.training.schedules import branch_training
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden_losses.json"


def learning_nothing(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """The loop, whose steps leave the network as it is: all that is about steps, and not about learning, is as fast."""
    monkeypatch.setattr(loop.method, "learn", lambda prepared, step, done: torch.zeros(()))
    return loop


@pytest.mark.slow
def test_the_losses_of_20_steps_are_golden(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    """A refactoring must give the same losses. To accept new ones, delete golden_losses.json and run this test twice:
    the first run writes the file and fails. Bits are compared below; here a tolerance that another CPU meets: its sums
    round otherwise, and training makes ten times more of that every five steps (1e-6 at first, 9e-3 at the end)."""
    trained = fit(make_loop(Length(20, 1), MILD, warmup_epochs=5), tmp_path)
    if not GOLDEN.exists():
        GOLDEN.write_text(json.dumps([round(loss, 6) for loss in losses(trained)], indent=1) + "\n")
        pytest.fail(f"{GOLDEN.name} was not there and has been written: look at it, and run again")
    found, expected = losses(trained), json.loads(GOLDEN.read_text())
    np.testing.assert_allclose(found[:8], expected[:8], rtol=1e-3)
    np.testing.assert_allclose(found, expected, rtol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("self_ensemble", [False, True], ids=["supervised", "self-ensembling"])
def test_the_same_key_gives_the_same_bits_twice(
    self_ensemble: bool, make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    one, two = (fit(make_loop(LENGTH, self_ensemble=self_ensemble), tmp_path / name) for name in ("one", "two"))
    assert one.history == two.history
    assert bytes_of(one.network) == bytes_of(two.network)


@pytest.mark.slow
@pytest.mark.parametrize("self_ensemble", [False, True], ids=["supervised", "self-ensembling"])
@pytest.mark.parametrize("killed_after", [2, 6, 9, 12], ids=lambda steps: f"killed in step {steps} of 12")
def test_a_killed_training_goes_on_to_the_same_bits(
    killed_after: int,
    self_ensemble: bool,
    uninterrupted: dict[bool, tuple[Loop, Trained]],
    make_loop: Callable[..., Loop],
    kill_after: Callable[[int], Silence],
    tmp_path: Path,
) -> None:
    """Dropout, stochastic depth, RandAugment, erasing, CutMix and MixUp are all on."""
    make, whole = partial(make_loop, LENGTH, self_ensemble=self_ensemble), uninterrupted[self_ensemble][0]
    resumed = check_goes_on(make, kill_after(killed_after), tmp_path, uninterrupted[self_ensemble], killed_after)
    assert bytes_of(resumed.method.network) == bytes_of(whole.method.network)
    if self_ensemble:
        averages, expected = resumed.method.objective.state_dict(), whole.method.objective.state_dict()
        assert all(torch.equal(averages[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_a_training_with_a_schedule_of_levels_goes_on_at_the_weights_of_its_step(
    make_loop: Callable[..., Loop], kill_after: Callable[[int], Silence], digits: Dataset, tmp_path: Path
) -> None:
    plain = supervised(Outputs(digits.taxonomy), (1.0, 1.0, 1.0))
    seen: list[float] = []

    def schedule(done: float, levels: int) -> tuple[float, ...]:
        seen.append(done)
        return branch_training(done, levels, ends_with_all=False)

    objective = replace(plain, level_schedule=schedule)
    whole = fit(make_loop(LENGTH, objective=objective), tmp_path / "whole")
    assert seen == pytest.approx([step / LENGTH.steps for step in range(LENGTH.steps)])
    with pytest.raises(KeyboardInterrupt):
        fit(make_loop(LENGTH, objective=objective), tmp_path / "killed", kill_after(7))
    seen.clear()
    resumed = fit(make_loop(LENGTH, objective=objective), tmp_path / "killed")
    assert seen[0] > 0.5
    assert resumed.history == whole.history
    assert bytes_of(resumed.network) == bytes_of(whole.network)
    assert losses(fit(make_loop(LENGTH, objective=plain), tmp_path / "plain")) != losses(whole)


@pytest.mark.slow
def test_a_finished_training_is_not_trained_again(
    uninterrupted: dict[bool, tuple[Loop, Trained]],
    make_loop: Callable[..., Loop],
    tmp_path: Path,
    kill_after: Callable[[int], Silence],
) -> None:
    fit(make_loop(LENGTH), tmp_path)
    # Killed after the first step, if there were one.
    again = fit(make_loop(LENGTH), tmp_path, kill_after(1))
    assert bytes_of(again.network) == bytes_of(uninterrupted[False][1].network)


@pytest.mark.slow
def test_a_resumed_training_says_how_far_it_is(
    make_loop: Callable[..., Loop], kill_after: Callable[[int], Silence], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(make_loop(LENGTH), tmp_path, kill_after(6))
    began = []

    class Listening(Silence):
        def task(self, name: str, total: int, unit: str, done: int = 0) -> Any:
            began.append((name, total, unit, done))
            return super().task(name, total, unit, done)

    fit(make_loop(LENGTH), tmp_path, Listening(), name="member 0")
    assert began == [("member 0", 12, "batches", 6)]


@pytest.mark.slow
def test_every_epoch_is_told_when_it_has_ended_and_none_twice(
    make_loop: Callable[..., Loop], kill_after: Callable[[int], Silence], tmp_path: Path
) -> None:
    told: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        fit(make_loop(LENGTH), tmp_path, kill_after(6), tell=told.append)
    assert [entry["epoch"] for entry in told] == [1]
    trained = fit(make_loop(LENGTH), tmp_path, tell=told.append)
    assert told == trained.history


@pytest.mark.slow
def test_where_a_training_begins_it_is_told_what_lies_behind_it(
    make_loop: Callable[..., Loop], kill_after: Callable[[int], Silence], tmp_path: Path
) -> None:
    behind: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        fit(make_loop(LENGTH), tmp_path, kill_after(6), begins=behind.append)
    trained = fit(make_loop(LENGTH), tmp_path, begins=behind.append)
    fit(make_loop(LENGTH), tmp_path, begins=behind.append)
    assert behind == [(), tuple(trained.history[:1]), tuple(trained.history)]


def test_who_hears_that_a_training_begins_may_stop_it_before_its_first_step(
    make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    def stop(behind: object) -> None:
        raise StoppedError("another time")

    loop = make_loop(LENGTH)
    with pytest.raises(StoppedError, match="another time"):
        fit(loop, tmp_path, begins=stop)
    assert not list(tmp_path.iterdir())


def test_who_hears_of_an_epoch_may_stop_the_training_and_its_last_step_is_kept(
    make_loop: Callable[..., Loop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(entry: dict[str, float]) -> None:
        if entry["epoch"] == 2:
            raise StoppedError("no better than the others")

    with pytest.raises(StoppedError, match="no better"):
        fit(learning_nothing(make_loop(LENGTH, MILD, checkpoint_seconds=1e9), monkeypatch), tmp_path, tell=stop)
    state = load_checkpoint(tmp_path / "checkpoint.safetensors", print)
    assert state is not None
    assert state["step"] == 2 * LENGTH.steps_per_epoch


def test_of_several_processes_one_that_is_told_to_stop_waits_until_all_are_asked(
    make_loop: Callable[..., Loop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every step asks the others: what was said between two of them is not forgotten."""
    loop = learning_nothing(make_loop(Length(epochs=5, steps_per_epoch=3), MILD), monkeypatch)
    asked: list[bool] = []

    class Pair(Alone):
        size = 2

        def any(self, said: bool) -> bool:
            asked.append(said)
            return said

    monkeypatch.setattr(loop, "_world", Pair())

    def stop(entry: dict[str, float]) -> None:
        if entry["epoch"] == 1:
            raise StoppedError("enough")

    with pytest.raises(StoppedError, match="enough"):
        fit(loop, tmp_path, tell=stop)
    # Before the first step, and at the eighth; the epoch had ended with the third.
    assert asked == [False, True]


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_workers(
    uninterrupted: dict[bool, tuple[Loop, Trained]], make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    trained = fit(make_loop(LENGTH, workers=2), tmp_path)
    assert bytes_of(trained.network) == bytes_of(uninterrupted[False][1].network)


def test_a_damaged_checkpoint_is_an_artifact_error(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half a checkpoi")
    with pytest.raises(ArtifactError, match=r"checkpoint\.safetensors is damaged"):
        fit(make_loop(LENGTH), tmp_path)


def test_the_loss_of_an_epoch_is_the_mean_over_its_steps(
    make_loop: Callable[..., Loop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(Length(2, 3), MILD)
    given = iter([3.0, 1.0, 0.5, 0.25, 2.0, 1.5])
    monkeypatch.setattr(loop.method, "learn", lambda prepared, step, done: torch.tensor(next(given)))
    assert losses(fit(loop, tmp_path)) == pytest.approx([1.5, 1.25])


def test_a_step_is_told_its_number_and_how_much_of_the_training_is_over(
    make_loop: Callable[..., Loop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(Length(2, 2), MILD)
    told = []

    def noted(prepared: Prepared, step: int, done: float) -> Tensor:
        told.append((step, done))
        return torch.zeros(())

    monkeypatch.setattr(loop.method, "learn", noted)
    fit(loop, tmp_path)
    assert told == [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75)]


@pytest.mark.parametrize("leads", [True, False])
def test_only_the_process_that_leads_writes_checkpoints(
    leads: bool, make_loop: Callable[..., Loop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(Alone):
        pass

    Other.leads = leads
    length = Length(1, 2)
    made = learning_nothing(make_loop(length, MILD), monkeypatch)
    fit(Loop(made.method, made.feed, length, world=Other()), tmp_path)
    assert bool(list(tmp_path.iterdir())) is leads


def test_a_loop_that_is_told_of_no_other_process_trains_alone(
    make_loop: Callable[..., Loop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = Length(1, 2)
    made = learning_nothing(make_loop(length, MILD), monkeypatch)
    fit(Loop(made.method, made.feed, length), tmp_path)
    assert (tmp_path / "checkpoint.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epochs", "expected"), [(3, [1, 2, 3]), (25, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 25])]
)
def test_validation_is_scored_about_ten_times_and_at_the_end(
    epochs: int, expected: list[int], make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    scored = []

    def validate(network: Network) -> float:
        scored.append(network)
        return 0.5

    trained = fit(make_loop(Length(epochs, 1), MILD), tmp_path, validate=validate)
    assert [entry["epoch"] for entry in trained.history if "validation" in entry] == expected
    assert [entry["epoch"] for entry in trained.history] == list(range(1, epochs + 1))
    assert scored[-1] is trained.network, "the average is scored, not the weights of the last step"


@pytest.mark.slow
def test_scoring_on_the_way_changes_nothing(
    uninterrupted: dict[bool, tuple[Loop, Trained]], make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    def validate(network: Network) -> float:
        network.eval()
        torch.rand(5)
        return 0.0

    trained = fit(make_loop(LENGTH), tmp_path, validate=validate)
    assert bytes_of(trained.network) == bytes_of(uninterrupted[False][1].network)


@pytest.mark.slow
def test_the_checkpoint_is_written_after_every_step_where_no_time_is_to_be_saved(
    make_loop: Callable[..., Loop], kill_after: Callable[[int], Silence], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(make_loop(LENGTH), tmp_path, kill_after(11))
    state = load_checkpoint(tmp_path / "checkpoint.safetensors", print)
    assert state["step"] == 11
    assert [entry["epoch"] for entry in state["history"]] == [1, 2]


@pytest.mark.slow
def test_checkpoints_may_be_rarer_but_the_last_one_is_always_written(
    uninterrupted: dict[bool, tuple[Loop, Trained]],
    make_loop: Callable[..., Loop],
    kill_after: Callable[[int], Silence],
    tmp_path: Path,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(make_loop(LENGTH, checkpoint_seconds=1e9), tmp_path, kill_after(11))
    assert load_checkpoint(tmp_path / "checkpoint.safetensors", print) is None
    trained = fit(make_loop(LENGTH, checkpoint_seconds=1e9), tmp_path)
    assert load_checkpoint(tmp_path / "checkpoint.safetensors", print)["step"] == 12
    assert bytes_of(trained.network) == bytes_of(uninterrupted[False][1].network)


@pytest.mark.parametrize(
    ("every_seconds", "saving_seconds", "saves"), [(0, 9, 12), (1, 0, 11), (3, 0, 4), (1, 0.099, 3), (1, 9, 2)]
)
def test_checkpoints_take_at_most_2_percent_of_a_training(
    every_seconds: int,
    saving_seconds: float,
    saves: int,
    make_loop: Callable[..., Loop],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """12 steps of a second each, by a clock of ours: what takes 0.1 s may happen every 5 s; each step if asked for."""
    clock, saved = [0.0], []

    class OneSecondAStep(Silence):
        def advance(self, amount: int, **shown: float) -> None:
            clock[0] += 1

    def save(*_: object) -> None:
        saved.append(clock[0])
        clock[0] += saving_seconds

    monkeypatch.setattr("nstudent.training.checkpoint.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("nstudent.training.loop.save_checkpoint", save)
    clock[0] = 0.0
    loop = learning_nothing(make_loop(LENGTH, MILD, checkpoint_seconds=every_seconds), monkeypatch)
    fit(loop, tmp_path, OneSecondAStep())
    assert len(saved) == saves


class StopAfter(Silence):
    """Progress that asks to stop after so many steps, as SIGTERM does."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, amount: int, **shown: Any) -> None:
        self.left -= amount
        if self.left == 0:
            raise StoppedError("stopped by SIGTERM")


def test_a_training_that_is_killed_leaves_no_thread_whoever_keeps_its_error(
    make_loop: Callable[..., Loop],
    kill_after: Callable[[int], Silence],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(KeyboardInterrupt) as kept:
        fit(learning_nothing(make_loop(LENGTH), monkeypatch), tmp_path, kill_after(3))
    assert kept.tb is not None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prepare")]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 7, 8])
def test_a_training_that_is_asked_to_stop_keeps_its_last_step(
    steps: int, uninterrupted: dict[bool, tuple[Loop, Trained]], make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        fit(make_loop(LENGTH, checkpoint_seconds=1e9), tmp_path, StopAfter(steps))
    assert load_checkpoint(tmp_path / "checkpoint.safetensors", print)["step"] == steps
    trained = fit(make_loop(LENGTH, checkpoint_seconds=1e9), tmp_path)
    assert trained.history == uninterrupted[False][1].history
    assert bytes_of(trained.network) == bytes_of(uninterrupted[False][1].network)


@pytest.mark.slow
def test_training_learns_the_digits(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    trained = fit(make_loop(Length(4, 8), MILD), tmp_path)
    first, *_, last = losses(trained)
    assert last < 0.8 * first


@pytest.mark.gpu
def test_cpu_and_gpu_take_the_same_first_steps(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    here, there = (fit(make_loop(Length(4, 1), MILD, device=device), tmp_path / device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(losses(here), losses(there), rtol=2e-2)
    assert {weight.device.type for weight in there.network.parameters()} == {"cuda"}


@pytest.mark.gpu
def test_a_killed_training_goes_on_on_a_gpu(
    make_loop: Callable[..., Loop], kill_after: Callable[[int], Silence], tmp_path: Path
) -> None:
    whole = fit(make_loop(LENGTH, device="cuda"), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(make_loop(LENGTH, device="cuda"), tmp_path / "killed", kill_after(7))
    resumed = fit(make_loop(LENGTH, device="cuda"), tmp_path / "killed")
    np.testing.assert_allclose(losses(resumed), losses(whole), rtol=1e-2)


@pytest.mark.gpu
def test_equal_trainings_give_equal_bytes_where_that_is_asked_for(
    make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    _choose_kernels(deterministic=True)
    try:
        first, second = (
            fit(make_loop(LENGTH, device="cuda"), tmp_path / name).network.cpu() for name in ("first", "second")
        )
    finally:
        _choose_kernels(deterministic=False)
    assert bytes_of(first) == bytes_of(second)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_validation_that_is_cut_off_is_made_when_the_training_goes_on(
    make_loop: Callable[..., Loop], tmp_path: Path, cut: int
) -> None:
    """Whoever asks to stop does not wait for it; the step before it is kept, and no step is taken twice."""
    asked = 0

    def validate(network: Network) -> float:
        nonlocal asked
        asked += 1
        network.eval()
        if asked == cut:
            raise OverdueStop("stopped by SIGTERM")
        return 0.5

    told: list[dict[str, float]] = []
    whole = fit(make_loop(LENGTH), tmp_path / "whole", validate=lambda network: network.eval() and 0.5)
    with pytest.raises(OverdueStop):
        fit(make_loop(LENGTH), tmp_path / "cut", validate=validate, tell=told.append)
    state = load_checkpoint(tmp_path / "cut" / "checkpoint.safetensors", print)
    assert state is not None
    assert state["step"] == cut * LENGTH.steps_per_epoch
    assert len(state["history"]) == cut - 1
    resumed = fit(make_loop(LENGTH), tmp_path / "cut", validate=validate, tell=told.append)
    assert resumed.history == whole.history == told
    assert bytes_of(resumed.network) == bytes_of(whole.network)
    kept = load_checkpoint(tmp_path / "cut" / "checkpoint.safetensors", print)
    assert kept is not None
    assert kept["history"] == whole.history, "a later attempt at the step does not validate it once more"


def test_what_follows_a_training_counts_on_from_its_last_epoch() -> None:
    networks: list[Any] = [object(), object()]
    first = Trained(networks[0], [{"epoch": 1, "step": 4, "loss": 2.0}], 0.1, Spent(16, 3.0))
    later = Trained(networks[1], [{"epoch": 1, "step": 5, "loss": 0.5}], 0.2, Spent(10, 2.0))
    both = first.followed_by(later)
    assert both.history == [{"epoch": 1, "step": 4, "loss": 2.0}, {"epoch": 2, "step": 9, "loss": 0.5}]
    assert both.spent == Spent(26, 5.0)
    assert both.network is networks[1]
