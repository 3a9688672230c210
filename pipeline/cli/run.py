"""``nstudent run-all`` and ``nstudent stage``: making the steps of a run, in one process or several."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from nstudent.cli.arguments import ConfigOption, Overrides, RunDirOption, StageName
from nstudent.cli.interruption import USER_ERROR, interruptible
from nstudent.cli.status import print_states
from nstudent.distributed.world import Alone, IndependentJob, World
from nstudent.errors import ArtifactError, ConfigError, TrainingError
from nstudent.machine import is_one_of_several, out_of_working_folder
from nstudent.runs.plan import STAGES, needed_until, plan
from nstudent.runs.stage import Step
from nstudent.session import Session

if TYPE_CHECKING:
    from nstudent.runs.folder import Run


def run_all_command(
    overrides: Overrides = None,
    config: ConfigOption = None,
    run_dir: RunDirOption = None,
    until: Annotated[
        StageName | None,
        typer.Option(
            "--until",
            help="Make the last step of this stage and what it is made from, and nothing else. Until student, no test "
            "image is looked at.",
            metavar="STAGE",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show the plan and what is up to date of it, see that all it names is there, and stop."
        ),
    ] = False,
) -> None:
    """Train a teacher, label the heap, filter, train students, and score everything.

    Steps that are up to date are skipped; an interrupted step goes on where it was. Run the same command again after
    any interruption.
    """
    from nstudent.runs.folder import Run
    from nstudent.runs.run import run_all
    from nstudent.runs.sized_config import load_config
    from nstudent.screen.bars import Screen

    settings = load_config(config, overrides or [])
    steps = needed_until(plan(settings), until)
    if dry_run:
        _print_dry(Run.open(settings, run_dir), steps)
        return
    with interruptible() as stop, _together(settings.device) as world:
        screen = Screen([step.name for step in steps])
        folder = run_all(settings, run_dir, Session(progress=screen, stop=stop, world=world), until=until)
    if not world.leads:
        return
    if steps[-1].stage.provides != "scores":
        _print_until(folder, steps)
        return
    _print_end(folder, steps)


def _print_dry(run: Run, steps: Sequence[Step]) -> None:
    """Print the plan, and, where anything of it lies in the run folder, what becomes of each step and why.

    Raises:
        ArtifactError: The run would be refused, because unfinished work for other settings lies there.
        NstudentError: Something that the configuration names is not there (``preflight``).
    """
    from nstudent.runs.preflight import check_heap, check_named

    _print_planned(run, steps)
    check_named(run.config, steps)
    check_heap(run.config, steps)


def _print_planned(run: Run, steps: Sequence[Step]) -> None:
    from nstudent.cli import console
    from nstudent.runs.status import foreseen
    from nstudent.runs.words import WOULD

    states = [state for state in foreseen(run) if state.step in steps]
    if all(state.state == "missing" for state in states):
        console.print_plan(steps)
        return
    refused = next((state.reason for state in states if state.state == "refused"), None)
    console.print_plan(
        steps, {each.step.name: (WOULD[each.state], "" if each.reason == refused else each.reason) for each in states}
    )
    if refused is not None:
        raise ArtifactError(refused)


def _print_end(run_dir: Path, steps: Sequence[Step]) -> None:
    """Print what a run that is complete has come to; the last line says in words whether the heap helped.

    Raises:
        typer.Exit: The rounds ended early, because nothing was left to train on.
    """
    from nstudent.cli import console
    from nstudent.cli.report import reported
    from nstudent.cli.scores import print_findings, print_scores
    from nstudent.evaluation.scores import FIGURE
    from nstudent.runs.findings import findings
    from nstudent.runs.measured import Measured
    from nstudent.runs.verdict import verdict

    names = {step.stage.provides: step.name for step in steps}
    measured = Measured.read(run_dir, names["scores"])
    found = findings(measured)
    print_scores(measured)
    said = verdict(measured, found)
    print_findings(measured, [finding for finding in found if finding.sentence[1:] not in said])
    if measured.data:
        console.print_left_out(measured.data, run_dir / names["data"])
    typer.echo(reported(run_dir, names["scores"]))
    typer.echo(f"picture: {run_dir / names['scores'] / FIGURE}")
    typer.echo(f"use it:  nstudent predict {run_dir} IMAGE...")
    console.print_sentence(said)
    if measured.scores.ended:
        raise typer.Exit(USER_ERROR)


def _print_until(run_dir: Path, steps: Sequence[Step]) -> None:
    """Print where these steps stand, after a run that was to make no others."""
    from nstudent.runs.status import status

    states = [state for state in status(run_dir) if state.step in steps]
    print_states(states)
    last = states[-1]
    if last.state == "not needed":
        raise TrainingError(f"{last.reason}: {last.step.name} was not made")
    typer.echo("the same command without --until goes on from here")


def stage_command(
    stage: Annotated[StageName, typer.Argument(help=f"The stage to run: {', '.join(STAGES)}.", metavar="STAGE")],
    overrides: Overrides = None,
    config: ConfigOption = None,
    run_dir: RunDirOption = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            help="pseudolabel alone: label part I of N (0/4 to 3/4), beside jobs that label the others. Run the stage "
            "without it when all are done.",
            metavar="I/N",
        ),
    ] = None,
) -> None:
    """Run one stage: its first step that is not up to date. The steps before it must be there."""
    from nstudent.runs.run import run_part, run_stage
    from nstudent.runs.sized_config import load_config
    from nstudent.screen.bars import Screen

    settings = load_config(config, overrides or [])
    if shard is not None:
        with interruptible() as stop:
            folder = run_part(settings, stage.value, _part(shard), run_dir, Session(progress=Screen(), stop=stop))
        typer.echo(f"{folder}: part {shard} is there")
        return
    with interruptible() as stop, _together(settings.device) as world:
        folder = run_stage(settings, stage.value, run_dir, Session(progress=Screen(), stop=stop, world=world))
    if world.leads:
        typer.echo(str(folder))


def _part(shard: str) -> IndependentJob:
    number, slash, count = shard.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ConfigError(f"--shard {shard}: write I/N with I from 0 to N - 1, such as 0/4")
    return IndependentJob(int(number), int(count))


@contextmanager
def _together(device: str) -> Iterator[World]:
    """The processes that torchrun has started, of which this is one; or this one alone."""
    if not is_one_of_several():
        yield Alone()
        return
    # Before torch is imported: what it says at the first step of every process is no affair of the user.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with out_of_working_folder():
        from nstudent.distributed.ranks import connected

    with connected(device) as ranks:
        yield ranks
