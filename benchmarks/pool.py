"""Runs of settings as processes of their own, several at once, each with one thread; a row is written when one ends."""

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import rows
from core_data import MissingDataError
from settings import SETTINGS, Data, one_core

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
SHARED_GPU = "CUDA_MPS_"
"""What the variables of NVIDIA's multi-process service begin with."""


@dataclass(frozen=True)
class Task:
    """One run that is to be made."""

    key: rows.Key
    words: list[str]
    """``KEY=VALUE`` words, those of the variant apart."""
    variant: list[str]
    device: str
    seconds: float
    """What it takes, roughly, where nothing else runs."""
    alone: bool = False
    """Not by the multi-process service."""

    @property
    def name(self) -> str:
        words = (self.key.setting, self.key.variant, str(self.key.seed), self.key.commit)
        return "-".join(words).replace(" ", "_").replace(",", "")


@dataclass(frozen=True)
class Code:
    """A commit that is measured."""

    name: str
    folder: Path | None
    """Stands before installed packages on the path; ``None``: what is installed."""


@dataclass(frozen=True)
class Asked:
    """Which rows there are to be."""

    settings: list[str]
    variants: dict[str, list[str]]
    seeds: list[int]
    code: list[Code]


@dataclass(frozen=True)
class Running:
    task: Task
    process: "subprocess.Popen[bytes]"
    folder: Path
    began: float


@dataclass
class Pool:
    """Processes under way, at most so many a device."""

    slots: dict[str, int]
    code: dict[str, Path | None]
    folder: Path
    """Where run folders and logs are. A run that was interrupted there is taken up again."""
    out: Path
    """File of the rows."""
    ends: float = float("inf")
    """Moment of ``time.monotonic()`` at which what is under way is stopped."""
    under_way: list[Running] = field(default_factory=list)
    took: dict[str, list[float]] = field(default_factory=dict)
    """By setting, the seconds of each run that has ended."""
    missing: list[str] = field(default_factory=list)
    """What was said of the runs that have no row."""

    def work(self, waiting: list[Task]) -> None:
        """Make the runs in their order until they are made or the time is over."""
        waiting = list(waiting)
        try:
            while (waiting or self.under_way) and time.monotonic() < self.ends:
                self._begin_some(waiting)
                time.sleep(0.1)
                waiting += self._end_some()
        finally:
            self._stop()
        for task in waiting:
            self._say(f"{task.name}: not begun")

    def _begin_some(self, waiting: list[Task]) -> None:
        for task in list(waiting):
            if sum(each.task.device == task.device for each in self.under_way) >= self.slots[task.device]:
                continue
            waiting.remove(task)
            expected = self._expected(task)
            if time.monotonic() + expected > self.ends:
                self._say(f"{task.name}: not begun, it would take {expected:.0f} s")
            else:
                self.under_way.append(self._begin(task))

    def _expected(self, task: Task) -> float:
        """Seconds that a run will take: as the longest of its setting, or as much more as others took."""
        if task.key.setting in self.took:
            return max(self.took[task.key.setting])
        factors = [max(seconds) / SETTINGS[setting].seconds for setting, seconds in self.took.items()]
        return task.seconds * (statistics.median(factors) if factors else 0.0)

    def _begin(self, task: Task) -> Running:
        environment = run_environment(self.code[task.key.commit])
        if task.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        if task.alone:
            environment = {name: value for name, value in environment.items() if not name.startswith(SHARED_GPU)}
        folder = self.folder / task.name
        words = [*task.words, *task.variant, f"seed={task.key.seed}", f"device={task.device}"]
        command = [sys.executable, "-m", "nstudent", "run-all", *words, "--run-dir", str(folder)]
        with (self.folder / f"{task.name}.log").open("ab") as log:
            # A session of its own: the processes that a run starts are stopped with it.
            process = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        return Running(task, process, folder, time.monotonic())

    def _end_some(self) -> list[Task]:
        """Write the rows of the runs that have ended; returns what is to be tried again."""
        again = []
        for running in [each for each in self.under_way if each.process.poll() is not None]:
            self.under_way.remove(running)
            task, took = running.task, time.monotonic() - running.began
            if not running.process.returncode:
                self._keep(running, took)
            else:
                self._say(f"{task.name}: failed after {took:.0f} s: {_last(running, 1200)}")
                if not task.alone and task.device == "cuda" and any(name.startswith(SHARED_GPU) for name in os.environ):
                    shutil.rmtree(running.folder, ignore_errors=True)
                    again.append(replace(task, alone=True))
        return again

    def _keep(self, running: Running, took: float) -> None:
        task = running.task
        self.took.setdefault(task.key.setting, []).append(took)
        key = {"setting": task.key.setting, "variant": task.key.variant, "seed": task.key.seed}
        what = {
            "commit": task.key.commit,
            "words": [_portable(word) for word in task.variant],
            "device": task.device,
            "wall": round(took, 1),
        }
        rows.append(self.out, {**key, **what, **rows.of_run(running.folder)})
        shutil.rmtree(running.folder)
        print(f"{task.name}: {took:.0f} s", flush=True)

    def _stop(self) -> None:
        for running in self.under_way:
            os.killpg(running.process.pid, signal.SIGKILL)
            running.process.wait()
            took = time.monotonic() - running.began
            self._say(f"{running.task.name}: stopped after {took:.0f} s: {_last(running)}")

    def _say(self, text: str) -> None:
        self.missing.append(text)
        print(text, flush=True)


def run_environment(code: Path | None) -> dict[str, str]:
    """Variables of a run with one thread by the code of a folder, or by what is installed."""
    path = [str(code)] if code else []
    path += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(path), "NO_ALBUMENTATIONS_UPDATE": "1"}


def tasks(asked: Asked, there: Iterable[rows.Json], data: Data, device: str | None = None) -> list[Task]:
    """The runs that have no row yet: seed 0 of all before seed 1, and those that take longest first.

    Raises:
        SystemExit: a file of a setting is missing; the message says which.
    """
    made = {rows.Key.of(row) for row in there}
    found = []
    for setting, variant, seed, code in product(asked.settings, asked.variants, asked.seeds, asked.code):
        key = rows.Key(setting, variant, seed, code.name)
        if key in made:
            continue
        entry = SETTINGS[setting]
        try:
            words = [*entry.words(data, seed), *one_core(code.name)]
        except MissingDataError as error:
            raise SystemExit(str(error)) from error
        found.append(Task(key, words, asked.variants[variant], device or entry.device, entry.seconds))
    return sorted(found, key=lambda task: (task.key.seed, -task.seconds))


def _portable(word: str) -> str:
    """A word without the folders of this machine."""
    return re.sub(r"(?<=[ =\[])/(?:[^/ ,}\]]+/)*", "", word)


def _last(running: Running, characters: int = 300) -> str:
    """The end of what a run has said, in one line."""
    log = running.folder.parent / f"{running.folder.name}.log"
    return " ".join(log.read_text(errors="replace")[-characters:].split())
