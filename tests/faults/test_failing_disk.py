"""A disk that refuses: the last good state stays, one line says what happened, and afterwards the run goes on.

Errors are raised at the operation itself, before Python hands it to the system; real file systems that are full or
read-only stand in test_real_disks.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fault_injection import Fault, recorded
from fork_server import ForkServer
from interrupted_run import differences, finish, stumps, unhelpful
from tiny_run import TINY, results, run_all_words

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from conftest import WholeRun

_MOST_FAILURES = 40


def test_a_full_disk_anywhere_in_a_step(server: ForkServer, run_dir: Path) -> None:
    """Every fifth operation; benchmarks/kill_campaign.py --every ENOSPC takes all of them."""
    words = ["stage", "data", *TINY, "--run-dir"]
    first = run_dir.with_name("first")
    assert server.run([*words, str(first)], first, Fault(-1)).status == 0
    # The last operation removes the note of who holds the folder: that may fail, and a full disk lets it.
    for at in range(0, len(recorded(server.log)) - 1, 5):
        folder = run_dir.with_name(f"full{at}")
        failed = server.run([*words, str(folder)], folder, Fault(at, "ENOSPC", lasting=True))
        if failed.status != 0:
            assert unhelpful(failed) == []
            assert "No space left on device" in failed.error
        assert stumps(folder) == []
        assert server.run([*words, str(folder)], folder).status == 0
        assert results(folder) == results(first), f"after a full disk at operation {at}"


def test_a_run_whose_disk_is_full_again_and_again_ends_the_same(
    server: ForkServer, whole: WholeRun, run_dir: Path
) -> None:
    failures, every = 0, 61
    for _ in range(_MOST_FAILURES):
        done = server.run(run_all_words(run_dir), run_dir, Fault(every, "ENOSPC", lasting=True))
        assert stumps(run_dir) == []
        if done.status == 0:
            break
        assert unhelpful(done) == []
        failures += 1
    assert failures >= len(whole.operations) // every
    assert differences(results(run_dir), whole.results) == []


@pytest.mark.parametrize(
    ("error", "name"),
    [(error, "01-teacher.partial") for error in ("EROFS", "EDQUOT", "EACCES", "EMFILE")] + [("EROFS", "02-baseline")],
)
def test_other_refusals_are_one_line_too(
    server: ForkServer, whole: WholeRun, run_dir: Path, error: str, name: str
) -> None:
    at = next(n for n, (kind, path) in enumerate(whole.operations) if path == name and kind in ("mkdir", "rename"))
    failed = server.run(run_all_words(run_dir), run_dir, Fault(at, error))
    assert failed.status != 0
    assert unhelpful(failed) == []
    assert name in failed.error.splitlines()[-1]


def test_a_failing_sync_is_not_taken_for_a_write(server: ForkServer, whole: WholeRun, run_dir: Path) -> None:
    """A disk that reports its error only when it is asked to sync: the file must not get its name."""
    at = whole.operations.index(("fsync", "01-teacher.partial/.member-0.safetensors.writing"))
    failed = server.run(run_all_words(run_dir), run_dir, Fault(at, "EIO"))
    assert unhelpful(failed) == []
    assert "member-0.safetensors" in failed.error
    assert not (run_dir / "01-teacher.partial" / "member-0.safetensors").exists()
    assert finish(server, run_dir, whole.results) == []
