"""The command line: arguments in, one call, its result on the screen. Nothing outside this package prints.

A command is a function in a module of its own and a line here. What takes time to import is imported by the command
that needs it: help is there at once.
"""

import sys
from typing import Annotated

import typer
from nstudent.cli import config, data, evaluate, export, init, predict, report, run, status, verify
from nstudent.cli.interruption import USER_ERROR
from nstudent.cli.streams import lenient_streams, lost_output
from nstudent.errors import NstudentError

_HELP = """Turn labelled and unlabelled images into one classifier, and say what the unlabelled ones gave.

Labels may be a tree of classes, coarse to fine, and some of them may be missing.

Your own photos, in folders named like their classes:

    nstudent init photos heap                 looks at them, writes a plan
    nstudent run-all --config nstudent.yaml   trains; the same command goes on
    nstudent predict runs/photos new.jpg      labels what is new

A first look, with small images that come along: nstudent run-all
"""
_START, _MAKE, _LOOK, _USE = "Begin", "Make", "Look", "Use"

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown", help=_HELP)
app.command("init", rich_help_panel=_START)(init.init_command)
app.add_typer(data.app, name="data", rich_help_panel=_START)
app.add_typer(config.app, name="config", rich_help_panel=_START)
app.command("run-all", rich_help_panel=_MAKE)(run.run_all_command)
app.command("stage", rich_help_panel=_MAKE)(run.stage_command)
app.command("status", rich_help_panel=_LOOK)(status.status_command)
app.command("report", rich_help_panel=_LOOK)(report.report_command)
app.command("verify", rich_help_panel=_LOOK)(verify.verify_command)
app.command("predict", rich_help_panel=_USE)(predict.predict_command)
app.command("evaluate", rich_help_panel=_USE)(evaluate.evaluate_command)
app.command("export", rich_help_panel=_USE)(export.export_command)


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"nstudent {version('nstudent')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of ``nstudent``: errors a person can repair are one line and exit code 2."""
    with lenient_streams():
        try:
            app()
        except NstudentError as error:
            typer.echo(f"nstudent: {error}", err=True)
            sys.exit(USER_ERROR)
        except SystemExit as end:
            # However well a command has ended: whoever reads an empty file must not take it for its answer.
            if why := lost_output():
                typer.echo(f"nstudent: {why}", err=True)
                sys.exit(end.code or USER_ERROR)
            raise
