"""The command line: arguments in, one call, its result on the screen. The only module that prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from nstudent.config_file import load_config
from nstudent.errors import NstudentError
from nstudent.run import run_all, run_stage, status
from nstudent.steps import STAGES, plan
from nstudent.storage import read_json

USER_ERROR = 2
INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Noisy-student training for hierarchical image classification: labelled and unlabelled images in, "
    "a better classifier out, with proof.",
)

StageName = StrEnum("StageName", {name: name for name in STAGES})  # type: ignore[misc]

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML page with what differs from the defaults. Default: the embedded digits.",
        metavar="FILE",
    ),
]
RunDirOption = Annotated[Path | None, typer.Option("--run-dir", help="Default: runs/NAME.", metavar="DIR")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Keys of the configuration, such as student.epochs=8.", metavar="[KEY=VALUE]..."),
]


@app.command("run-all")
def run_all_command(
    overrides: Overrides = None,
    config: ConfigOption = None,
    run_dir: RunDirOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
) -> None:
    """Train a teacher, label the heap, filter, train students, and score everything.

    Steps that are up to date are skipped; an interrupted step goes on where it was. Run the same command again after
    any interruption.
    """
    from nstudent import console

    settings = load_config(config, overrides or [])
    if dry_run:
        console.print_plan(plan(settings))
        return
    with _interruptible():
        folder = run_all(settings, run_dir, console.Screen())
    last = folder / plan(settings)[-1].name
    console.print_scores(read_json(last / "scores.json"))
    typer.echo(f"picture: {last / 'scores.png'}")
    typer.echo(f"use it:  nstudent predict {folder} IMAGE...")


@app.command("stage")
def stage_command(
    stage: Annotated[StageName, typer.Argument(help="The stage to run.", metavar="|".join(STAGES))],
    overrides: Overrides = None,
    config: ConfigOption = None,
    run_dir: RunDirOption = None,
) -> None:
    """Run one stage: its first step that is not up to date. The steps before it must be there."""
    from nstudent import console

    settings = load_config(config, overrides or [])
    with _interruptible():
        folder = run_stage(settings, stage.value, run_dir, console.Screen())
    typer.echo(str(folder))


@app.command("status")
def status_command(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN_DIR")],
) -> None:
    """What is done, what is stale and why, and the score of each step on validation."""
    from nstudent import console

    rows = []
    for state in status(run_dir):
        validation = state.metrics.get("validation")
        score = f"{validation['contest alone']:.3f}" if isinstance(validation, dict) else ""
        note = state.reason
        if state.metrics.get("promoted") is False:
            note = note or "did not beat its teacher"
        rows.append((state.step.name, state.state, score, note))
    console.print_status(rows)


@app.command("predict")
def predict_command(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN_DIR")],
    images: Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGE...")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Label images with the final classifier: one JSON line an image, absent levels left out.

    An image that cannot be read has an "error" in its line, and the exit code is 2.
    """
    from nstudent.classifier import Classifier

    predictions = Classifier.load(run_dir, device).predict(images)
    for prediction in predictions:
        labels = {
            level: {"class": found.name, "probability": round(found.probability, 4)}
            for level, found in prediction.labels.items()
        }
        line = {"image": prediction.image} | ({"error": prediction.error} if prediction.error else {"labels": labels})
        typer.echo(json.dumps(line))
    if any(prediction.error for prediction in predictions):
        raise typer.Exit(USER_ERROR)


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("nstudent: interrupted; the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED) from None


def main() -> None:
    """Entry point of ``nstudent``: errors a person can mend are one line and exit code 2."""
    try:
        app()
    except NstudentError as error:
        typer.echo(f"nstudent: {error}", err=True)
        sys.exit(USER_ERROR)
