"""Signals that a process notes, what it finishes then, and what it is made to leave."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nstudent import signals
from nstudent.errors import StoppedError
from nstudent.signals import SIGNALS, OverdueStop, StopRequest, stop_on_signals, stop_with_parent


@pytest.fixture(autouse=True)
def _handlers_put_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_process_that_is_told_twice_stops_once() -> None:
    stop = stop_with_parent()
    stop.check()
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
        signal.raise_signal(number)
    with pytest.raises(StoppedError, match="stopped by SIGTERM"):
        stop.check()


def test_ctrl_c_is_left_to_the_parent() -> None:
    before = signal.getsignal(signal.SIGINT)
    stop_with_parent()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that does not ask is cut off at once."""
    monkeypatch.setattr(signals, "GRACE_SECONDS", 0.01)


def _work_for_ever(*_: object) -> None:
    while True:
        time.sleep(0.001)


def _begin(work: Callable[[StopRequest], None], name: str = "SIGTERM", *, training: bool = False) -> None:
    """A signal comes when some work has begun."""
    with stop_on_signals() as stop, stop.patiently(training):
        signal.raise_signal(signal.Signals[name])
        work(stop)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGALRM"])
def test_work_that_never_asks_whether_to_go_on_is_cut_off(soon: None, name: str) -> None:
    with pytest.raises(OverdueStop, match=f"stopped by {name}: what was done is kept"):
        _begin(_work_for_ever, name)


def test_a_timer_that_somebody_else_has_set_lets_a_training_end_its_step() -> None:
    """One that was set before this program was started goes off in it."""
    with pytest.raises(StoppedError, match="stopped by SIGALRM"):
        _begin(StopRequest.check, "SIGALRM", training=True)


def test_no_handler_of_errors_holds_it_up(soon: None) -> None:
    """Damaged files make libraries raise nearly anything, and where they are read everything is caught."""

    def work(_: StopRequest) -> None:
        with contextlib.suppress(Exception):
            _work_for_ever()
        pytest.fail("it goes on")

    with pytest.raises(OverdueStop):
        _begin(work)


def test_a_training_is_waited_for_and_ends_where_it_asks(soon: None) -> None:
    asked = []

    def work(stop: StopRequest) -> None:
        time.sleep(0.05)
        asked.append(True)
        stop.check()

    with pytest.raises(StoppedError):
        _begin(work, training=True)
    assert asked


def test_a_training_that_ends_by_itself_is_the_last_work(soon: None) -> None:
    with pytest.raises(StoppedError):
        _begin(lambda _: time.sleep(0.05), training=True)


@pytest.mark.parametrize("before", [True, False])
def test_the_validation_within_a_training_is_cut_off(soon: None, before: bool) -> None:
    """Whether the time was up before it began or while it went on."""

    def work(stop: StopRequest) -> None:
        if before:
            time.sleep(0.05)
        with stop.patiently(wait=False):
            _work_for_ever()

    with pytest.raises(OverdueStop):
        _begin(work, training=True)


def test_what_is_being_kept_after_the_stop_is_not_cut_off(soon: None) -> None:
    kept = []

    def work(stop: StopRequest) -> None:
        try:
            stop.check()
        finally:
            time.sleep(0.05)
            kept.append(True)

    with pytest.raises(StoppedError):
        _begin(work)
    assert kept


def test_without_a_signal_nothing_is_cut_off(soon: None) -> None:
    before = signal.getsignal(signal.SIGALRM)
    with stop_on_signals() as stop:
        with stop.patiently():
            time.sleep(0.03)
        time.sleep(0.03)
    assert signal.getsignal(signal.SIGALRM) is before


_NEVER_ASKS = """
import sys
from nstudent import cli, signals
from nstudent.stages import {stage}
signals.GRACE_SECONDS = 0.2
def hang(*_, **__):
    print("at work", flush=True)
    while True:
        pass
{stage}.{name} = hang
cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "name"), [("data", "draw_splits"), ("data", "near_duplicates"), ("data", "write_json")]
)
def test_a_step_that_would_go_on_for_ever_is_stopped_and_the_same_command_goes_on(
    stage: str, name: str, tmp_path: Path
) -> None:
    words = ["stage", stage, "data.image_size=8", "rounds=0", "--run-dir", str(tmp_path / "run")]
    command = [sys.executable, "-c", _NEVER_ASKS.format(stage=stage, name=name), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "at work\n"
        run.send_signal(signal.SIGTERM)
        _, error = run.communicate(timeout=120)
    assert run.returncode == 75, error
    assert "stopped by SIGTERM: what was done is kept, the same command goes on from there" in error
    assert "stopped by SIGTERM" in (tmp_path / "run" / "stopped.json").read_text()
    subprocess.run([sys.executable, "-m", "nstudent", *words], check=True, capture_output=True)
    assert not (tmp_path / "run" / "stopped.json").exists()
