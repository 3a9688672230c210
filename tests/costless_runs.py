"""Runs of stages that cost nothing: what was made, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nstudent import Session, load_config, plan, run_all
from nstudent.runs.status import status

_FIRST = ["00-data", "01-teacher", "02-baseline", "03-choose", "04-pseudolabel", "05-filter", "06-student", "07-choose"]
ONE_ROUND = [*_FIRST, "08-evaluate"]
TWO_ROUNDS = [*_FIRST, "08-pseudolabel", "09-filter", "10-student", "11-choose", "12-evaluate"]


class Told:
    """Progress that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def task(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("these stages have no long work")


def steps_made(run_dir: Path, *overrides: str) -> dict[str, str]:
    """Run everything; why each step was made, in order."""
    told = Told()
    run_all(load_config(None, ["rounds=1", "probe.members=[]", *overrides]), run_dir, Session(progress=told))
    said = dict(line.split(": ", 1) for line in told.lines)
    return {name: reason for name, reason in said.items() if reason != "up to date"}


def states(run_dir: Path) -> dict[str, str]:
    """Of every step."""
    return {found.step.name: found.state for found in status(run_dir)}


def reasons(run_dir: Path) -> dict[str, str]:
    """Why steps are stale."""
    return {found.step.name: found.reason for found in status(run_dir) if found.reason}


def planned(rounds: int) -> dict[str, list[str]]:
    """By step, the steps that it reads."""
    return {
        step.name: [name for _, name in step.inputs]
        for step in plan(load_config(None, [f"rounds={rounds}", "probe.members=[]"]))
    }
