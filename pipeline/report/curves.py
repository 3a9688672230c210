"""The learning curves of a run: loss, score and learning rate of each training, with over-fitting marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

from nstudent.evaluation.scores import HEADLINE
from nstudent.report.charts import LineChart, Point, line_chart
from nstudent.report.limits import Limits
from nstudent.report.material import Material

_SURE = 1.0
"""Standard errors of the validation score by which the last score has to be below the best one: over-fitting."""


@dataclass(frozen=True)
class Training:
    """The curves of one training."""

    name: str
    charts: tuple[LineChart, ...]
    said: str
    """How the training went, in a sentence."""
    is_overfit: bool


def trainings(material: Material, limits: Limits) -> tuple[list[Training], int]:
    """The curves of the trainings of a run, and how many are left out."""
    images = material.measured.data.validation if material.measured.data else 1
    curves = {name: epochs for name, epochs in material.curves.items() if epochs}
    shown = list(curves.items())[: limits.trainings]
    found = [_training(name, epochs, images, limits) for name, epochs in shown]
    waiting = {each.step for each in material.waiting}
    found = [_unfinished(each) if each.name.split("/")[0] in waiting else each for each in found]
    return found, len(curves) - len(shown)


def _unfinished(training: Training) -> Training:
    """The same, as one of a step that is not made yet."""
    return replace(training, said=f"This step is not finished. So far: {training.said[:1].lower()}{training.said[1:]}")


def _training(name: str, epochs: Sequence[Mapping[str, float]], images: int, limits: Limits) -> Training:
    measured = _line(epochs, "validation", limits.points)
    best = overfit_from(epochs, images)
    charts = (
        line_chart("loss", [("loss", _line(epochs, "loss", limits.points))], "epoch", percent=False, best=best),
        line_chart(f"{HEADLINE} on validation", [("validation", measured)], "epoch", percent=True, best=best),
        line_chart("learning rate", [("rate", _line(epochs, "learning_rate", limits.points))], "epoch", percent=False),
    )
    return Training(name, tuple(chart for chart in charts if chart), _said(measured, best, images), best is not None)


def overfit_from(epochs: Sequence[Mapping[str, float]], images: int) -> float | None:
    """The epoch after which a training over-fits: the loss goes on falling and the score on validation falls behind.

    Args:
        epochs: The epochs of the training.
        images: Number of validation images: how far a score of so many is from being known decides.

    Returns:
        The epoch of the best score; ``None`` if the last one is within a standard error of it, or the loss rose, too.
    """
    scored = [epoch for epoch in epochs if "validation" in epoch]
    if len(scored) < 2:
        return None
    best, last = max(scored, key=lambda epoch: epoch["validation"]), scored[-1]
    share = best["validation"]
    error = sqrt(share * (1 - share) / max(1, images))
    fell = share - last["validation"] > max(_SURE * error, 1e-9)
    return best["epoch"] if fell and last["loss"] < best["loss"] else None


def _said(measured: Sequence[Point], best: float | None, images: int) -> str:
    if not measured:
        return "No score was measured in this training."
    last = measured[-1][1]
    epoch, top = max(measured, key=lambda point: (point[1], point[0]))
    if best is not None:
        return (
            f"Over-fitting: after epoch {best:g} the loss goes on falling and the score falls from {100 * top:.1f} % "
            f"to {100 * last:.1f} %. Try fewer epochs, more noise or a smaller network."
        )
    if top <= last:
        return f"It ends at its best score, {100 * last:.1f} %."
    return (
        f"It ends at {100 * last:.1f} %; the best score was {100 * top:.1f} %, after epoch {epoch:g}. No over-fitting "
        f"that {images:,} validation images could tell from chance or from a rising loss."
    )


def _line(epochs: Sequence[Mapping[str, float]], what: str, most: int) -> list[Point]:
    """A curve as points (epoch, value), thinned evenly to so many; its first and last point stay."""
    points = [(epoch["epoch"], epoch[what]) for epoch in epochs if what in epoch and abs(epoch[what]) < float("inf")]
    if len(points) <= most:
        return points
    step = (len(points) - 1) / (most - 1)
    return [points[round(number * step)] for number in range(most)]
