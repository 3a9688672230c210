"""Trainings side by side: the bytes of one after another, also where one of the processes is killed or told to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from fork_server import ForkServer
from interrupted_run import Results, differences, finish, in_training
from nstudent import load_config, plan
from nstudent.storage.artifact import Manifest
from tiny_run import TINY, results, run_all_words

THREE_MEMBERS = ("teacher.members=[{}, {}, {}]", "student.epochs=8")
SIDE_BY_SIDE = (*THREE_MEMBERS, "jobs=2")
BASELINE = "02-baseline.partial/scratch/baseline.safetensors"
"""Of the training that the other process begins with."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them"),
]


@pytest.fixture(scope="module")
def one_after_another(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("one-after-another") / "run"
    done = server.run(run_all_words(folder, *THREE_MEMBERS), folder)
    assert done.status == 0, done.error
    return results(folder)


def test_side_by_side_the_bytes_are_those_of_one_after_another(
    run_dir: Path, one_after_another: Results, python: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    """Called from a script as people write them: a second process must not run it again."""
    script = tmp_path / "script.py"
    script.write_text(
        "from nstudent import Session, load_config, run_all\n"
        "from nstudent.screen.bars import Screen\n"
        "from nstudent.listener import NoListener\n"
        "class Steps(NoListener):\n"
        "    def made(self, step, metrics):\n"
        "        print(step, metrics['validation']['level accuracy'] if step == '02-baseline' else '')\n"
        "session = Session(progress=Screen(), listener=Steps())\n"
        f"run_all(load_config(None, {[*TINY, *SIDE_BY_SIDE]}), {str(run_dir)!r}, session)\n"
        "print('once')\n"
    )
    done = python(str(script))
    assert done.returncode == 0, done.stderr
    *made, last = done.stdout.splitlines()
    assert last == "once"
    # The baseline was made by another process.
    score = Manifest.read(run_dir / "02-baseline").metrics["validation"]["level accuracy"]
    assert f"02-baseline {score}" in made
    assert sorted(line.split()[0] for line in made) == [step.name for step in plan(load_config(None, TINY))]
    assert differences(results(run_dir), one_after_another) == ["config.yaml differs"]
    # On a slow machine a line says from time to time how much is left.
    lines = [line.split(":")[0].strip() for line in done.stderr.splitlines() if " s left" not in line]
    # The end of each is said once. The baseline is begun with the first member.
    assert [lines.count(name) for name in ("member 0", "member 1", "member 2", "baseline", "02-baseline")] == [1] * 5
    assert lines.index("02-baseline") < lines.index("01-teacher")


def test_a_killed_run_leaves_no_process_behind_and_the_same_command_goes_on(
    server: ForkServer, run_dir: Path, one_after_another: Results
) -> None:
    with in_training(run_dir, *SIDE_BY_SIDE, checkpoint=BASELINE) as run:
        others = _children(run.pid)
        trainings = _trainings(others)
        run.kill()
        run.wait()
    assert len(trainings) == 1
    assert finish(server, run_dir, one_after_another, THREE_MEMBERS) == []
    assert not any(map(_alive, others))


def test_a_killed_training_is_said_in_a_line_and_the_same_command_goes_on(
    server: ForkServer, run_dir: Path, one_after_another: Results
) -> None:
    with in_training(run_dir, *SIDE_BY_SIDE, checkpoint=BASELINE) as run:
        (training,) = _trainings(_children(run.pid))
        os.kill(training, signal.SIGKILL)
        _, error = run.communicate(timeout=300)
    assert run.returncode == 2, error
    assert error.splitlines()[-1] == (
        "nstudent: a process that trains beside this one was killed (exit code -9), at 02-baseline: "
        "probably out of memory; lower jobs, the same command goes on from there"
    )
    assert finish(server, run_dir, one_after_another, THREE_MEMBERS) == []


@pytest.mark.parametrize(
    ("begun", "kept", "to_all"),
    [
        # As schedulers do: to the run and to what it has started.
        ("01-teacher.partial/scratch", "01-teacher.partial/scratch/member-0.safetensors", True),
        ("02-baseline.partial/scratch", BASELINE, False),
    ],
    ids=["to all of them while one starts", "to the run while the other process trains"],
)
def test_a_signal_stops_all_of_them_after_a_checkpoint(
    server: ForkServer, run_dir: Path, one_after_another: Results, begun: str, kept: str, to_all: bool
) -> None:
    with in_training(run_dir, *SIDE_BY_SIDE, "checkpoint_minutes=60", checkpoint=begun) as run:
        trainings = _trainings(_children(run.pid))
        for process in (run.pid, *trainings) if to_all else (run.pid,):
            os.kill(process, signal.SIGTERM)
        _, error = run.communicate(timeout=300)
    assert run.returncode == 75, error
    assert "stopped by SIGTERM" in error
    assert len(trainings) == 1
    assert not any(map(_alive, trainings))
    # No checkpoint was due: it is that of the stop.
    assert (run_dir / kept).exists()
    assert finish(server, run_dir, one_after_another, THREE_MEMBERS) == []


def test_an_error_of_another_process_is_that_of_the_run(server: ForkServer, run_dir: Path) -> None:
    diverging = ("teacher.members=[{}, {}]", "student.learning_rate=1e30", "student.clip_norm=null")
    alone, beside = (
        server.run(run_all_words(run_dir / jobs, *diverging, jobs), run_dir / jobs) for jobs in ("jobs=1", "jobs=2")
    )
    assert (alone.status, beside.status) == (2, 2)
    assert "Traceback" not in beside.error
    assert alone.error.splitlines()[-1] == beside.error.splitlines()[-1]
    assert "baseline" in beside.error


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _trainings(pids: list[int]) -> list[int]:
    """Python starts one more, which keeps count of semaphores."""
    return [pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
