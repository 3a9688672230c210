"""Processes that start in no time: a server imports everything once, and forks a child for every command.

As a script it is the server: a job a line on its input, an outcome a line on its output. ``ForkServer`` is the other
end. The children run the real command line in processes of their own; the server kills them when their time is up. It
has run nothing itself, so that no thread is lost in a fork.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fault_injection import Fault

_HANGING_SECONDS = 600.0
_POLL_SECONDS = 0.002


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    """Exit code; minus the number of the signal that killed it."""
    error: str
    """What it wrote to its standard error, and its output."""
    seconds: float


class ForkServer:
    """Runs commands in forked children, one at a time."""

    def __init__(self, process: subprocess.Popen[str], scratch: Path) -> None:
        self._process = process
        self._scratch = scratch
        self.log = scratch / "operations.txt"
        """The operations of the last command that had a fault."""

    def run(
        self,
        words: Sequence[str],
        folder: Path,
        fault: Fault | None = None,
        *,
        kill_after: float | None = None,
        limits: dict[str, int] | None = None,
    ) -> Outcome:
        """Run ``nstudent`` with these words.

        Args:
            words: Arguments of the command line.
            folder: The run folder, whose operations are counted.
            fault: What happens at which operation of the folder.
            kill_after: Seconds until SIGKILL.
            limits: Resource limits of the process, such as {"RLIMIT_FSIZE": 1000}.
        """
        output = self._scratch / "output.txt"
        injected = {
            "folder": str(folder),
            "fault": None if fault is None else asdict(fault),
            "log": str(self.log),
            "kill_after": kill_after,
            "limits": limits or {},
        }
        said = self._done({"words": list(words), "stdout": str(output), "stderr": str(output), "injected": injected})
        return Outcome(said["status"], output.read_text(encoding="utf-8", errors="replace"), said["seconds"])

    def command(
        self, words: Sequence[str], cwd: Path, *, columns: int = 200, stdout: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``nstudent`` with these words as a person does, with nobody to answer its questions.

        Args:
            words: Arguments of the command line.
            cwd: The working folder.
            columns: Width of the terminal.
            stdout: File that its standard output goes to; ``None``: it is returned.
        """
        files = [self._scratch / "stdout.txt", self._scratch / "stderr.txt"]
        # What this process has in its environment now, and not when the server was started.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": str(columns), "NO_COLOR": "1"}
        job = {
            "words": list(words),
            "stdout": stdout or str(files[0]),
            "stderr": str(files[1]),
            "cwd": str(cwd),
            "environment": environment,
        }
        files[0].write_bytes(b"")
        status = self._done(job)["status"]
        return subprocess.CompletedProcess([*words], status, *(file.read_text(encoding="utf-8") for file in files))

    def _done(self, job: dict[str, Any]) -> dict[str, Any]:
        """What the server says of a job that it has done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the server itself has ended"
        said: dict[str, Any] = json.loads(answer)
        return said


@contextmanager
def fork_server(scratch: Path) -> Iterator[ForkServer]:
    """Start a server; ``scratch`` holds what the children say."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    with subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield ForkServer(process, scratch)
        process.stdin.close()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import_everything()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _be_child(job)
        status = _wait(child, job.get("injected", {}).get("kill_after"))
        print(json.dumps({"status": status, "seconds": time.monotonic() - began}), file=answers, flush=True)


def _keep_progress_where_work_begins() -> None:
    """Not once a second as well: the number of an operation would depend on how busy the machine is."""
    from nstudent.runs import under_way

    under_way._KEEP_SECONDS = math.inf


def _import_everything() -> None:
    from nstudent.runs.plan import STAGES
    from sklearn.datasets import load_digits

    for name in ("cli", "cli.console", "classifier"):
        importlib.import_module(f"nstudent.{name}")
    for stage in STAGES.values():
        stage.load()
    load_digits()


def _wait(child: int, kill_after: float | None) -> int:
    end = time.monotonic() + (_HANGING_SECONDS if kill_after is None else kill_after)
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            end = float("inf")
        time.sleep(_POLL_SECONDS)


def _be_child(job: dict[str, Any]) -> None:
    """Run the command and never come back."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        files = {job["stdout"], job["stderr"]}
        opened = {file: os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for file in files}
        os.dup2(opened[job["stdout"]], 1)
        os.dup2(opened[job["stderr"]], 2)
        if "injected" in job:
            _inject(job["injected"])
        if "cwd" in job:
            os.chdir(job["cwd"])
            os.environ.clear()
            os.environ.update(job["environment"])
        sys.argv = ["nstudent", *job["words"]]
        status = _exit_code()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def _inject(job: dict[str, Any]) -> None:
    _keep_progress_where_work_begins()
    _limit(job["limits"])
    if job["fault"] is not None:
        sys.path.insert(0, str(Path(__file__).parent / "faults"))
        from fault_injection import Fault, Injector

        Injector(Path(job["folder"]), Fault(**job["fault"]), Path(job["log"])).install()


def _exit_code() -> int:
    import traceback

    from nstudent.cli import main

    try:
        main()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _limit(limits: dict[str, int]) -> None:
    import resource

    for name, value in limits.items():
        kind = getattr(resource, name)
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


if __name__ == "__main__":
    _serve()
