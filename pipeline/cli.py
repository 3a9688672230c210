"""The command line: arguments in, one call, its result on the screen. The only module that prints.

What takes time to import is imported by the command that needs it: help is there at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from nstudent.errors import ArtifactError, ConfigError, NstudentError, StoppedError, TrainingError
from nstudent.processes import is_one_of_several
from nstudent.session import Session
from nstudent.steps import STAGES, plan
from nstudent.stopping import StopRequest, stop_on_signals
from nstudent.storage import read_json
from nstudent.world import Alone, Part, World

USER_ERROR = 2
STOPPED = 75
"""A signal came, and what was done is kept: the sysexits code for "try again"."""
INTERRUPTED = 130
"""A second signal came."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Noisy-student training for hierarchical image classification: labelled and unlabelled images in, "
    "a better classifier out, with proof.",
)

data_app = typer.Typer(no_args_is_help=True, help="Prepare the data of many runs.")
app.add_typer(data_app, name="data")

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
    from nstudent.artifact import Manifest
    from nstudent.config_file import load_config
    from nstudent.run import run_all

    settings = load_config(config, overrides or [])
    steps = plan(settings)
    if dry_run:
        console.print_plan(steps)
        return
    with _interruptible() as stop, _together(settings.device) as world:
        folder = run_all(settings, run_dir, Session(progress=console.Screen(), stop=stop, world=world))
    if not world.leads:
        return
    first, last = (folder / step.name for step in (steps[0], steps[-1]))
    scores = read_json(last / "scores.json")
    console.print_scores(scores)
    console.print_left_out(Manifest.read(first).metrics, first)
    typer.echo(f"picture: {last / 'scores.png'}")
    typer.echo(f"use it:  nstudent predict {folder} IMAGE...")
    if scores["ended"]:
        raise TrainingError(f"{scores['ended']}. The run is complete without that; {scores['final']} is what it gives")


@app.command("stage")
def stage_command(
    stage: Annotated[StageName, typer.Argument(help="The stage to run.", metavar="|".join(STAGES))],
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
    from nstudent import console
    from nstudent.config_file import load_config
    from nstudent.run import run_part, run_stage

    settings = load_config(config, overrides or [])
    if shard is not None:
        with _interruptible() as stop:
            folder = run_part(
                settings, stage.value, _part(shard), run_dir, Session(progress=console.Screen(), stop=stop)
            )
        typer.echo(f"{folder}: part {shard} is there")
        return
    with _interruptible() as stop, _together(settings.device) as world:
        folder = run_stage(settings, stage.value, run_dir, Session(progress=console.Screen(), stop=stop, world=world))
    if world.leads:
        typer.echo(str(folder))


@app.command("status")
def status_command(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN_DIR")],
) -> None:
    """What is done, what is stale and why, and the score of each step on validation."""
    from nstudent import console
    from nstudent.status import status

    rows = []
    for state in status(run_dir):
        validation = state.metrics.get("validation")
        value = validation.get("contest alone") if isinstance(validation, dict) else None
        score = f"{value:.3f}" if isinstance(value, float) else ""
        note = state.reason
        if state.metrics.get("promoted") is False:
            note = note or "did not beat its teacher"
        rows.append((state.step.name, state.state, score, note))
    console.print_status(rows)


@app.command("verify")
def verify_command(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN_DIR")],
    mend: Annotated[bool, typer.Option("--repair", help="Make damaged files again: of shards only those.")] = False,
) -> None:
    """Hash every file of a run again and name those that are not what was committed.

    The exit code is 2 where something is damaged and was not repaired.
    """
    from nstudent import console
    from nstudent.verification import repair, verify

    with _interruptible() as stop:
        session = Session(progress=console.Screen(), stop=stop)
        found = repair(run_dir, session) if mend else verify(run_dir, session)
    for each in found:
        typer.echo(f"{each.step}/{each.file}: {each.what}")
    left = verify(run_dir) if mend else found
    if left:
        mends = "remove what is not part of a step" if mend else f"nstudent verify {run_dir} --repair makes it again"
        raise ArtifactError(f"{len(left)} files of {run_dir} are not what was committed: {mends}")
    typer.echo("every file is what was committed")


@data_app.command("pack")
def data_pack_command(
    out: Annotated[Path, typer.Argument(help="Folder to make.", metavar="OUT")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Keys of the configuration, such as data.image_size=224.", metavar="[KEY=VALUE]..."),
    ] = None,
    config: ConfigOption = None,
    mend: Annotated[
        bool, typer.Option("--repair", help="Hash every file of a pack that is there, and make damaged ones again.")
    ] = False,
) -> None:
    """Decode the images of a source once, into a folder that many runs share.

    Takes the page of a run: its source, sizes and storage. A run then says data.source=packed data.root=OUT and links
    the images instead of decoding them: seeds, studies and (the folder copied) other machines begin at once. Splits,
    duplicates and noise are drawn by each run as they would be from the source itself.

    Run it again after any interruption, or when the source has changed; a pack that is up to date is left alone.
    """
    from nstudent import console
    from nstudent.artifact import Manifest
    from nstudent.config_file import load_config
    from nstudent.data.pack_folder import make_pack

    settings = load_config(config, overrides or []).data
    with _interruptible() as stop:
        folder = make_pack(settings, out, Session(progress=console.Screen(), stop=stop), repair=mend)
    metrics = Manifest.read(folder).metrics
    typer.echo(f"{folder}: {metrics['images']} images, {metrics['unreadable']} of them unreadable")
    typer.echo(f"use it:  data.source=packed data.root={folder} data.image_size={settings.image_size}")


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


def _part(shard: str) -> Part:
    number, slash, count = shard.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ConfigError(f"--shard {shard}: write I/N with I from 0 to N - 1, such as 0/4")
    return Part(int(number), int(count))


@contextmanager
def _interruptible() -> Iterator[StopRequest]:
    try:
        with stop_on_signals() as stop:
            yield stop
    except StoppedError as error:
        typer.echo(f"nstudent: {error}", err=True)
        raise typer.Exit(STOPPED) from None
    except KeyboardInterrupt:
        typer.echo("nstudent: stopped at once; the same command goes on from the last checkpoint", err=True)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _together(device: str) -> Iterator[World]:
    """The processes that torchrun has started, of which this is one; or this one alone."""
    if not is_one_of_several():
        yield Alone()
        return
    # Before torch is imported: what it says at the first step of every process is no affair of the user.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from nstudent.ranks import connected

    with connected(device) as ranks:
        yield ranks


def main() -> None:
    """Entry point of ``nstudent``: errors a person can mend are one line and exit code 2."""
    try:
        app()
    except NstudentError as error:
        typer.echo(f"nstudent: {error}", err=True)
        sys.exit(USER_ERROR)
