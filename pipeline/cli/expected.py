"""How long a run is going to take, in the words of the commands that look at images before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from nstudent.machine import available_cores, is_used_by_others

if TYPE_CHECKING:
    from nstudent.data.survey import Survey
    from nstudent.runs.forecast import Amounts


BUSY = "other programs use this machine now: alone it may be faster"
"""What to say beside a time that was measured meanwhile."""


def amounts_of(found: Survey) -> Amounts:
    """How much there is to do with the images that a look has found."""
    from nstudent.runs.forecast import Amounts

    split = found.splits
    return Amounts(split["train"], split["unlabelled"], split["validation"], split["test"], found.sample.seconds_each)


def expected_time(seconds: float, *, has_gpu: bool) -> str:
    """An expected time, and the machine that it is expected on."""
    from nstudent.runs.remaining import in_words

    cores = available_cores()
    gpu = "with" if has_gpu else "no"
    return f"{in_words(seconds)} on this machine ({cores} core{'' if cores == 1 else 's'}, {gpu} GPU)"


def print_expected(took: str) -> None:
    """Print what ``expected_time`` gives, how far off it may be, and whether others used the machine meanwhile."""
    typer.echo(f"expected time: {took};")
    typer.echo("  a few steps were timed, and it may take half of that, or twice")
    if is_used_by_others():
        typer.echo(f"  {BUSY}")
