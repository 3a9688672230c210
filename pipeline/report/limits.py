"""How much of a run a report shows, so that no run makes a page of more than a few megabytes."""

from __future__ import annotations

from dataclasses import dataclass

MAX_BYTES = 5_000_000
"""Largest size of a report."""


@dataclass(frozen=True)
class Limits:
    """The most that is shown of each kind; what is left out is counted where it would stand."""

    pictures: int = 24
    """Pictures of a contact sheet."""
    picture_px: int = 96
    """Longer side of a picture."""
    rows: int = 200
    """Rows of a table of classes."""
    matrix: int = 48
    """Classes of the confusion matrix of a level."""
    siblings: int = 24
    """Classes of the confusion matrix of a sibling group."""
    groups: int = 12
    """Sibling groups of a level with a matrix of their own."""
    pairs: int = 15
    """Pairs of classes that are taken for each other, of a level."""
    points: int = 300
    """Points of a curve."""
    trainings: int = 24
    """Trainings with curves."""
    characters: int = 20_000
    """Characters of the configuration."""

    def divided(self, by: int) -> Limits:
        """As much less of everything."""
        return Limits(
            pictures=self.pictures // by,
            picture_px=self.picture_px,
            rows=max(5, self.rows // by),
            matrix=max(2, self.matrix // by),
            siblings=max(2, self.siblings // by),
            groups=self.groups // by,
            pairs=max(2, self.pairs // by),
            points=max(20, self.points // by),
            trainings=max(1, self.trainings // by),
            characters=max(1000, self.characters // by),
        )
