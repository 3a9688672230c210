"""The command line: arguments in, one call, its result on the screen. Nothing outside this package prints.

A command is a function in a module of its own and a line here. What takes time to import is imported by the command
that needs it: help is there at once.
"""

import sys

import typer
from nstudent.cli import data, evaluate, export, predict, report, run, status, verify
from nstudent.cli.interruption import USER_ERROR
from nstudent.cli.streams import lenient_streams
from nstudent.errors import NstudentError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Noisy-student training for hierarchical image classification: labelled and unlabelled images in, "
    "a better classifier out, with proof.",
)
app.command("run-all")(run.run_all_command)
app.command("stage")(run.stage_command)
app.command("status")(status.status_command)
app.command("verify")(verify.verify_command)
app.command("predict")(predict.predict_command)
app.command("evaluate")(evaluate.evaluate_command)
app.command("export")(export.export_command)
app.command("report")(report.report_command)
app.add_typer(data.app, name="data")


def main() -> None:
    """Entry point of ``nstudent``: errors a person can repair are one line and exit code 2."""
    with lenient_streams():
        try:
            app()
        except NstudentError as error:
            typer.echo(f"nstudent: {error}", err=True)
            sys.exit(USER_ERROR)
