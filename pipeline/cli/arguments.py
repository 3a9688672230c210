"""Arguments and options that several commands have."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from nstudent.runs.plan import STAGES

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
RunDirArgument = Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN_DIR")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Keys of the configuration, such as student.epochs=8.", metavar="[KEY=VALUE]..."),
]
