"""``nstudent data ...``: what is done with data before any run."""

from pathlib import Path
from typing import Annotated

import typer
from nstudent.cli.arguments import ConfigOption, Overrides
from nstudent.cli.expected import amounts_of, expected_time, print_expected
from nstudent.cli.interruption import interruptible
from nstudent.cli.taxonomy import data_taxonomy_command
from nstudent.errors import DataError
from nstudent.machine import out_of_working_folder
from nstudent.session import Session

app = typer.Typer(no_args_is_help=True, help="Look at images before any run, and prepare them for many runs.")
app.command("taxonomy")(data_taxonomy_command)


@app.command("check")
def data_check_command(overrides: Overrides = None, config: ConfigOption = None) -> None:
    """Say what a run would find in its data, and whether its networks can be trained; nothing is made.

    Levels and classes with their counts, the division, and what is odd about images and labels. All labels are read,
    and up to 400 images opened; every network is built and tried once, a few steps are timed, and the expected time of
    the run is said. nstudent init begins with the same report.
    """
    from nstudent.cli.look import print_survey
    from nstudent.runs.plan import plan
    from nstudent.runs.preflight import check_named
    from nstudent.runs.rehearsal import rehearse
    from nstudent.runs.sized_config import load_config
    from nstudent.screen.bars import Screen

    settings = load_config(config, overrides or [])
    steps = plan(settings)
    check_named(settings, steps)
    with interruptible() as stop:
        progress = Session(progress=Screen(), stop=stop).watched()
        with out_of_working_folder():
            from nstudent.data.survey import survey
            from nstudent.models.device import has_gpu
            from nstudent.runs.forecast import forecast
        found = survey(settings.data, settings.seed, progress)
        print_survey(found)
        if found.no_splits:
            raise DataError(found.no_splits)
        rehearse(settings, steps, progress)
        expected = forecast(settings, amounts_of(found), progress)
    typer.echo(f"networks: all can be trained at {settings.data.image_size} px")
    print_expected(expected_time(expected.total, has_gpu=has_gpu()))


@app.command("pack")
def data_pack_command(
    out: Annotated[Path, typer.Argument(help="Folder to make.", metavar="OUT")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Keys of the configuration, such as data.image_size=224.", metavar="KEY=VALUE"),
    ] = None,
    config: ConfigOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Hash every file of a pack that is there, and make damaged ones again.")
    ] = False,
) -> None:
    """Decode the images of a source once, into a folder that many runs share.

    Takes the page of a run: its source, sizes and storage. A run then says data.source=packed data.root=OUT and links
    the images instead of decoding them: seeds, studies and (the folder copied) other machines begin at once. Splits,
    duplicates and noise are drawn by each run as they would be from the source itself.

    Run it again after any interruption, or when the source has changed; a pack that is up to date is left alone.
    """
    from nstudent.runs.sized_config import load_config
    from nstudent.screen.bars import Screen

    with out_of_working_folder():
        from nstudent.data.packing.pack_folder import make_pack
        from nstudent.data.sources.packed import PackMetrics
    from nstudent.storage.artifact import Manifest

    settings = load_config(config, overrides or []).data
    with interruptible() as stop:
        folder = make_pack(settings, out, Session(progress=Screen(), stop=stop), repair=repair)
    metrics = PackMetrics.of(Manifest.read(folder))
    typer.echo(f"{folder}: {metrics.images} images, {metrics.unreadable} of them unreadable")
    typer.echo(f"use it:  data.source=packed data.root={folder} data.image_size={settings.image_size}")
