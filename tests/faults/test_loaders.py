"""A process that prepares images is killed, as the system does when memory runs out."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from fork_server import ForkServer
from trial import finish, in_training

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


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
