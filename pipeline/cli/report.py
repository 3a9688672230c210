"""``nstudent report``: everything that a run has to show, as one page."""

from __future__ import annotations

from pathlib import Path

import typer
from nstudent.cli.arguments import RunDirArgument
from nstudent.errors import one_line, summary


def report_command(run_dir: RunDirArgument) -> None:
    """Write RUN_DIR/report.html: scores, curves, confusion, mistakes, labels and pictures of a run in one page.

    The page needs no network and runs no code. run-all writes it at its end, too.
    """
    from nstudent.report.page import write_report

    typer.echo(str(write_report(run_dir)))


def reported(run_dir: Path) -> str:
    """Write the report of a run that has ended, and say in a line where it is.

    The run stands without its report: whatever goes wrong with it is said, and not raised.
    """
    try:
        from nstudent.report.page import write_report

        return f"report:  {write_report(run_dir)}"
    except Exception as error:
        return one_line(f"no report could be written: {summary(error)}; nstudent report {run_dir} tries it again")
