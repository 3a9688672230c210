"""Two processes that torchrun starts: they share the work, stop together, and what one loses none of them keeps."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from fork_server import ForkServer
from interrupted_run import Results, differences
from tiny_run import results, run_all_words

pytestmark = pytest.mark.slow

_SECONDS = 300


@contextmanager
def _pair(
    run_dir: Path, *overrides: str, restarts: int = 0, program: Sequence[str] = ("-m", "nstudent")
) -> Iterator[subprocess.Popen[str]]:
    """The command in two processes, which torchrun looks after."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", f"--max-restarts={restarts}"]
    command = [sys.executable, *torchrun, *program, *run_all_words(run_dir, *overrides)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as run:
        yield run


def _wait_for_checkpoint(run_dir: Path, step: str, run: subprocess.Popen[str]) -> None:
    scratch = run_dir / f"{step}.partial" / "scratch"
    end = time.monotonic() + _SECONDS
    while not list(scratch.glob("*.safetensors")):
        assert run.poll() is None, run.stdout.read() if run.stdout else ""
        assert time.monotonic() < end
        time.sleep(0.01)


def _workers(torchrun: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split()]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """An uninterrupted run of two processes."""
    folder = tmp_path_factory.mktemp("pair") / "run"
    with _pair(folder) as run:
        said, _ = run.communicate(timeout=_SECONDS)
    assert run.returncode == 0, said
    assert "Warning" not in said
    return folder, results(folder)


def test_the_same_labeller_labels_alike_in_one_process_and_in_two(
    pair: tuple[Path, Results], server: ForkServer, run_dir: Path
) -> None:
    shutil.copytree(pair[0], run_dir)
    shutil.rmtree(run_dir / "04-pseudolabel")
    labels = ["stage", "pseudolabel", "--config", str(run_dir / "config.yaml"), "--run-dir", str(run_dir)]
    done = server.run(labels, run_dir)
    assert done.status == 0, done.error
    assert len(list((run_dir / "04-pseudolabel").glob("labels-*.h5"))) > 1
    assert differences(results(run_dir), pair[1]) == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes as Linux shows them")
def test_a_signal_stops_both_at_one_step_and_a_killed_one_is_started_again(
    pair: tuple[Path, Results], run_dir: Path
) -> None:
    """One run that has to be told three times: stopped, gone on with and killed, restarted."""
    with _pair(run_dir) as run:
        _wait_for_checkpoint(run_dir, "01-teacher", run)
        run.send_signal(signal.SIGTERM)
        said, _ = run.communicate(timeout=_SECONDS)
    assert run.returncode != 0
    assert "the same command goes on" in said
    assert "has ended" not in said, "one of them went on without the other"
    with _pair(run_dir, restarts=1) as run:
        _wait_for_checkpoint(run_dir, "02-baseline", run)
        os.kill(_workers(run.pid)[1], signal.SIGKILL)
        said, _ = run.communicate(timeout=_SECONDS)
    assert run.returncode == 0, said
    assert said.count("00-data: up to date") == 2, "it was started again"
    assert differences(results(run_dir), pair[1]) == []


_STOPPED_IN_VALIDATION = """
import os, signal, sys
from nstudent import cli
from nstudent.evaluation.validation import Validation
rank, told, ask = os.environ["RANK"], sys.argv.pop(1), Validation._stop_together
asked = 0
def asks(validation):
    global asked
    asked += 1
    # In one piece: both write to the same pipe.
    os.write(1, f"process {rank} asks after batch {asked}\\n".encode())
    if asked == 3 and rank == told:
        os.kill(os.getpid(), signal.SIGTERM)
    ask(validation)
Validation._stop_together = asks
cli.main()
"""


def test_a_signal_to_one_of_them_stops_both_in_the_middle_of_a_validation(
    pair: tuple[Path, Results], run_dir: Path, tmp_path: Path
) -> None:
    """On machines of their own only one may hear of it; the other one waits for the score, or makes it."""
    script = tmp_path / "stopped.py"
    script.write_text(_STOPPED_IN_VALIDATION)
    for told in ("0", "1"):
        with _pair(run_dir, program=(str(script), told)) as run:
            said, _ = run.communicate(timeout=_SECONDS)
        assert run.returncode != 0, said
        assert "the same command goes on" in said
        assert "has ended" not in said, "one of them went on without the other"
        for rank in "01":
            assert f"process {rank} asks after batch 3\n" in said
            assert f"process {rank} asks after batch 4\n" not in said
        assert list((run_dir / "01-teacher.partial" / "scratch" / "walks").glob("*.h5")), "what was labelled is kept"
    with _pair(run_dir) as run:
        said, _ = run.communicate(timeout=_SECONDS)
    assert run.returncode == 0, said
    assert differences(results(run_dir), pair[1]) == []
