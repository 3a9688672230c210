"""``nstudent init``: from a folder of photos to a configuration file that runs, with a look at both before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from nstudent.cli.expected import amounts_of, expected_time, print_expected
from nstudent.cli.interruption import interruptible
from nstudent.errors import ConfigError, DataError, LevelsError
from nstudent.machine import is_used_by_others, out_of_working_folder
from nstudent.session import Session

if TYPE_CHECKING:
    from nstudent.config.first_page import Situation
    from nstudent.data.survey import Survey
    from nstudent.progress import Progress

_MEGABYTES = 41
"""Size of the pretrained weights that are proposed, of both backbones together."""


_Photos = Annotated[
    Path,
    typer.Argument(
        help="Labelled images: a folder with a folder for each class (in each other, coarse to fine), a CSV table, "
        "files of the MNIST family, a pack, or an HDF5 file.",
        metavar="PHOTOS",
    ),
]
_Heap = Annotated[Path | None, typer.Argument(help="Folder of unlabelled images, at any depth.", metavar="HEAP")]
_Out = Annotated[Path, typer.Option("--out", help="File to write.", metavar="FILE")]
_Weights = Annotated[
    Path | None, typer.Option("--weights", help="Pretrained weights that you have: a safetensors file.", metavar="FILE")
]
_Download = Annotated[
    bool | None,
    typer.Option(
        "--yes/--no-download",
        help="Whether the run may download pretrained weights (41 MB). Default: you are asked, and where there is no "
        "terminal, nothing is downloaded.",
    ),
]


def init_command(
    photos: _Photos,
    heap: _Heap = None,
    out: _Out = Path("nstudent.yaml"),
    weights: _Weights = None,
    download: _Download = None,
) -> None:
    """Look at your images, say what is there, and write a configuration file that runs.

    The networks, the size of the images and the length of the training follow from the images and from this machine;
    a few steps are timed, and the expected time of the run is said. Nothing is trained and nothing is downloaded. A
    file that is there is never overwritten.
    """
    _refuse_existing(out)
    # What follows takes a while to begin with, and longest on a busy machine.
    typer.echo("looking at your images, then timing a few steps: nothing is downloaded", err=True)
    from nstudent.config.first_page import as_text, configured, propose, shortened
    from nstudent.screen.bars import Screen

    with interruptible() as stop:
        progress = Session(progress=Screen(), stop=stop).watched()
        with out_of_working_folder():
            from nstudent.runs.forecast import forecast
        data, found = _looked_at(photos, heap, progress)
        situation = _situation(photos, data, found, weights, download)
        entries = propose(situation)
        amounts = amounts_of(found)
        expected = forecast(configured(entries), amounts, progress)
        fitting = shortened(entries, expected.like_the_student, expected.total)
        if fitting != entries:
            expected = forecast(configured(fitting), amounts, progress)
    took = expected_time(expected.total, has_gpu=situation.has_gpu)
    _write(out, as_text(fitting, _head(out, found, took)))
    typer.echo(f"wrote {out}: read it, and change what you know better")
    typer.echo("  (nstudent config explain KEY says what a key means)")
    print_expected(took)
    if situation.weights is True:
        typer.echo(f"  when it starts it downloads pretrained weights ({_MEGABYTES} MB) from huggingface.co, once")
    typer.echo(f"run it:  nstudent run-all --config {out}")


def _looked_at(photos: Path, heap: Path | None, progress: Progress) -> tuple[dict[str, Any], Survey]:
    """The keys of `data`, and what lies there; it is printed as well.

    Raises:
        DataError: The images cannot be read or divided, or their labels fit no tree.
    """
    from nstudent.cli.console import print_line
    from nstudent.cli.look import print_survey
    from nstudent.config.data import USUAL_LEVELS, DataConfig
    from nstudent.data.sources.guess import guess

    with out_of_working_folder():
        from nstudent.data.survey import survey
    data = guess(photos, heap)
    try:
        found = survey(DataConfig(**data), 0, progress)
    except LevelsError as error:
        data["levels"] = [f"level{number}" for number in range(1, error.depth + 1)]
        found = survey(DataConfig(**data), 0, progress)
    print_survey(found)
    if len(found.levels) > len(USUAL_LEVELS):
        names = f"{found.levels[0].level} to {found.levels[-1].level}"
        print_line(f"all {len(found.levels)} levels are taken; call them better than {names} (data.levels)")
    if found.no_splits:
        raise DataError(found.no_splits)
    return data, found


def _situation(
    photos: Path, data: dict[str, Any], found: Survey, weights: Path | None, download: bool | None
) -> Situation:
    from nstudent.config.first_page import Situation
    from nstudent.models.device import has_gpu

    return Situation(
        data=data,
        name=Path(photos.resolve()).stem,
        side=found.sample.side,
        unlabelled=found.splits["unlabelled"],
        weights=_weights(found.sample.side, weights, download),
        has_gpu=has_gpu(),
        opened=found.sample.opened,
        unreadable=len(found.sample.unreadable),
        contradictions=len(found.contradictions),
        leaks=len(found.leaks),
    )


def _weights(side: int | None, given: Path | None, download: bool | None) -> bool | str:
    """The pretrained weights that the run may use.

    Raises:
        ConfigError: The file that was named is not there.
    """
    from nstudent.config.first_page import BACKBONE, OTHER_BACKBONE, wants_weights

    if given is not None:
        if not given.exists():
            raise ConfigError(f"--weights: there is no {given}: correct the path, or leave it out")
        return str(given)
    if not wants_weights(side):
        return False
    if download is not None:
        return download
    if sys.stdin.isatty() and sys.stderr.isatty():
        return typer.confirm(
            f"With few labels, pretrained weights are worth more than anything else. May the run download those of\n"
            f"{BACKBONE} and {OTHER_BACKBONE} ({_MEGABYTES} MB, ImageNet, Apache-2.0) from huggingface.co?",
            default=False,
            err=True,
        )
    typer.echo(
        "without pretrained weights, as nobody was there to ask. With few labelled photos\n"
        f"they are worth much: --yes lets the run download them ({_MEGABYTES} MB), and\n"
        "--weights FILE takes a file",
        err=True,
    )
    return False


def _head(out: Path, found: Survey, took: str) -> list[str]:
    return [
        f"Written by nstudent init, for {found.labelled:,} labelled images and {found.images:,} in all.",
        f"run it:     nstudent run-all --config {out}",
        f"it takes    {took}",
        *(
            ["            (other programs used the machine then: alone it may be faster)"]
            if is_used_by_others()
            else []
        ),
        "other keys: nstudent config explain",
        f"images:     nstudent data check --config {out}",
    ]


def _write(out: Path, text: str) -> None:
    from nstudent.storage.files import atomic_write

    _refuse_existing(out)
    atomic_write(out, text.encode())


def _refuse_existing(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out} is there already: remove it, or write another file with --out")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.absolute().parent}")
