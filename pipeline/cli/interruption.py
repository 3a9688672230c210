"""How a command ends early, and with which exit code."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from nstudent.errors import StoppedError
from nstudent.signals import OverdueStop, StopRequest, stop_on_signals

USER_ERROR = 2
"""Something that the user can repair: what, and how, is said in one line."""
STOPPED = 75
"""A signal came, and what was done is kept: the sysexits code for "try again"."""
INTERRUPTED = 130
"""A second signal came."""


@contextmanager
def interruptible() -> Iterator[StopRequest]:
    """A command that ends after the work in progress when a signal comes.

    Raises:
        typer.Exit: it was ended by a signal; the exit code says whether at once.
    """
    try:
        with stop_on_signals() as stop:
            yield stop
    except StoppedError as error:
        typer.echo(f"nstudent: {error}", err=True)
        raise typer.Exit(STOPPED) from None
    except OverdueStop as error:
        typer.echo(f"nstudent: {error}", err=True)
        raise typer.Exit(STOPPED) from None
    except KeyboardInterrupt:
        typer.echo("nstudent: stopped at once; the same command goes on from the last checkpoint", err=True)
        raise typer.Exit(INTERRUPTED) from None
