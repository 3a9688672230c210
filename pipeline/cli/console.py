"""Tables and lines that commands print."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from nstudent.runs.stage import Step
from nstudent.runs.step_metrics import DataMetrics
from nstudent.runs.words import DOES
from nstudent.screen.bars import safe
from rich.console import Console
from rich.table import Table

_LEFT_OUT = {
    "unreadable": "unreadable image{s}",
    "conflicting_labels": "image{s} with conflicting labels",
    "duplicates": "duplicate{s}",
    "near_duplicates": "near-duplicate{s}",
    "not_taken": "file{s} not taken",
}
_FOUND = {
    "one_training_image": "label{s} with one training image",
    "held_out_only": "label{s} without a training image",
    "several_parents": "name{s} in several places of the tree",
    "conflicting_labels": "group{s} of equal images with different labels",
    "near_duplicates": "pair{s} of near-duplicates",
}


def print_plan(steps: Sequence[Step], states: Mapping[str, tuple[str, str]] | None = None) -> None:
    """The steps of a run and what each reads.

    Args:
        steps: The steps.
        states: By the name of a step: what becomes of it in this folder, and why, or empty; ``None`` where all are
            made.
    """
    now = [] if states is None else ["now"]
    table = Table("step", *now, "what it does", "reads", box=None, pad_edge=False)
    for step in steps:
        reads = ", ".join(step.reads or ["the source"])
        is_all = step.gathered and len(step.reads) == step.index
        becomes, why = ("", "") if states is None else states[step.name]
        state = [] if states is None else [safe(becomes)]
        table.add_row(
            step.name, *state, safe(why) or DOES[step.stage.name], "everything made before" if is_all else reads
        )
    _wide_console().print(table)


def print_status(rows: Sequence[tuple[str, str, str, str]]) -> None:
    """(step, state, level accuracy on validation in percent, why it is not done or what it does) of every step."""
    table = Table("step", "state", "validation %", "", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(safe, row))
    _wide_console().print(table)


def print_line(text: str = "") -> None:
    """One line of any words."""
    Console().print(safe(text), highlight=False, soft_wrap=True)


def print_sentence(text: str) -> None:
    """A sentence of any length and any words: broken between words on a terminal, one line anywhere else."""
    Console().print(safe(text), highlight=False, soft_wrap=not sys.stdout.isatty())


def print_left_out(metrics: DataMetrics, folder: Path) -> None:
    """How many images of the data step are not used, and what else it found; nothing where there is nothing to say."""
    unused = {name: getattr(metrics, name) for name in _LEFT_OUT}
    _print_counts("not used", unused, _LEFT_OUT, folder / "left_out.json")
    _print_counts("worth a look", metrics.findings, _FOUND, folder / "findings.json")


def found_in_words(counts: Mapping[str, int]) -> list[str]:
    """What a data step found beside the images, each with its number, such as ``1 label with one training image``."""
    return _counted(counts, _FOUND)


def _print_counts(what: str, counts: Mapping[str, int], words: Mapping[str, str], file: Path) -> None:
    if said := _counted(counts, words):
        _wide_console().print(safe(f"{what}: {', '.join(said)} ({file})"), highlight=False, soft_wrap=True)


def _counted(counts: Mapping[str, int], words: Mapping[str, str]) -> list[str]:
    return [
        f"{counts[name]:,} {text.format(s='' if counts[name] == 1 else 's')}"
        for name, text in words.items()
        if counts.get(name)
    ]


def _wide_console() -> Console:
    # A pipe has no width: a table is not to be folded there.
    return Console() if sys.stdout.isatty() else Console(width=160)
