"""Two processes on one run folder, also where the file system knows no locks."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fork_server import ForkServer
from interrupted_run import finish
from nstudent.storage.lock import HOLDER, LOCK, MARK
from tiny_run import run_all_words

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from conftest import WholeRun

_HOLDER = """
import errno, os, sys
from pathlib import Path
from nstudent.storage import lock
if sys.argv[2]:
    import fcntl
    def refuse(*_):
        raise OSError(getattr(errno, sys.argv[2]), "no locks here")
    fcntl.flock = refuse
with lock.hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
_NO_LOCKS = ["ENOSYS", "ENOLCK", "EOPNOTSUPP"]


@contextmanager
def _held(run_dir: Path, refusal: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder, on a file system whose ``flock`` fails with ``refusal``."""
    command = [sys.executable, "-W", "error", "-c", _HOLDER, str(run_dir), refusal]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_the_second_is_told_and_takes_over_when_the_first_is_dead(
    server: ForkServer, whole: WholeRun, run_dir: Path
) -> None:
    with _held(run_dir) as first:
        assert _first_line(first) == "held\n"
        refused = server.run(run_all_words(run_dir), run_dir)
        assert refused.status != 0
        (line,) = refused.error.splitlines()
        assert line.startswith(f"nstudent: {run_dir} is in use by process {first.pid} on {platform.node()} since 20")
        first.kill()
        first.wait()
        assert (run_dir / HOLDER).exists()
        assert finish(server, run_dir, whole.results) == []


@pytest.mark.parametrize("refusal", _NO_LOCKS)
def test_where_there_are_no_locks_a_marker_stands_in(run_dir: Path, refusal: str) -> None:
    with _held(run_dir, refusal) as first:
        assert _first_line(first) == "held\n"
        with _held(run_dir, refusal) as second:
            assert _first_line(second) == ""
            assert second.stderr is not None
            assert f"is in use by process {first.pid} on {platform.node()}" in second.stderr.read()
        first.kill()
        first.wait()
        with _held(run_dir, refusal) as third:
            assert _first_line(third) == "held\n"
            third.communicate(timeout=60)
            assert third.returncode == 0
    assert not (run_dir / MARK).exists()
    assert not (run_dir / HOLDER).exists()


def test_of_another_machine_the_second_is_told_how_to_let_go(run_dir: Path) -> None:
    """Whether a process of another machine lives cannot be seen from here: a person decides."""
    with _held(run_dir, "ENOLCK") as first:
        assert _first_line(first) == "held\n"
        for note in (run_dir / HOLDER, run_dir / MARK):
            note.write_bytes(note.read_bytes().replace(platform.node().encode(), b"another-machine"))
        first.kill()
        first.wait()
        with _held(run_dir, "ENOLCK") as second:
            assert _first_line(second) == ""
            assert second.stderr is not None
            said = second.stderr.read()
        assert "on another-machine since 20" in said
        assert f"if that machine is gone for good, remove {LOCK} and {MARK} there" in said
        (run_dir / MARK).unlink()
        with _held(run_dir, "ENOLCK") as third:
            assert _first_line(third) == "held\n"
