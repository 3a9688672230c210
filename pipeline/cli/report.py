"""``nstudent report``: everything that a run has to show, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from nstudent.cli.arguments import RunDirArgument
from nstudent.errors import one_line, summary
from nstudent.machine import out_of_working_folder
from nstudent.report.mark import REPORT, is_current, mark
from nstudent.runs.kept_config import CONFIG


def report_command(
    run_dir: RunDirArgument,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="Write a CSV table instead: what each unlabelled image was taken for in each round, and which of "
            "these labels were used, not sure enough, or dropped by the filter.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Write RUN_DIR/report.html: scores, curves, confusion, mistakes, labels and pictures of a run in one page.

    The page needs no network and runs no code. run-all writes it at its end, too. Of a run that is under way or was
    stopped it shows what is there, and says what is missing.
    """
    if labels is not None:
        with out_of_working_folder():
            from nstudent.report.label_table import write_label_table

        rows = write_label_table(run_dir, labels)
        typer.echo(one_line(f"{labels}: {rows:,} labels"))
        return
    with out_of_working_folder():
        from nstudent.report.page import write_report

    typer.echo(str(write_report(run_dir)))


def reported(run_dir: Path, scores: str) -> str:
    """Write the report of a run that has ended, unless it is there, and say in a line where it is.

    The run stands without its report: whatever goes wrong with it is said, and not raised.

    Args:
        run_dir: The run folder.
        scores: Name of the step that scored.
    """
    try:
        if not is_current(run_dir, mark(run_dir, scores, CONFIG)):
            with out_of_working_folder():
                from nstudent.report.page import write_report

            write_report(run_dir)
        return f"report:  {run_dir / REPORT}"
    except Exception as error:
        return one_line(f"no report could be written: {summary(error)}; nstudent report {run_dir} tries it again")
