"""Pictures of a run, for people who would rather look than read."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nstudent.storage import atomic_write

Scores = Mapping[str, Any]
"""The content of scores.json."""
Histories = Mapping[str, list[list[dict[str, float]]]]
"""Per step, the epochs of each network it trained."""


def save_figure(path: Path, scores: Scores, histories: Histories) -> None:
    """Test scores with their intervals, learning curves, and the precision of the pseudo-labels, as one PNG."""
    figure = Figure(figsize=(15, 4.8), layout="constrained", dpi=110)
    test_scores, curves, labels = figure.subplots(1, 3, width_ratios=[1.4, 1, 1])
    _draw_scores(test_scores, scores)
    _draw_curves(curves, histories)
    _draw_labels(labels, scores)
    buffer = io.BytesIO()
    # No software version or date in the file: equal runs give equal bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    atomic_write(path, buffer.getvalue())


def _draw_scores(axes: Axes, scores: Scores) -> None:
    classifiers = scores["classifiers"]
    first = next(iter(classifiers.values()))["test"]
    names = [name for name in first if name.startswith("accuracy/") or name in ("contest alone", "exact path")]
    names = [name for name in names if first[name] is not None]
    width = 0.8 / len(classifiers)
    lowest = 1.0
    for number, (step, classifier) in enumerate(classifiers.items()):
        entries = [classifier["test"][name] for name in names]
        values = np.array([entry["value"] for entry in entries])
        spread = np.abs(np.array([[entry["low"], entry["high"]] for entry in entries]).T - values)
        places = np.arange(len(names)) + (number - (len(classifiers) - 1) / 2) * width
        label = f"{step} (final)" if step == scores["final"] else step
        axes.bar(places, values, width * 0.92, yerr=spread, capsize=2, label=label, error_kw={"lw": 0.9})
        lowest = min(lowest, float((values - spread[0]).min()))
    axes.set_xticks(range(len(names)), [name.removeprefix("accuracy/") for name in names])
    axes.set_ylim(max(0.0, lowest - 0.05), 1.0)
    axes.set_ylabel("test score")
    axes.set_title(f"Test: accuracy per level and over paths ({scores['confidence']:.0%} intervals)", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(axis="y", alpha=0.3)


def _draw_curves(axes: Axes, histories: Histories) -> None:
    for step, networks in histories.items():
        for number, history in enumerate(networks):
            epochs = [entry["epoch"] for entry in history if "validation" in entry]
            values = [entry["validation"] for entry in history if "validation" in entry]
            label = step if len(networks) == 1 else f"{step} member {number}"
            axes.plot(np.array(epochs) / epochs[-1], values, marker=".", lw=1.2, label=label)
    axes.set_xlabel("share of training")
    axes.set_ylabel("contest score (each level alone)")
    axes.set_title("Validation while training", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.3)


def _draw_labels(axes: Axes, scores: Scores) -> None:
    axes.set_title("Pseudo-labels against the hidden truth", fontsize=10)
    axes.set_xlabel("share of the heap that has a label at the level")
    axes.set_ylabel("precision")
    axes.grid(alpha=0.3)
    colours: dict[str, Any] = {}
    for step, levels in scores["pseudo_labels"].items():
        filtered = "filter" in step
        for level, quality in levels.items():
            if quality["precision"] is None:
                continue
            points = axes.scatter(
                quality["share"],
                quality["precision"],
                marker="o" if filtered else "x",
                color=colours.get(level),
                label=None if level in colours else level,
            )
            colours.setdefault(level, points.get_facecolor()[0])
            axes.annotate(step[:2], (quality["share"], quality["precision"]), fontsize=7, alpha=0.8)
    if colours:
        axes.legend(fontsize=8, loc="lower left", title="x labelled  o filtered", title_fontsize=8)
    else:
        axes.text(
            0.5,
            0.5,
            "the heap's true labels are not known",
            ha="center",
            va="center",
            transform=axes.transAxes,
        )
