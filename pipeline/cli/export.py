"""``nstudent export``: the classifier of a run as a program or a folder that works without the run."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from nstudent.cli.arguments import RunDirArgument
from nstudent.machine import out_of_working_folder


class Format(StrEnum):
    """What a classifier is exported as."""

    ONNX = "onnx"
    TORCH = "torch"
    HF = "hf"


def export_command(
    run_dir: RunDirArgument,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="onnx: for onnxruntime, on phones too. torch: a file of torch.export. hf: a folder for the Hugging "
            "Face hub, which nstudent loads, and timm too where the classifier is one network.",
        ),
    ] = Format.ONNX,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. Default: RUN_DIR/export/FORMAT.", metavar="DIR")
    ] = None,
) -> None:
    """Export the final classifier, with an example that uses it and a model card.

    ONNX and torch programs take decoded squares (uint8) and give calibrated probabilities for each level; they are
    compared with the classifier before they are written.
    """
    with out_of_working_folder():
        from nstudent.export.hub import write_hub_folder
        from nstudent.export.program_files import write_onnx, write_torch

    write = {Format.ONNX: write_onnx, Format.TORCH: write_torch, Format.HF: write_hub_folder}[form]
    made = write(run_dir, out or run_dir / "export" / form.value)
    typer.echo(f"{made.folder}: {made.checked}")
