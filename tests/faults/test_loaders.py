"""Processes that prepare images: killed, as the system does when memory runs out, or left behind by a killed run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fork_server import ForkServer
from interrupted_run import finish, in_training

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from conftest import WholeRun


def test_a_loader_that_is_killed_is_said_and_the_same_command_goes_on(
    server: ForkServer, whole: WholeRun, run_dir: Path
) -> None:
    """With a loader or without, the bytes are the same: the run ends without one."""
    with in_training(run_dir, "workers=1") as run:
        os.kill(run.pid, signal.SIGSTOP)
        loaders = _children(run.pid)
        for loader in loaders:
            os.kill(loader, signal.SIGKILL)
        os.kill(run.pid, signal.SIGCONT)
        _, error = run.communicate(timeout=300)
    assert len(loaders) == 1
    assert run.returncode == 2, error
    line = error.splitlines()[-1]
    assert line.startswith("nstudent: a process that prepares images died")
    assert "lower workers or batch_size" in line
    assert finish(server, run_dir, whole.results) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
def test_no_loader_outlives_a_killed_run_nor_keeps_its_folder_locked(
    server: ForkServer, whole: WholeRun, run_dir: Path
) -> None:
    with in_training(run_dir, "workers=2") as run:
        loaders = _children(run.pid)
        run.kill()
        run.wait()
    assert len(loaders) == 2
    assert finish(server, run_dir, whole.results) == []
    assert not any(map(_alive, loaders))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
