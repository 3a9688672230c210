"""``nstudent verify``: is every file of a run what was committed, and making again what is not."""

from typing import Annotated

import typer
from nstudent.cli.arguments import RunDirArgument
from nstudent.cli.interruption import interruptible
from nstudent.errors import ArtifactError
from nstudent.session import Session


def verify_command(
    run_dir: RunDirArgument,
    repair: Annotated[bool, typer.Option("--repair", help="Make damaged files again: of shards only those.")] = False,
) -> None:
    """Hash every file of a run again and name those that are not what was committed.

    The exit code is 2 where something is damaged and was not repaired.
    """
    from nstudent.runs import verification
    from nstudent.screen.bars import Screen

    with interruptible() as stop:
        session = Session(progress=Screen(), stop=stop)
        found = verification.repair(run_dir, session) if repair else verification.verify(run_dir, session)
    for each in found:
        typer.echo(f"{each.step}/{each.file}: {each.what}")
    left = verification.verify(run_dir) if repair else found
    if left:
        remedy = "remove what is not part of a step"
        if not repair:
            remedy = f"nstudent verify {run_dir} --repair makes {'it' if len(left) == 1 else 'them'} again"
        files = f"1 file of {run_dir} is" if len(left) == 1 else f"{len(left)} files of {run_dir} are"
        raise ArtifactError(f"{files} not what was committed: {remedy}")
    typer.echo("every file is what was committed")
