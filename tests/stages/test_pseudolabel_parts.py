"""A heap that several jobs label, which know nothing of each other."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from nstudent.config.schema import Config
from nstudent.distributed.world import IndependentJob
from nstudent.errors import ArtifactError, BusyError, ConfigError
from nstudent.runs.run import run_part, run_stage
from nstudent.storage.artifact import Manifest
from nstudent.storage.commit import partial_folder
from nstudent.storage.lock import hold, hold_part

STEP = "04-pseudolabel"
ROWS = "pseudolabel.shard_rows=50"


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("labels-0*.h5")}


@pytest.mark.slow
def test_parts_made_in_any_order_are_the_labels_of_one_job(
    go_on: Path, finished: Path, tiny: Callable[..., Config]
) -> None:
    config = tiny(ROWS)
    partial = partial_folder(go_on / STEP)
    for number, made in ((2, 1), (0, 3), (1, 5)):
        assert run_part(config, "pseudolabel", IndependentJob(number, 3), go_on) == partial
        assert len(shards(partial)) == made
    times = {path.name: path.stat().st_mtime_ns for path in partial.glob("labels-0*.h5")}
    run_stage(config, "pseudolabel", go_on)
    assert {path.name: path.stat().st_mtime_ns for path in (go_on / STEP).glob("labels-0*.h5")} == times
    assert not list(go_on.glob(".lock-part*")), "what the jobs left is cleared away"

    alone = go_on.with_name("alone")
    subprocess.run(["cp", "-r", str(finished), str(alone)], check=True)
    run_stage(config, "pseudolabel", alone)
    assert Manifest.read(go_on / STEP).id == Manifest.read(alone / STEP).id


def test_what_no_job_has_made_is_made_in_the_end(go_on: Path, tiny: Callable[..., Config]) -> None:
    run_part(tiny(ROWS), "pseudolabel", IndependentJob(0, 2), go_on)
    run_stage(tiny(ROWS), "pseudolabel", go_on)
    assert len(shards(go_on / STEP)) == 5


@pytest.mark.slow
def test_jobs_that_start_together_make_the_labels_of_one(
    go_on: Path, finished: Path, tiny: Callable[..., Config], tiny_words: tuple[str, ...]
) -> None:
    command = [sys.executable, "-m", "nstudent", "stage", "pseudolabel", *tiny_words, ROWS, "--run-dir", str(go_on)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    jobs = [
        subprocess.Popen([*command, "--shard", f"{n}/2"], stderr=subprocess.PIPE, text=True, env=environment)
        for n in range(2)
    ]
    for job in jobs:
        _, error = job.communicate(timeout=300)
        assert job.returncode == 0, error
    run_stage(tiny(ROWS), "pseudolabel", go_on)
    assert len(shards(go_on / STEP)) == 5


def test_nobody_works_on_the_whole_while_a_job_works_on_a_part(go_on: Path, tiny: Callable[..., Config]) -> None:
    with hold_part(go_on, 1, 4):
        with hold(go_on, beside_parts=True):
            pass
        with pytest.raises(BusyError, match=r"part 1/4 of .* is being worked on: wait for that job"):
            run_stage(tiny(ROWS), "pseudolabel", go_on)
        with pytest.raises(BusyError, match=r"part 1/4 of .* by another process"), hold_part(go_on, 1, 4):
            pytest.fail("two jobs make one part")
        with hold_part(go_on, 2, 4):
            pass
    with hold(go_on):
        pass


def test_only_labels_are_made_in_parts_and_only_where_they_are_needed(go_on: Path, tiny: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match="--shard is for the stage pseudolabel; student cannot"):
        run_part(tiny(), "student", IndependentJob(0, 2), go_on)
    with pytest.raises(ConfigError, match="needs no labels"):
        run_part(tiny(), "pseudolabel", IndependentJob(0, 2), go_on)


def test_a_part_needs_its_labeller(untrained: Path, tiny: Callable[..., Config]) -> None:
    with pytest.raises(ArtifactError, match="pseudolabel needs 03-choose"):
        run_part(tiny(), "pseudolabel", IndependentJob(0, 2), untrained)


_HALTED = """
import os, signal, sys
from nstudent import cli
from nstudent.storage import files
replace = os.replace
def halted(source, target):
    # Two jobs have this file half written at the same time: one waits here, before it has its name.
    if os.path.basename(target) == "labels-000000000-000000050.h5":
        print("half written", flush=True)
        if sys.stdin.readline() == "die\\n":
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
files.os.replace = halted
cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["die\n", "go on\n"])
def test_two_divisions_of_one_labelling_beside_each_other_break_nothing(
    go_on: Path, finished: Path, tiny: Callable[..., Config], tiny_words: tuple[str, ...], end: str
) -> None:
    """Part 0/2 and part 0/3 both begin with the first shard, and one job may be killed at any moment."""
    alone = Path(shutil.copytree(go_on, go_on.with_name("alone")))
    run_stage(tiny(ROWS), "pseudolabel", alone)
    words = ["stage", "pseudolabel", *tiny_words, ROWS, "--run-dir", str(go_on)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", _HALTED, *words, "--shard", "0/3"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    ) as other:  # fmt: skip
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "half written\n"
        # It never looks at what the other job has half written, and the shard it leaves is whole.
        run_part(tiny(ROWS), "pseudolabel", IndependentJob(0, 2), go_on)
        before = shards(partial_folder(go_on / STEP))
        other.stdin.write(end)
        other.stdin.close()
        other.wait(timeout=300)
    for name, content in before.items():
        assert (partial_folder(go_on / STEP) / name).read_bytes() == content == (alone / STEP / name).read_bytes()
    run_stage(tiny(ROWS), "pseudolabel", go_on)
    assert Manifest.read(go_on / STEP).files == Manifest.read(alone / STEP).files
    assert not list(go_on.rglob(".*.writing")), "what a killed job leaves is cleared away"
