"""What a run is at that another process makes: kept in its folder beside the work, for ``status`` and the report."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nstudent.errors import ArtifactError
from nstudent.progress import Progress, Task, figure_in_words
from nstudent.runs.remaining import Remaining, in_words
from nstudent.storage.files import read_json, remove_file, write_json
from nstudent.storage.json_record import JsonRecord
from nstudent.storage.lock import is_held

PROGRESS = "progress.json"
"""In the run folder while a run is made: what it is at."""
_KEEP_SECONDS = 1.0
"""It is written, and the time that is left estimated anew, at most so often."""


@dataclass(frozen=True)
class Work(JsonRecord):
    """One piece of work that is under way."""

    name: str
    done: int
    total: int
    unit: str
    shown: dict[str, float]
    """Figures worth seeing, such as the loss; as ``Task.advance`` is given them."""


@dataclass(frozen=True)
class UnderWay(JsonRecord):
    """What a run is at that another process makes."""

    step: str | None
    """Name of the step that is being made; ``None`` before the first one."""
    work: tuple[Work, ...]
    """What is under way of it, and what other processes of the run train beside it."""
    seconds_left: float | None
    """Until the end of the run or stage, about; ``None`` if too little is known."""
    of: str = "run"
    """``run``, or ``stage`` if one stage alone is being made."""


class Followed:
    """Progress of a run that is kept in its folder, too, and shows when the run ends."""

    def __init__(self, progress: Progress, remaining: Remaining, run_dir: Path, of: str = "run") -> None:
        """Pass on to ``progress`` what is told, and take from ``remaining`` when the run, or the one stage, ends."""
        self._progress = progress
        self._remaining = remaining
        self._path = run_dir / PROGRESS
        self._of = of
        self._step: str | None = None
        self._work: dict[int, Work] = {}
        """By task, in the order in which they began."""
        self._kept = -math.inf
        self._figures: dict[str, float] = {}

    def begin(self, step: str) -> None:
        """Note that a step of the run is being made from now on."""
        self._step = step
        self._keep()

    def end(self) -> None:
        """Remove what was kept: the run has ended."""
        remove_file(self._path)

    def say(self, text: str) -> None:
        """Pass it on."""
        self._progress.say(text)

    @contextmanager
    def task(self, name: str, total: int, unit: str, done: int = 0) -> Iterator[Task]:
        """Pass it on, and keep how far the work is; every ``advance`` shows when the run ends."""
        number = max(self._work, default=0) + 1
        self._work[number] = Work(name, done, total, unit, {})
        if self._step is not None and total:
            self._remaining.looks(self._step, done / total)
        self._keep()
        with self._progress.task(name, total, unit, done) as task:
            try:
                yield _FollowedTask(self, task, number)
            finally:
                del self._work[number]

    def advanced(self, number: int, amount: int, shown: Mapping[str, float]) -> dict[str, float]:
        """Take in how far a piece of work is; returns the figures to show of it."""
        work = self._work[number]
        # A loss that has become infinite is not JSON.
        finite = {name: value for name, value in shown.items() if math.isfinite(value)}
        self._work[number] = Work(work.name, work.done + amount, work.total, work.unit, finite)
        if self._step is not None and work.total:
            self._remaining.looks(self._step, (work.done + amount) / work.total)
        # Asked after every training step, which takes a GPU less than a millisecond.
        if time.monotonic() - self._kept >= _KEEP_SECONDS:
            self._keep()
        return {**shown, **self._figures}

    def _keep(self) -> None:
        self._kept = time.monotonic()
        left = self._remaining.seconds_left()
        self._figures = {f"{self._of} ends in min": round(left / 60, 1)} if left else {}
        found = UnderWay(self._step, tuple(self._work.values()), None if left is None else round(left, 1), self._of)
        write_json(self._path, found.to_json(), lasts=False)


class _FollowedTask:
    def __init__(self, followed: Followed, task: Task, number: int) -> None:
        self._followed = followed
        self._task = task
        self._number = number

    def advance(self, amount: int, **shown: float) -> None:
        self._task.advance(amount, **self._followed.advanced(self._number, amount, shown))


def under_way(run_dir: Path) -> UnderWay | None:
    """What a run is at that a process makes now; ``None`` if none does."""
    if not (run_dir / PROGRESS).exists() or not is_held(run_dir):
        return None
    try:
        return UnderWay.from_json(read_json(run_dir / PROGRESS))
    except (ArtifactError, ValueError):
        # It has ended in this moment.
        return None


def said(found: UnderWay, steps: Sequence[str]) -> str:
    """What a run is at, in a line.

    Args:
        found: What it is at.
        steps: Names of all of its steps.
    """
    parts = []
    if found.step is not None:
        number = f"step {steps.index(found.step) + 1} of {len(steps)}, " if found.step in steps else ""
        parts.append(f"{number}{found.step}")
    parts += [_of_work(work) for work in found.work]
    if found.seconds_left is not None:
        parts.append(f"{in_words(found.seconds_left)} to the end of the {found.of}")
    return "; ".join(parts)


def _of_work(work: Work) -> str:
    figures = [figure_in_words(name, value) for name, value in work.shown.items()]
    return ", ".join([f"{work.name}: {work.done:,} of {work.total:,} {work.unit}", *figures])
