"""What a person reads at the end of a run: scores, costs, findings, and in words whether the heap helped.

No line of a table is wider than 80 columns, whatever the levels are called and however many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from nstudent.cli.console import print_line, print_sentence
from nstudent.errors import one_line
from nstudent.evaluation.refit_scores import RefitScores
from nstudent.evaluation.scores import HEADLINE, OF_A_LEVEL, WHOLE_PATH, Difference, Interval, Scores, Side
from nstudent.runs.finding import Finding
from nstudent.runs.measured import Measured
from nstudent.runs.step_metrics import FilterMetrics
from nstudent.runs.verdict import points
from nstudent.runs.words import COSTS, legend
from rich.cells import cell_len, set_cell_size

_WIDTH = 80
_NAME = 22
"""Columns of the name of a classifier."""
_LEVEL = 12
"""Columns of the name of a level."""
_GAP = "  "

Row = Sequence[str]


def print_scores(measured: Measured) -> None:
    """The tables at the end of a run: what each classifier scores on test, and what the two sides of the gain cost."""
    scores = measured.scores
    sides = scores.sides
    for block in _blocks(_columns(scores)):
        _print_table(block)
    what = "final classifier" if measured.refit is None else "chosen classifier"
    print_line(f"* {what}, chosen on validation. Scores: of the test images, in %.")
    print_line(f"  {scores.confidence:.0%} intervals: what other test images would change, and not another seed.")
    _print_legend(scores)
    print_line()
    _print_table(_costs(sides, measured.seconds))
    for side in sides:
        if len(side.parts) > 1:
            print_sentence(f"{side.name}: {', '.join(f'{share:.0%} {step}' for step, share in side.parts.items())}")
    if scores.equal_passes:
        print_line("The last student against the same network, trained on the labels alone:")
        print_line(f"  {_both(scores.equal_passes)}")
    if scores.calibration:
        print_line("How far the probabilities are off (and would be by chance, with so few images):")
        print_line(f"  {_calibration(scores)}")
    if measured.refit is not None:
        for line in _refit(measured.refit, scores.final.name):
            print_sentence(line)
    if (found := scores.final.on_tree) is not None and found.severity is not None:
        print_sentence(
            f"The {found.mistakes} wrong labels of the final classifier are {found.severity:.1f} levels off, on "
            "average (1: a class beside the right one; each level more has less in common with it)."
        )


def _refit(found: RefitScores, chosen: str) -> Iterator[str]:
    """What training again on labels and validation together has changed, on test."""
    yield (
        f"{found.final.name} is what the run gives: the {chosen} trained again, on labels and validation together, "
        "after the last decision; its calibration is that of before. On test, against what it was:"
    )
    yield f"  {_both(found.over_chosen)}"
    if found.gain is not None and found.labels_alone is not None:
        yield f"Against {found.labels_alone.name}, the best of the labels alone trained again in the same way:"
        yield f"  {_both(found.gain)}"


def print_findings(measured: Measured, found: Iterable[Finding]) -> None:
    """What the filters dropped, and whatever else is worth a sentence."""
    # How much a filter drops stands in its line, whether it is much or not.
    shown = [finding for finding in found if finding.kind != "filter drops much"]
    for step, judged in measured.filters.items():
        if (dropped := _dropped(judged)) and not judged.ended:
            print_sentence(f"{step} dropped {dropped}.")
    for finding in shown:
        print_sentence(finding.sentence + (f" Try: {finding.remedy}." if finding.remedy else ""))


def _columns(scores: Scores) -> list[Row]:
    """The columns of the table of scores, the names first: each its two lines of heading and its cells."""
    rows = scores.test
    levels = _levels(scores)
    names = (_short(name, _NAME - 2) + (" *" if name == scores.final.name else "") for name in rows)
    columns: list[Row] = [["", "", *names]]
    for name in (HEADLINE, WHOLE_PATH, *levels):
        heading = ["", _short(name.removeprefix(OF_A_LEVEL), _LEVEL)] if name in levels else name.split(" ", 1)
        columns.append([*heading, *(_cell(test.get(name)) for test in rows.values())])
    return columns


def _levels(scores: Scores) -> dict[str, None]:
    """Names of the scores of single levels, coarse first."""
    return dict.fromkeys(name for test in scores.test.values() for name in test if name.startswith(OF_A_LEVEL))


def _costs(sides: Sequence[Side], seconds: Mapping[str, float]) -> list[Row]:
    """Columns: what each side of the gain took to make, and takes to label an image."""
    minutes = [sum(seconds.get(step, 0.0) for step in side.made_from) / 60 for side in sides]
    return [
        ["", "cost", *(_short(side.name, _NAME - 2) for side in sides)],
        ["training,", "GMACs", *(_count(side.training_gmacs) for side in sides)],
        ["image", "passes", *(_count(side.image_passes) for side in sides)],
        ["", "minutes", *(f"{each:.1f}" for each in minutes)],
        ["one image,", "GMACs", *(f"{side.gmacs:.4g}" for side in sides)],
    ]


def _print_legend(scores: Scores) -> None:
    """What the words above and below mean."""
    shown = (HEADLINE, WHOLE_PATH) if len(_levels(scores)) > 1 else (HEADLINE,)
    meanings = legend(scores.test, shown) | dict(COSTS)
    width = max(map(len, meanings))
    for word, meaning in meanings.items():
        print_line(f"  {word:<{width}}  {meaning}")


def _blocks(columns: Sequence[Row]) -> Iterator[list[Row]]:
    """The columns in blocks that fit the width; each begins with the first column."""
    names, *rest = columns
    block = [names]
    for column in rest:
        if len(block) > 1 and _width([*block, column]) > _WIDTH:
            yield block
            block = [names]
        block.append(column)
    yield block


def _width(columns: Sequence[Row]) -> int:
    return sum(max(map(cell_len, column)) for column in columns) + len(_GAP) * (len(columns) - 1)


def _print_table(columns: Sequence[Row]) -> None:
    """The first column flush left, the others flush right."""
    widths = [max(map(cell_len, column)) for column in columns]
    for cells in zip(*columns, strict=True):
        first, *rest = cells
        padded = [set_cell_size(first, widths[0])]
        padded += [" " * (width - cell_len(cell)) + cell for cell, width in zip(rest, widths[1:], strict=True)]
        print_line(_GAP.join(padded).rstrip())
    print_line()


def _short(name: str, width: int) -> str:
    """A name that fits so many columns, what is in its middle left out: names of one place differ at their ends."""
    shown = one_line(name)
    if cell_len(shown) <= width:
        return shown
    half = (width - 1) // 2
    tail = shown
    while cell_len(tail) > half:
        tail = tail[1:]
    return set_cell_size(shown, width - 1 - cell_len(tail)).rstrip() + "…" + tail


def _dropped(judged: FilterMetrics) -> str:
    """Number and share of the labels that a filter dropped, by level; empty if it dropped none."""
    counts = {level: (gone, judged.kept.get(level, 0)) for level, gone in judged.dropped.items() if gone}
    return ", ".join(
        f"{gone} labels at level {level} ({gone / (gone + kept):.0%})" for level, (gone, kept) in counts.items()
    )


def _calibration(scores: Scores) -> str:
    return ", ".join(
        f"{level} {100 * found.error:.1f}% ({100 * found.perfect:.1f}%)" for level, found in scores.calibration.items()
    )


def _both(differences: Mapping[str, Difference]) -> str:
    return ", ".join(f"{points(difference)} {name}" for name, difference in differences.items())


def _cell(entry: Interval | None) -> str:
    if entry is None:
        return "-"
    return f"{100 * entry.value:.1f} ±{100 * (entry.high - entry.low) / 2:.1f}"


def _count(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
