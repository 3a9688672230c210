"""``nstudent evaluate``: how well a classifier does on new photos whose labels are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from nstudent.cli.arguments import RunDirArgument
from nstudent.cli.interruption import interruptible
from nstudent.machine import out_of_working_folder
from nstudent.session import Session

if TYPE_CHECKING:
    from nstudent.answers.evaluation import Evaluation
    from nstudent.evaluation.scores import Interval

_WORST = 10
_WIDEST = 40
_NAMED = 3
"""Number of images of a kind that are named on the screen; the files name all."""


def evaluate_command(
    run_dir: RunDirArgument,
    photos: Annotated[
        Path, typer.Argument(help="Folder whose folders are the classes, or a CSV file.", metavar="FOLDER_OR_CSV")
    ],
    out: Annotated[Path, typer.Option(help="Folder for scores, classes and mistakes.", metavar="DIR")] = Path(
        "evaluation"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Score the final classifier on new labelled photos: with intervals, by class, and with its mistakes.

    Says how many of the photos the run has learnt from or chosen by, and what the others score.
    Writes DIR/scores.json, DIR/classes.csv and DIR/mistakes.csv.
    """
    with out_of_working_folder():
        from nstudent.answers.evaluation import evaluate
        from nstudent.answers.seen_before import seen_before
        from nstudent.classifier import Classifier
        from nstudent.cli.console import print_sentence
        from nstudent.screen.bars import Screen

    classifier, seen = Classifier.load(run_dir, device), seen_before(run_dir)
    with interruptible() as stop:
        found = evaluate(classifier, photos, Session(progress=Screen(), stop=stop), seen or frozenset())
    found.write(out)
    if seen is None:
        print_sentence(
            "Whether the classifier has learnt from these photos is not known: the images of its run are not in "
            f"{run_dir}. Scores of photos that it has learnt from are too good."
        )
    _print(found)
    typer.echo(f"by class: {out / 'classes.csv'}   mistakes: {out / 'mistakes.csv'}")


def _print(found: Evaluation) -> None:
    from nstudent.cli.console import print_line

    left_out = [
        (found.unlabelled, "without a label"),
        (sum(found.unknown.values()), "with a label that the classifier does not know"),
        (len(found.unreadable), "that cannot be read"),
    ]
    said = "".join(f"; left out: {number:,} {what}" for number, what in left_out if number)
    print_line(f"{found.images:,} photos{said}")
    unreadable = [f"{name}: {why}" for name, why in found.unreadable.items()]
    for why in [*list(found.unknown)[:_NAMED], *unreadable[:_NAMED]]:
        print_line(f"  {why}")
    _print_seen(found)
    for name, each in _different(found.scores).items():
        if each is not None:
            print_line(f"  {name:<24} {each.value:6.1%}   {_interval(each)}")
    worst = sorted((each for each in found.classes if each.right.value < 1), key=lambda each: each.right.value)
    if worst:
        print_line("Classes that are recognised worst:")
    for row in worst[:_WORST]:
        name = f"{row.level} {row.name}"
        name = name if len(name) <= _WIDEST else name[: _WIDEST - 1] + "…"
        interval = f"[{row.right.low:.0%}, {row.right.high:.0%}]"
        print_line(f"  {name:<{_WIDEST}} {row.right.value:4.0%} of {row.images:,}   {interval}")
    wrong = len(found.mistakes)
    print_line(f"{wrong:,} {'photo has' if wrong == 1 else 'photos have'} a mistake in their label.")


def _print_seen(found: Evaluation) -> None:
    """Say how many of the photos the run has seen before, which makes all scores of them too good."""
    from nstudent.cli.console import print_sentence
    from nstudent.evaluation.scores import HEADLINE

    if not found.seen_before:
        return
    which = "All" if found.seen_before == found.images else f"{found.seen_before:,}"
    new = found.scores_of_new.get(HEADLINE)
    others = (
        f"The other {found.images - found.seen_before:,} alone: {new.value:.1%} {_interval(new)} {HEADLINE}."
        if new
        else ""
    )
    print_sentence(
        f"{which} of these photos are ones that the run has learnt from or chosen by: the scores are too good. "
        + (others or "Score photos that it has not seen.")
    )


def _different(scores: dict[str, Interval | None]) -> dict[str, Interval | None]:
    """The scores that are worth a line each: with one level all of them are the same number."""
    from nstudent.evaluation.scores import HEADLINE, OF_A_LEVEL

    levels = sum(name.startswith(OF_A_LEVEL) for name in scores)
    return scores if levels != 1 else {HEADLINE: scores[HEADLINE]}


def _interval(each: Interval) -> str:
    return f"[{each.low:.1%}, {each.high:.1%}]"
