"""SIGTERM, SIGINT and SIGUSR1: a checkpoint, an exit code of its own, the folder free; and then the same bytes."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fault_injection import Fault, recorded
from fork_server import ForkServer
from interrupted_run import finish, in_training
from nstudent.storage.lock import HOLDER, hold
from tiny_run import run_all_words

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from conftest import WholeRun

STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: try again later."""
_MOST_OPERATIONS = 25
"""Room for a few checkpoints: an epoch's, the one of the stop, their generations; not for the rest of a training."""


def _in_training(whole: WholeRun, network: str) -> int:
    """Number of an operation in the middle of a training: its third sync below scratch."""
    syncs = [
        n for n, (kind, path) in enumerate(whole.operations) if kind == "fsync" and f"{network}.partial/scratch" in path
    ]
    return syncs[len(syncs) // 2]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_stops_at_the_next_step_and_the_same_command_goes_on(
    server: ForkServer, whole: WholeRun, run_dir: Path, name: str
) -> None:
    at = _in_training(whole, "01-teacher")
    stopped = server.run(run_all_words(run_dir), run_dir, Fault(at, name))
    assert stopped.status == STOPPED, stopped.error
    assert len(recorded(server.log)) - at <= _MOST_OPERATIONS
    assert name in stopped.error
    assert not (run_dir / HOLDER).exists()
    with hold(run_dir):
        assert (run_dir / "01-teacher.partial").exists()
    said = server.run(["status", str(run_dir)], run_dir)
    assert name in said.error
    assert finish(server, run_dir, whole.results) == []


def test_a_second_interrupt_stops_at_once(server: ForkServer, whole: WholeRun, run_dir: Path) -> None:
    """Every operation sends one more: the second comes while the checkpoint of the first is written."""
    at = _in_training(whole, "01-teacher")
    stopped = server.run(run_all_words(run_dir), run_dir, Fault(at, "SIGINT", lasting=True))
    assert stopped.status in (130, -signal.SIGINT), stopped.error
    # It was about to sync; what follows is the letting go of the folder.
    assert [kind for kind, _ in recorded(server.log)[at + 2 :] if kind == "rename"] == []
    assert finish(server, run_dir, whole.results) == []


def test_a_process_of_its_own_is_preempted(whole: WholeRun, server: ForkServer, run_dir: Path) -> None:
    with in_training(run_dir) as run:
        run.send_signal(signal.SIGTERM)
        _, error = run.communicate(timeout=300)
    assert run.returncode == STOPPED, error
    assert finish(server, run_dir, whole.results) == []
