"""``nstudent data taxonomy``: a tree of classes proposed where there is none, as a page that a person edits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from nstudent.cli.arguments import ConfigOption, Overrides, RunDirOption
from nstudent.cli.interruption import interruptible
from nstudent.errors import ConfigError, DataError
from nstudent.machine import out_of_working_folder
from nstudent.session import Session

if TYPE_CHECKING:
    from nstudent.answers.proposed_tree import ProposedTree
    from nstudent.config.schema import Config


_Out = Annotated[Path, typer.Argument(help="Page to write, such as tree.yaml.", metavar="OUT")]
_FinishedRun = Annotated[
    Path | None,
    typer.Option(
        "--run",
        help="Folder of a finished run: what its classifier takes for what on the validation images.",
        metavar="RUN_DIR",
    ),
]
_WordNetFolder = Annotated[
    Path | None,
    typer.Option(
        "--wordnet",
        help="Folder of a WordNet database, such as /usr/share/wordnet, for classes called by nouns or synsets.",
        metavar="FOLDER",
    ),
]
_Groups = Annotated[
    list[int] | None,
    typer.Option(
        "--groups",
        help="Number of groups of a level above the classes; again for each finer level. Default: one level, of a "
        "number that fits.",
        metavar="N",
    ),
]


def data_taxonomy_command(
    out: _Out,
    overrides: Overrides = None,
    config: ConfigOption = None,
    run: _FinishedRun = None,
    wordnet: _WordNetFolder = None,
    groups: _Groups = None,
    run_dir: RunDirOption = None,
) -> None:
    """Propose a tree for classes that have none, and write it as a page to edit.

    Classes that are taken for each other stand together (spectral clustering of held-out predictions). Without an
    option that is what a regression takes for what on images that it has not learnt from: a minute, and nothing but
    the run's data step is made. With --run it is the classifier of a finished run, with --wordnet what things are.

    The page then is the tree of a run: folders or tables may go on naming the classes alone.

    nstudent data taxonomy tree.yaml --config photos.yaml --groups 3 --groups 8

    nstudent run-all --config photos.yaml data.taxonomy=tree.yaml
    """
    if run is not None and wordnet is not None:
        raise ConfigError("--run and --wordnet are two ways to a tree: choose one")
    if out.exists():
        raise DataError(f"{out} is there already, and may have been edited: remove it, or name another page")
    from nstudent.config.file import load_config
    from nstudent.screen.bars import Screen
    from nstudent.storage.files import atomic_write

    # A tree needs no heap: what a run would want one for is left out.
    settings = load_config(config, overrides or []).model_copy(update={"rounds": 0})
    with interruptible() as stop:
        session = Session(progress=Screen(), stop=stop)
        tree = _proposed(settings, (run, wordnet, run_dir), groups or [], session)
    atomic_write(out, tree.page.encode())
    for line in (tree.origin, *tree.doubts):
        typer.echo(line)
    typer.echo(f"{out}: levels of {', '.join(map(str, tree.sizes))} classes, coarse first")
    typer.echo(f"use it, once you have looked at it:  data.taxonomy={out}")


def _proposed(
    settings: Config, folders: tuple[Path | None, Path | None, Path | None], groups: Sequence[int], session: Session
) -> ProposedTree:
    """The tree; the folders are those of a finished run, of WordNet, and of the run whose data step is made."""
    run, wordnet, run_dir = folders
    with out_of_working_folder():
        from nstudent.answers.proposed_tree import tree_from_labels, tree_from_run, tree_from_wordnet
    if run is not None:
        return tree_from_run(run, groups, session.watched())
    if wordnet is not None:
        return tree_from_wordnet(settings, wordnet, groups)
    from nstudent.runs.run import run_stage

    return tree_from_labels(settings, run_stage(settings, "data", run_dir, session), groups, session.watched())
