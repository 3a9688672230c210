"""One run that something happens to, and the same command again: does it end as if nothing had happened?"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fault_injection import Fault
from fork_server import ForkServer, Outcome
from tiny_run import results, run_all_words, stage_at_work

Results = dict[str, str]


@dataclass(frozen=True)
class Trial:
    """What came of it."""

    struck: Outcome
    """How the command ended that something happened to."""
    stage: str
    """What the run was at."""
    wrong: list[str] = field(default_factory=list)
    """What is not as it should be; empty: nothing."""


def strike(
    server: ForkServer,
    run_dir: Path,
    whole: Results,
    fault: Fault | None = None,
    *,
    kill_after: float | None = None,
    overrides: tuple[str, ...] = (),
) -> Trial:
    """Let a fault happen to a run (or kill it after some seconds), run it again, and compare with the whole run."""
    words = run_all_words(run_dir, *overrides)
    struck = server.run(words, run_dir, fault, kill_after=kill_after)
    stage = stage_at_work(run_dir)
    wrong = stumps(run_dir)
    if fault is not None and fault.kind.startswith("E") and struck.status != 0:
        wrong += unhelpful(struck)
    return Trial(struck, stage, wrong + finish(server, run_dir, whole, overrides))


def finish(server: ForkServer, run_dir: Path, whole: Results, overrides: tuple[str, ...] = ()) -> list[str]:
    """Run to the end; returns what differs from the whole run."""
    done = server.run(run_all_words(run_dir, *overrides), run_dir)
    if done.status != 0:
        return [f"the same command ended with {done.status}: {done.error[-500:]}"]
    return differences(results(run_dir), whole)


def differences(found: Results, whole: Results) -> list[str]:
    """One line for every file that is not what it is after an uninterrupted run."""
    missing = [f"{name} is missing" for name in whole.keys() - found.keys()]
    more = [f"{name} is left over" for name in found.keys() - whole.keys()]
    other = [f"{name} differs" for name in whole.keys() & found.keys() if whole[name] != found[name]]
    return sorted(missing + more + other)


@contextmanager
def in_training(
    run_dir: Path, *overrides: str, checkpoint: str = "01-teacher.partial/scratch/*"
) -> "Iterator[subprocess.Popen[str]]":
    """The command in a process of its own, with a checkpoint on disk: the first of its teacher."""
    command = [sys.executable, "-m", "nstudent", *run_all_words(run_dir, *overrides)]
    # If it ever ends with an abort, its standard error says which thread was where.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as run:
        while not any(run_dir.glob(checkpoint)) and run.poll() is None:
            time.sleep(0.005)
        yield run


def stumps(run_dir: Path) -> list[str]:
    """Files that have their final name and not their content: of the steps that exist, by their manifests."""
    from nstudent.errors import ArtifactError
    from nstudent.storage.artifact import Artifact

    wrong = []
    for folder in sorted(run_dir.glob("[0-9][0-9]-*")) if run_dir.exists() else []:
        if folder.suffix in (".partial", ".before"):
            continue
        try:
            made = Artifact(folder)
            for name in made.manifest.files:
                made.path(name)
        except ArtifactError as error:
            wrong.append(f"a stump: {error}")
    return wrong


def unhelpful(outcome: Outcome) -> list[str]:
    """What is wrong with the way a command told of an error: it should be one line that says what to put right."""
    lines = outcome.error.strip().splitlines()
    last = lines[-1] if lines else ""
    if outcome.status < 0 or "Traceback" in outcome.error or not last.startswith("nstudent: "):
        return [f"ended with {outcome.status} and said: {outcome.error[-400:]}"]
    return []
