"""What the tree says of the labels of the classifiers on test: how far off the wrong ones are, and how deep they go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nstudent.evaluation.scores import LevelReach, Scores, TreeScores
from nstudent.report.material import Material


@dataclass(frozen=True)
class Wrongness:
    """How far off the wrong labels of one classifier are."""

    name: str
    is_final: bool
    mistakes: int
    """Number of test images whose whole label is known, and wrong."""
    severity: float | None
    """Mean height of the class that what is said and what is true have in common, in levels; ``None`` if none is wrong.
    """


@dataclass(frozen=True)
class OnTree:
    """What the tree says of the classifiers of a run on test."""

    wrongness: tuple[Wrongness, ...]
    reach: tuple[tuple[str, LevelReach], ...]
    """How deep the labels of the final classifier go: level, coarse first, and how often they name a class there."""
    inconsistent: float | None
    """Share of the images for which the levels, each taken by itself, contradict each other."""


def on_tree(material: Material) -> OnTree | None:
    """The scores on the tree; ``None`` if there are none, or if the classes have one level.

    Args:
        material: The run.
    """
    scores = material.measured.scored
    if scores is None or scores.final.on_tree is None or len(scores.final.on_tree.reach) < 2:
        return None
    return OnTree(tuple(_wrongness(scores)), tuple(scores.final.on_tree.reach.items()), scores.inconsistent)


def _wrongness(scores: Scores) -> Iterator[Wrongness]:
    found: dict[str, TreeScores | None] = {name: each.on_tree for name, each in scores.classifiers.items()}
    found |= {side.name: side.on_tree for side in (*scores.sides, scores.final)}
    for name, each in found.items():
        if each is not None:
            yield Wrongness(name, name == scores.final.name, each.mistakes, each.severity)
