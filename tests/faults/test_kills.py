"""Kill -9 anywhere, run the same command again: the bytes are those of a run that was left alone.

Every operation and hundreds of random moments are struck in benchmarks/kill_campaign.py; here is a sample of each.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fault_injection import KILL, TEAR, Fault
from fork_server import ForkServer
from interrupted_run import differences, finish, strike, stumps
from tiny_run import STAGES, results, run_all_words, stage_at_work

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from conftest import WholeRun

_MOST_KILLS = 40


@pytest.mark.parametrize(("kind", "every"), [(KILL, 67), (TEAR, 58)])
def test_a_run_that_dies_again_and_again_ends_the_same(
    server: ForkServer, whole: WholeRun, run_dir: Path, kind: str, every: int
) -> None:
    """Each process gets so many operations further than where it woke up, and dies there: in every stage."""
    stages = set()
    for _ in range(_MOST_KILLS):
        done = server.run(run_all_words(run_dir), run_dir, Fault(every, kind))
        assert stumps(run_dir) == []
        if done.status == 0:
            break
        assert done.status == -signal.SIGKILL, done.error
        stages.add(stage_at_work(run_dir).removeprefix("after "))
    assert differences(results(run_dir), whole.results) == []
    assert stages >= {"teacher", "baseline", "pseudolabel", "filter", "student"}


def test_a_refit_that_dies_again_and_again_ends_the_same(
    server: ForkServer, whole: WholeRun, run_dir: Path, tmp_path: Path
) -> None:
    """A finished run is gone on with, once in one go and once in pieces."""
    shutil.copytree(whole.folder, tmp_path / "run")
    done = server.run(run_all_words(tmp_path / "run", "final.refit=true"), tmp_path / "run", Fault(-1))
    assert done.status == 0, done.error
    shutil.copytree(whole.folder, run_dir)
    killed = 0
    for _ in range(_MOST_KILLS):
        done = server.run(run_all_words(run_dir, "final.refit=true"), run_dir, Fault(120, KILL))
        assert stumps(run_dir) == []
        if done.status == 0:
            break
        assert done.status == -signal.SIGKILL, done.error
        killed += stage_at_work(run_dir) == "refit"
    assert killed > 1
    assert differences(results(run_dir), results(tmp_path / "run")) == []


def test_meta_pseudo_labels_that_die_again_and_again_end_the_same(
    server: ForkServer, whole: WholeRun, run_dir: Path, tmp_path: Path
) -> None:
    """Two networks that learn together, and the fine-tuning of one of them."""
    words = ("student.method=meta_pseudo_labels", "student.meta.finetune_epochs=2")
    shutil.copytree(whole.folder, tmp_path / "run")
    done = server.run(run_all_words(tmp_path / "run", *words), tmp_path / "run", Fault(-1))
    assert done.status == 0, done.error
    shutil.copytree(whole.folder, run_dir)
    killed = 0
    for _ in range(_MOST_KILLS):
        done = server.run(run_all_words(run_dir, *words), run_dir, Fault(67, KILL))
        assert stumps(run_dir) == []
        if done.status == 0:
            break
        assert done.status == -signal.SIGKILL, done.error
        killed += stage_at_work(run_dir) == "student"
    assert done.status == 0, f"not done after {_MOST_KILLS} lives, at {stage_at_work(run_dir)}"
    assert killed > 1
    assert differences(results(run_dir), results(tmp_path / "run")) == []


@pytest.mark.parametrize(
    ("step", "kind", "name"),
    [
        ("01-teacher", "fsync", "01-teacher.partial/.manifest.json.writing"),
        ("04-pseudolabel", "rename", "04-pseudolabel"),
    ],
    ids=["while the manifest is written", "before the step has its name"],
)
def test_a_kill_in_the_middle_of_a_commit(
    server: ForkServer, whole: WholeRun, run_dir: Path, step: str, kind: str, name: str
) -> None:
    at = whole.operations.index((kind, name))
    trial = strike(server, run_dir, whole.results, Fault(at, TEAR))
    assert trial.struck.status == -signal.SIGKILL
    assert trial.stage == step.partition("-")[2]
    assert trial.wrong == []


def test_a_kill_at_any_moment(server: ForkServer, whole: WholeRun, run_dir: Path) -> None:
    """By the clock, and so at another moment every time: in a computation as well as in a write."""
    trial = strike(server, run_dir, whole.results, kill_after=0.6 * whole.seconds)
    assert trial.struck.status in (-signal.SIGKILL, 0)
    assert trial.wrong == []


def test_shards_that_were_finished_before_a_kill_are_not_made_again(
    server: ForkServer, whole: WholeRun, run_dir: Path
) -> None:
    partial = run_dir / "04-pseudolabel.partial"
    last_shard = ("rename", "04-pseudolabel.partial/labels-000000016-000000030.h5")
    server.run(run_all_words(run_dir), run_dir, Fault(whole.operations.index(last_shard)))
    (finished,) = partial.glob("labels-*.h5")
    before = finished.stat().st_mtime_ns
    assert finish(server, run_dir, whole.results) == []
    assert (run_dir / "04-pseudolabel" / finished.name).stat().st_mtime_ns == before


def test_the_comparison_can_fail(server: ForkServer, whole: WholeRun, run_dir: Path) -> None:
    """Another seed makes other bytes in every step: what is compared is what was made."""
    done = server.run(run_all_words(run_dir, "seed=1"), run_dir)
    assert done.status == 0
    differ = {line.partition("/")[0] for line in differences(results(run_dir), whole.results) if "/" in line}
    assert {name.partition("-")[2] for name in differ if name[:1].isdigit()} == set(STAGES)
