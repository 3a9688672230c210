"""``nstudent status``: where the steps of a run stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nstudent.cli.arguments import RunDirArgument

if TYPE_CHECKING:
    from nstudent.runs.status import StepState


def status_command(run_dir: RunDirArgument) -> None:
    """What is done, what is stale and why, and the level accuracy of each step on validation, in percent.

    Beside a process that makes the run: how far it is, and about how long it will still take.
    """
    from nstudent.cli import console
    from nstudent.runs.status import status
    from nstudent.runs.under_way import said, under_way

    states = status(run_dir)
    print_states(states)
    if any(state.state == "stale" for state in states):
        # A step below may be called done, and yet be made again.
        console.print_line("run-all makes a stale step again, and each step that reads it if it comes out different")
    if (found := under_way(run_dir)) is not None:
        names = [state.step.name for state in states]
        console.print_line(f"running: {said(found, names)}")


def print_states(states: Iterable[StepState]) -> None:
    """Print a table with a row for each of these steps."""
    from nstudent.cli import console
    from nstudent.evaluation.scores import HEADLINE
    from nstudent.runs.step_metrics import ChoiceMetrics, RefitMetrics, TrainedMetrics
    from nstudent.runs.words import DOES

    rows = []
    for state in states:
        score, note, trained = "", state.reason, state.metrics
        if isinstance(trained, TrainedMetrics):
            value = trained.validation.get(HEADLINE)
            score = "" if value is None else f"{100 * value:.1f}"
        elif isinstance(trained, ChoiceMetrics):
            score = f"{100 * trained.taken.validation:.1f}"
            note = note or f"takes {trained.chosen}"
        elif isinstance(trained, RefitMetrics):
            # It has learnt from the validation images.
            note = note or f"trains the {trained.name} again"
        rows.append((state.step.name, state.state, score, note or DOES[state.step.stage.name]))
    console.print_status(rows)
