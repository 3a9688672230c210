"""Arguments and options that several commands have."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from nstudent.runs.plan import STAGES

StageName = StrEnum("StageName", {name: name for name in STAGES})  # type: ignore[misc]


def complete_key(incomplete: str) -> list[str]:
    """Keys of the configuration that a shell may complete a word to: whole ones once their group is typed."""
    from nstudent.config.explained import all_keys

    return [key for key in all_keys() if key.startswith(incomplete)]


def complete_word(incomplete: str) -> list[str]:
    """As ``complete_key``, for ``key=value`` words: a value is up to the person."""
    return [] if "=" in incomplete else [f"{key}=" for key in complete_key(incomplete)]


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML file with what differs from the defaults; nstudent init writes one. Default: the digits of "
        "scikit-learn.",
        metavar="FILE",
    ),
]
RunDirOption = Annotated[Path | None, typer.Option("--run-dir", help="Default: runs/NAME.", metavar="DIR")]
RunDirArgument = Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN_DIR")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Keys of the configuration, such as student.epochs=8; nstudent config explain tells what there is.",
        metavar="KEY=VALUE",
        autocompletion=complete_word,
    ),
]
