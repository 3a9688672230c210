"""Which classes the final classifier gets wrong: by class, by pair, among siblings, and how far off it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from nstudent.data.curation.split import TEST, TRAIN
from nstudent.report.limits import Limits
from nstudent.report.material import Images, Material
from nstudent.taxonomy.tree import UNKNOWN
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class ClassRow:
    """How well one class is recognised on test."""

    name: str
    images: int
    """Number of test images of the class."""
    recall: float
    precision: float | None
    """``None`` if no test image was taken for the class."""
    f1: float
    taken_for: str
    """The class that its images are most often taken for by mistake, and how often; empty if there is no mistake."""
    trained: int
    """Number of labelled training images of the class."""
    taught: int
    """Number of unlabelled images that are taught as the class in the last round."""


@dataclass(frozen=True)
class Pair:
    """Images of one class that are taken for another one."""

    truth: str
    said: str
    images: int
    of: int
    """Number of test images of the class ``truth``."""


@dataclass(frozen=True)
class Matrix:
    """Number of test images by their class (rows) and by the class that they are taken for (columns)."""

    title: str
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def share(self, row: int, column: int) -> float:
        """Share of the images of a row that stand in a column."""
        total = sum(self.counts[row])
        return round(self.counts[row][column] / total, 3) if total else 0.0


@dataclass(frozen=True)
class Constant:
    """What saying one class of every image would reach, beside what the classifier reaches on the same images."""

    name: str
    """The most frequent class."""
    share: float
    """Share of the test images of the level that are of it."""
    right: float
    """Share of them that the classifier is right about."""


@dataclass(frozen=True)
class LevelClasses:
    """What one level of the test images says of its classes."""

    level: str
    constant: Constant | None
    """``None`` if no test image has a class at the level."""
    rows: tuple[ClassRow, ...]
    """The worst first."""
    rows_left_out: int
    pairs: tuple[Pair, ...]
    """The most frequent first."""
    mistakes: int
    within: int
    """Number of the mistakes that stay among the siblings of the true class."""
    matrix: Matrix | None
    """Confusion of all classes of the level; ``None`` if they are too many."""
    groups: tuple[Matrix, ...]
    """Confusion of the classes below one class each, for images that are taken for a sibling; most mistakes first."""


@dataclass(frozen=True)
class Severity:
    """Test images by how far off the label is."""

    said: str
    images: int
    share: float


def levels(material: Material, taught: Sequence[npt.NDArray[np.int64]], limits: Limits) -> list[LevelClasses]:
    """The classes of each level, on test.

    Args:
        material: The run.
        taught: By level, the number of unlabelled images that are taught as each class in the last round, (classes,);
            empty if there is none.
        limits: The most that is shown.
    """
    images, final = material.images, material.final
    rows = final.rows_of(TEST)
    found = []
    for level, name in enumerate(images.taxonomy.levels):
        known = rows[final.truth[rows, level] != UNKNOWN]
        counts = taught[level] if taught else np.zeros(images.taxonomy.num_classes[level], dtype=np.int64)
        answers = _Answers(images, level, final.truth[known, level], final.paths[known, level])
        found.append(answers.classes(name, counts, limits))
    return found


def severities(material: Material) -> list[Severity]:
    """Test images whose whole label is known, by the level of their first mistake."""
    images, final = material.images, material.final
    rows = final.rows_of(TEST)
    rows = rows[(final.truth[rows] != UNKNOWN).all(axis=1)]
    truth, said = final.truth[rows], final.paths[rows]
    wrong = truth != said
    first = np.where(wrong.any(axis=1), wrong.argmax(axis=1), -1)
    at = [("the whole label is right", int((first < 0).sum()))]
    names = images.taxonomy.levels
    for level in reversed(range(len(names))):
        here = first == level
        right = f"right down to {names[level - 1]}, " if level else ""
        for text, which in _kinds(truth[here, level], said[here, level]):
            at.append((f"{right}{text} at {names[level]}", int(which.sum())))
    return [Severity(text, number, number / max(1, len(rows))) for text, number in at if number]


def _kinds(truth: Numbers, said: Numbers) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    return [
        ("another class", (truth >= 0) & (said >= 0)),
        ("ends too early", (truth >= 0) & (said < 0)),
        ("goes on where the label ends", truth < 0),
    ]


@dataclass(frozen=True)
class _Answers:
    """The answers at one level for test images whose truth is known; -1 in either: the label has ended above."""

    images: Images
    level: int
    truth: Numbers
    said: Numbers

    def classes(self, name: str, taught: npt.NDArray[np.int64], limits: Limits) -> LevelClasses:
        """Everything that is shown of the level."""
        rows = self._rows(taught)
        wrong = self.truth != self.said
        within = wrong & (self.truth >= 0) & (self.said >= 0) & (self._above(self.truth) == self._above(self.said))
        few = len(self._names) <= limits.matrix
        return LevelClasses(
            level=name,
            constant=self._constant(),
            rows=tuple(rows[: limits.rows]),
            rows_left_out=max(0, len(rows) - limits.rows),
            pairs=tuple(self._pairs(limits.pairs)),
            mistakes=int(wrong.sum()),
            within=int(within.sum()),
            matrix=self._matrix("all classes", range(len(self._names)), np.ones(len(wrong), bool)) if few else None,
            groups=tuple(self._groups(within, limits)) if self.level else (),
        )

    @property
    def _names(self) -> tuple[str, ...]:
        return self.images.taxonomy.classes[self.level]

    def _name(self, index: int) -> str:
        return self._names[index] if index >= 0 else "(ends above)"

    def _above(self, classes: Numbers) -> Numbers:
        """The class above each, (images,); 0 on the first level, whose classes are siblings."""
        parents = np.array(self.images.taxonomy.parents[self.level] or [0] * len(self._names), dtype=np.int32)
        return parents[classes]

    def _rows(self, taught: npt.NDArray[np.int64]) -> list[ClassRow]:
        everything = range(len(self._names))
        precision, recall, f1, support = self._scored()
        predicted = np.bincount(self.said[self.said >= 0], minlength=len(self._names))
        own = self.images.labels[self.images.usable(TRAIN), self.level]
        trained = np.bincount(own[own >= 0], minlength=len(self._names))
        worst = {truth: (said, count) for truth, said, count in reversed(self._mistaken)}
        found = [
            ClassRow(
                name=self._names[i],
                images=int(support[i]),
                recall=float(recall[i]),
                precision=float(precision[i]) if predicted[i] else None,
                f1=float(f1[i]),
                taken_for=f"{self._name(worst[i][0])} ({worst[i][1]})" if i in worst else "",
                trained=int(trained[i]),
                taught=int(taught[i]),
            )
            for i in everything
        ]
        # A class without a test image says nothing: it stands last.
        return sorted(found, key=lambda row: (not row.images, row.f1, -row.images))

    def _constant(self) -> Constant | None:
        truth = self.truth[self.truth >= 0]
        if not len(truth):
            return None
        images = np.bincount(truth)
        right = (self.truth == self.said)[self.truth >= 0]
        return Constant(self._names[images.argmax()], float(images.max() / len(truth)), float(right.mean()))

    def _scored(self) -> tuple[npt.NDArray[np.float64], ...]:
        """Precision, recall, F1 and number of images of each class, (classes,) each."""
        classes = list(range(len(self._names)))
        if not len(self.truth):
            return (np.zeros(len(classes)),) * 4
        return tuple(precision_recall_fscore_support(self.truth, self.said, labels=classes, zero_division=0.0))

    @cached_property
    def _mistaken(self) -> list[tuple[int, int, int]]:
        """Class, the class that it is taken for, and how often, of every pair that occurs; the most frequent first."""
        wrong = self.truth != self.said
        both = np.stack([self.truth[wrong], self.said[wrong]], axis=1)
        pairs, counts = np.unique(both, axis=0, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]

    def _pairs(self, most: int) -> list[Pair]:
        return [
            Pair(self._name(truth), self._name(said), count, int((self.truth == truth).sum()))
            for truth, said, count in self._mistaken[:most]
        ]

    def _matrix(self, title: str, classes: Sequence[int], rows: npt.NDArray[np.bool_]) -> Matrix:
        """The confusion among some classes, of those of the images whose truth and answer are among them."""
        # -1 stands for a label that has ended above; it is shown where it occurs.
        ended = (
            [-1] if ((self.truth[rows] < 0) | (self.said[rows] < 0)).any() and len(classes) == len(self._names) else []
        )
        shown = [*classes, *ended]
        rows = rows & np.isin(self.truth, shown) & np.isin(self.said, shown)
        names = tuple(self._name(i) for i in shown)
        if not rows.any() or len(shown) == 1:
            return Matrix(title, names, tuple((int(rows.sum()),) * len(shown) for _ in shown))
        counts = confusion_matrix(self.truth[rows], self.said[rows], labels=shown)
        return Matrix(title, names, tuple(tuple(map(int, row)) for row in counts))

    def _groups(self, within: npt.NDArray[np.bool_], limits: Limits) -> Iterator[Matrix]:
        """The sibling groups with the most mistakes among them."""
        parents = np.array(self.images.taxonomy.parents[self.level])
        above = self.images.taxonomy.classes[self.level - 1]
        mistakes = np.bincount(self._above(self.truth[within]), minlength=len(above))
        inside = (self.truth >= 0) & (self.said >= 0)
        for group in np.argsort(-mistakes, kind="stable")[: limits.groups]:
            members = np.flatnonzero(parents == group)
            if not mistakes[group]:
                return
            # Of many siblings those that are mistaken most often are shown.
            often = np.bincount(self.truth[within & inside], minlength=len(parents))[members]
            often += np.bincount(self.said[within & inside], minlength=len(parents))[members]
            most = np.sort(members[np.argsort(-often, kind="stable")[: limits.siblings]])
            left = f" ({len(members) - len(most)} more classes are not shown)" if len(most) < len(members) else ""
            yield self._matrix(f"{above[group]}{left}", most.tolist(), inside)
