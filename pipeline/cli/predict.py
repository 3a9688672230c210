"""``nstudent predict``: labels for images, by the classifier that a run has made."""

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from nstudent.cli.arguments import RunDirArgument
from nstudent.cli.interruption import USER_ERROR, interruptible
from nstudent.machine import out_of_working_folder
from nstudent.session import Session

if TYPE_CHECKING:
    from nstudent.answers.labelled_file import Label
    from nstudent.classifier import Classifier


def predict_command(
    run_dir: RunDirArgument,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Image files, folders of them, quoted patterns such as 'new/**/*.jpg', or - for a list of paths on "
            "standard input.",
            metavar="IMAGE...",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Write a .csv, .jsonl or .parquet file; an interrupted command goes on.", metavar="FILE"),
    ] = None,
    risk: Annotated[
        float | None,
        typer.Option(
            help="Give labels only as deep as at most this share of the answers was wrong on held-out images, such as "
            "0.05."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Also list this many of the most probable classes per level.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Label images with the final classifier: one JSON line an image, absent levels left out.

    An image that cannot be read has an "error" in its line, and the exit code is 2.
    """
    with out_of_working_folder():
        from nstudent.answers.depth import depth_of
        from nstudent.answers.given_paths import each_path
        from nstudent.classifier import Classifier

    classifier = Classifier.load(run_dir, device)
    depth = None if risk is None else depth_of(run_dir, risk)
    for each in depth.levels if depth else ():
        typer.echo(each.sentence(), err=True)
    label = partial(classifier.stream, top=top, depth=depth)
    paths = each_path(images, sys.stdin)
    unreadable = _print(paths, label) if out is None else _write(out, paths, label, _Asked(classifier, risk, top))
    if unreadable:
        raise typer.Exit(USER_ERROR)


class _Asked(NamedTuple):
    classifier: "Classifier"
    risk: float | None
    top: int


def _print(paths: Iterator[str], label: "Label") -> int:
    """Print a JSON line for each image as soon as it is there; returns the number of those that cannot be read."""
    from nstudent.answers.tables import json_object
    from nstudent.data.given_images import named_images

    unreadable = 0
    for prediction in label(named_images(paths)):
        typer.echo(json.dumps(json_object(prediction)))
        unreadable += prediction.error is not None
    return unreadable


def _write(out: Path, paths: Iterator[str], label: "Label", asked: _Asked) -> int:
    """Write all predictions into a file; returns the number of images that cannot be read."""
    from nstudent.answers.labelled_file import LabelledFile
    from nstudent.answers.tables import format_of
    from nstudent.screen.bars import Screen

    form = format_of(out, asked.classifier.taxonomy.levels, asked.top)
    decides = {"classifier": asked.classifier.id, "risk": asked.risk, "top": asked.top}
    with interruptible() as stop:
        made = LabelledFile(out, form, decides).make(paths, label, Session(progress=Screen(), stop=stop))
    typer.echo(f"{out}: {made.images:,} images, {made.unreadable:,} of them not readable", err=True)
    return made.unreadable
