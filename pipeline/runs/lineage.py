"""What a classifier was made from, and what that cost: the steps behind its weights, read from their manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nstudent.runs.step_metrics import ChoiceMetrics, FilterMetrics, TrainedMetrics, read_metrics
from nstudent.storage.artifact import Manifest


@dataclass(frozen=True)
class Cost:
    """What steps have cost together."""

    training_gmacs: float | None
    """Billions of multiply-adds of their trainings; ``None`` if one of them was not counted."""
    image_passes: int | None
    """Number of images that went forward and backward in them; ``None`` if one of them was not counted."""


def made_from(parts: Iterable[str], manifests: Mapping[str, Manifest]) -> set[str]:
    """Names of the steps that some trained classifiers were made from, themselves among them.

    A labeller stands for the classifiers that it is a pool of: those that were trained and not chosen have left nothing
    in its labels.

    Args:
        parts: Names of the steps that trained the classifiers.
        manifests: Of the steps that count, by name: what has none here is left out.
    """
    found: set[str] = set()
    left = [*parts]
    while left:
        name = left.pop()
        if name in found or name not in manifests:
            continue
        found.add(name)
        manifest = manifests[name]
        chosen = manifest.role == "labeller"
        left += ChoiceMetrics.of(manifest).taken.parts if chosen else manifest.inputs
    return found


def cost(steps: Iterable[str], manifests: Mapping[str, Manifest]) -> Cost:
    """The cost of the trainings of some steps; labelling and choosing train nothing."""
    reported = (read_metrics(manifests[name]) for name in sorted(steps))
    trained = [each for each in reported if isinstance(each, TrainedMetrics | FilterMetrics)]
    gmacs = [each.training_gmacs for each in trained]
    passes = [each.image_passes for each in trained]
    return Cost(
        training_gmacs=None if None in gmacs else round(sum(each for each in gmacs if each is not None), 3),
        image_passes=None if None in passes else sum(each for each in passes if each is not None),
    )
