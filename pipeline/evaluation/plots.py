"""Pictures of a run, for people who would rather look than read."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nstudent.evaluation.scores import COMPARED, HEADLINE, OF_A_LEVEL, Difference, LevelQuality, Scores
from nstudent.storage.files import atomic_write

Histories = Mapping[str, Sequence[Sequence[Mapping[str, float]]]]
"""Per step, the epochs of each network it trained."""


def save_figure(path: Path, scores: Scores, histories: Histories, judged: Mapping[str, str]) -> None:
    """Draw test scores, the gain of the heap, learning curves, and the precision of the pseudo-labels, as one PNG.

    Scores and differences have their intervals. The precision is left out if the true labels of the heap are not known.

    Args:
        path: Of the file to write.
        scores: Of the run.
        histories: Of the networks that were trained, by step.
        judged: By filter step, the step whose pseudo-labels it judged, in the order of the rounds.
    """
    with _own_settings():
        figure = Figure(figsize=(14, 9), layout="constrained", dpi=110)
        arrows = list(_arrows(scores.pseudo_labels, judged))
        # Test scores, gain; curves, and labels if there is something to show of them.
        panels = figure.subplot_mosaic("sg;cl" if arrows else "sg;cc", width_ratios=[1.3, 1])
        colours = {name: f"C{number}" for number, name in enumerate(scores.test)}
        _draw_scores(panels["s"], scores, colours)
        _draw_gain(panels["g"], scores)
        _draw_curves(panels["c"], histories, colours)
        if arrows:
            _draw_labels(panels["l"], arrows)
        buffer = io.BytesIO()
        # No software version or date in the file: equal runs give equal bytes.
        figure.savefig(buffer, format="png", metadata={"Software": None})
    atomic_write(path, buffer.getvalue())


@contextmanager
def _own_settings() -> Iterator[None]:
    """matplotlib as it is installed: no ``matplotlibrc`` of anybody changes a byte, or has a text typeset by TeX.

    Names of classes are texts and no formulas, whatever dollar signs they hold.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"text.usetex": False, "text.parse_math": False})
        yield


def _draw_scores(axes: Axes, scores: Scores, colours: Mapping[str, str]) -> None:
    # All are scored on the same images: a score that says nothing of one says nothing of any.
    shown = {step: {name: each for name, each in test.items() if each} for step, test in scores.test.items()}
    names = [name for name in next(iter(shown.values())) if name.startswith(OF_A_LEVEL) or name in COMPARED]
    width = 0.8 / len(shown)
    for number, step in enumerate(shown):
        entries = [shown[step][name] for name in names]
        values = np.array([entry.value for entry in entries])
        spread = np.abs(np.array([[entry.low, entry.high] for entry in entries]).T - values)
        places = np.arange(len(names)) + (number - (len(shown) - 1) / 2) * width
        label = f"{step} (final)" if step == scores.final.name else step
        axes.bar(places, values, width * 0.92, color=colours[step], label=label)
        axes.errorbar(places, values, yerr=spread, fmt="none", ecolor="black", capsize=2, lw=0.9)
    axes.set_xticks(range(len(names)), [name.removeprefix(OF_A_LEVEL) for name in names])
    # Bars are compared by their lengths, which are right only if they begin at zero.
    axes.set_ylim(0.0, 1.0)
    axes.set_ylabel("test score")
    axes.set_title(f"Test: accuracy per level and over paths ({scores.confidence:.0%} intervals)", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    _legend_below(axes)


def _draw_gain(axes: Axes, scores: Scores) -> None:
    """The two comparisons of a run, in points: best against best, and one network against one."""
    axes.set_title("What the unlabelled images gave, on test", fontsize=10)
    found = scores.heap_gain
    rows: list[tuple[str, Difference, str]] = []
    if found:
        label = f"{found.with_heap.name}\nagainst\n{found.labels_alone.name}"
        rows += [(f"{label}\n({name})", difference, "C0") for name, difference in found.difference.items()]
    if scores.equal_passes:
        rows += [
            (f"last student against\nits baseline\n({name})", difference, "C7")
            for name, difference in scores.equal_passes.items()
        ]
    if not rows:
        axes.text(0.5, 0.5, "no classifier learnt from them", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    for place, (_, difference, colour) in enumerate(rows):
        low, value, high = (100 * share for share in (difference.low, difference.value, difference.high))
        axes.plot([low, high], [place, place], color=colour, lw=2.5)
        axes.plot(value, place, marker="o", color=colour)
        axes.annotate(f"{value:+.1f} [{low:.1f}, {high:.1f}]", (value, place - 0.15), ha="center", fontsize=9)
    axes.axvline(0, color="black", lw=1)
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.margins(x=0.15)
    axes.set_xlabel(f"points ({scores.confidence:.0%} intervals)")
    axes.grid(axis="x", alpha=0.3)


def _draw_curves(axes: Axes, histories: Histories, colours: Mapping[str, str]) -> None:
    for step, networks in histories.items():
        # A member that is not a network may have been fitted without epochs.
        measured = [[entry for entry in history if "validation" in entry] for history in networks]
        for number, history in enumerate(filter(None, measured)):
            epochs = [entry["epoch"] for entry in history]
            values = [entry["validation"] for entry in history]
            label = step if number == 0 else None
            axes.plot(np.array(epochs) / epochs[-1], values, marker=".", lw=1.2, color=colours[step], label=label)
    axes.set_xlabel("share of training")
    axes.set_ylabel(HEADLINE)
    axes.set_title("Validation while training", fontsize=10)
    axes.grid(alpha=0.3)
    if axes.lines:
        _legend_below(axes)


@dataclass(frozen=True)
class _Arrow:
    """What a filter did to the labels of a level in a round, each end as (share of the heap, precision)."""

    level: str
    colour: str
    round: int
    made: tuple[float, float]
    left: tuple[float, float]


def _arrows(quality: Mapping[str, Mapping[str, LevelQuality]], judged: Mapping[str, str]) -> Iterator[_Arrow]:
    """From the labels as they were made to what the filter left of them; none where no true label is known."""
    for round_, (filtered, made) in enumerate(judged.items(), start=1):
        for number, level in enumerate(quality[made]):
            before, after = quality[made][level], quality[filtered][level]
            if before.precision is not None and after.precision is not None:
                ends = (before.share, before.precision), (after.share, after.precision)
                yield _Arrow(level, f"C{number}", round_, *ends)


def _draw_labels(axes: Axes, arrows: Sequence[_Arrow]) -> None:
    """An arrow for each level and round."""
    axes.set_title("What the filter did to the pseudo-labels", fontsize=10)
    axes.set_xlabel("share of the heap that has a label at the level")
    axes.set_ylabel("precision")
    axes.grid(alpha=0.3)
    for each in arrows:
        axes.scatter(*each.made, marker="x", color=each.colour, label=each.level if each.round == 1 else None)
        axes.scatter(*each.left, marker="o", color=each.colour)
        drawn = {"arrowstyle": "->", "color": each.colour, "alpha": 0.6}
        axes.annotate("", each.left, each.made, arrowprops=drawn)
        axes.annotate(f" {each.round}", each.left, fontsize=8)
    _legend_below(axes, title="x before, o after; numbers are rounds")


def _legend_below(axes: Axes, title: str | None = None) -> None:
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
        ncol=4,
        fontsize=8,
        frameon=False,
        title=title,
        title_fontsize=8,
    )
