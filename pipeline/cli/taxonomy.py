"""``nstudent data taxonomy``: a tree of classes proposed where there is none, as a page that a person edits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from nstudent.cli.arguments import ConfigOption, Overrides, RunDirOption
from nstudent.cli.interruption import interruptible
from nstudent.errors import ConfigError, DataError, one_line
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
        help="Folder of a finished run: the tree follows from the mistakes of its classifier on validation images.",
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

    Classes that are confused with each other are put into one group (spectral clustering of held-out predictions).
    Without an option the predictions are those of a quick regression, on images that it has not learnt from: this takes
    a minute, and only the data step of the run is made. With --run they are those of the classifier of a finished run.
    With --wordnet no image is looked at: the groups follow from what the classes are kinds of.

    The page is then the tree of a run: folders or tables still name the classes alone.

    nstudent data taxonomy tree.yaml --config photos.yaml --groups 3 --groups 8

    nstudent run-all --config photos.yaml data.taxonomy=tree.yaml
    """
    if run is not None and wordnet is not None:
        raise ConfigError("--run and --wordnet are two ways to a tree: choose one")
    if out.exists():
        raise DataError(f"{out} is there already, and may have been edited: remove it, or name another page")
    from nstudent.runs.sized_config import load_config
    from nstudent.screen.bars import Screen
    from nstudent.storage.files import atomic_write

    settings = load_config(config, overrides or [])
    with interruptible() as stop:
        session = Session(progress=Screen(), stop=stop)
        tree = _proposed(settings, (run, wordnet, run_dir), groups or [], session)
    atomic_write(out, tree.page.encode())
    for line in (tree.origin, *tree.doubts):
        typer.echo(one_line(line))
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

    data = run_stage(_without_need_of_a_heap(settings, run_dir), "data", run_dir, session)
    return tree_from_labels(settings, data, groups, session.watched())


def _without_need_of_a_heap(settings: Config, run_dir: Path | None) -> Config:
    """Settings with which the data step of a run can be made, too, if there are no unlabelled images.

    The run folder keeps the settings: a run that is there keeps its number of rounds, which says what its steps are.
    """
    from nstudent.runs.folder import Run
    from nstudent.runs.kept_config import CONFIG, kept_config

    folder = Run.open(settings, run_dir).run_dir
    rounds = kept_config(folder).rounds if (folder / CONFIG).exists() else 0
    return settings.model_copy(update={"rounds": rounds})
