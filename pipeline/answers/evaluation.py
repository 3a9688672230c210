"""How well a classifier does on photos that it has not seen and whose labels are known."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nstudent.classifier import Classifier, Prediction
from nstudent.config.schema import DataConfig
from nstudent.data.sources import catalogue_of, open_source
from nstudent.errors import DataError, one_line
from nstudent.evaluation.bootstrap import interval
from nstudent.evaluation.metrics import Ratio, tally
from nstudent.evaluation.scores import CONFIDENCE_OF_STEPS, Interval
from nstudent.session import Session
from nstudent.storage.files import atomic_write, make_folder, write_json
from nstudent.taxonomy.reading import ABSENT_ENTRY
from nstudent.taxonomy.tree import ABSENT, UNKNOWN, LabelArray, Taxonomy

SCORES, CLASSES, MISTAKES = "scores.json", "classes.csv", "mistakes.csv"
_RESAMPLES = 1000


@dataclass(frozen=True)
class ClassScore:
    """How one class of one level is recognised."""

    level: str
    name: str
    images: int
    """Number of images of the class."""
    right: Interval
    """Share of them that are said to be of it."""
    said: int
    """Number of images that are said to be of the class, among those whose class at the level is known."""
    precision: float | None
    """Share of these that are of it; ``None`` if there are none."""


@dataclass(frozen=True)
class Mistake:
    """An image whose label is not the true one."""

    image: str
    truth: str
    """The true path, such as ``fruit/apple``."""
    said: str
    level: str
    """The first level that is wrong."""
    probability: float
    """Probability of what is said at that level; 0 where nothing is."""


@dataclass(frozen=True)
class Evaluation:
    """What new photos say of a classifier."""

    scores: dict[str, Interval | None]
    """By name of the score; ``None`` if no image counts for it."""
    classes: tuple[ClassScore, ...]
    """Classes of each level that there are images of, the worst first."""
    mistakes: tuple[Mistake, ...]
    """Mistakes, those of which it was surest first."""
    images: int
    """Number of images that were scored."""
    seen_before: int
    """Number of these that the run has learnt from or chosen by, on which a score flatters."""
    scores_of_new: dict[str, Interval | None]
    """The scores of the images that it has not seen; empty if it has seen none or all of them."""
    unlabelled: int
    """Number of images that have no label, and were left out."""
    unknown: dict[str, int]
    """Number of images by what is wrong with their label, such as a class that the classifier does not know."""
    unreadable: dict[str, str]
    """Why an image cannot be read, by its name."""

    def write(self, folder: Path) -> None:
        """Write ``scores.json``, ``classes.csv`` and ``mistakes.csv`` into a folder, which is made if it is missing."""
        make_folder(folder)
        left_out = {"unlabelled": self.unlabelled, "unknown": self.unknown, "unreadable": self.unreadable}
        said = {"images": self.images, "confidence": CONFIDENCE_OF_STEPS, "scores": _json(self.scores)}
        seen = {"images": self.seen_before, "scores_of_new": _json(self.scores_of_new)}
        write_json(folder / SCORES, {**said, "seen_before": seen, "left_out": left_out})
        rows = (
            (c.level, c.name, c.images, c.right.value, c.right.low, c.right.high, c.said, c.precision)
            for c in self.classes
        )
        header = ("level", "class", "images", "right", "low", "high", "said", "precision")
        atomic_write(folder / CLASSES, _csv(header, rows))
        wrong = ((m.image, m.truth, m.said, m.level, m.probability) for m in self.mistakes)
        atomic_write(folder / MISTAKES, _csv(("image", "truth", "said", "level", "probability"), wrong))


def evaluate(
    classifier: Classifier, photos: Path, session: Session, seen: Collection[bytes] = frozenset()
) -> Evaluation:
    """Score a classifier on labelled photos.

    Args:
        classifier: The classifier.
        photos: A folder whose folders are the classes, or a CSV file with the columns ``path`` and one per level, as
            for training. Divisions into splits are not looked at.
        session: Is told how far it is, and asked whether to go on.
        seen: The sha256 of files that the run has learnt from or chosen by (``answers.seen_before``).

    Raises:
        DataError: There are no such photos, or none has a label that the classifier knows.
    """
    taxonomy = classifier.taxonomy
    config = _config(photos, taxonomy.levels)
    source = open_source(config)
    truth: list[tuple[int, ...]] = []
    images: list[tuple[str, int]] = []
    unlabelled, unknown = 0, Counter[str]()
    for number, record in enumerate(catalogue_of(source, config).records):
        try:
            row = _encoded(taxonomy, record.label)
        except DataError as error:
            unknown[str(error)] += 1
            continue
        if max(row) < 0:
            unlabelled += 1
            continue
        truth.append(row)
        images.append((record.name, number))
    if not images:
        first = f", such as: {next(iter(unknown))}" if unknown else ""
        raise DataError(f"{one_line(str(photos))} holds no photo with a label that the classifier knows{first}")
    found: list[Prediction] = []
    with session.watched().task("evaluate", len(images), "images") as task:
        for prediction in classifier.stream_source(images, source):
            found.append(prediction)
            task.advance(1)
    read = [number for number, each in enumerate(found) if each.error is None]
    unreadable = {each.image: each.error for each in found if each.error is not None}
    if not read:
        raise DataError(f"none of the photos in {one_line(str(photos))} can be read")
    return _evaluation(
        taxonomy,
        [found[i] for i in read],
        np.array([truth[i] for i in read], dtype=np.int32),
        np.array([found[i].digest in seen for i in read]),
        (unlabelled, dict(unknown), unreadable),
    )


def _config(photos: Path, levels: Sequence[str]) -> DataConfig:
    if photos.is_dir():
        return DataConfig(source="folder", root=str(photos), levels=tuple(levels))
    if photos.is_file():
        return DataConfig(source="csv", root=str(photos.parent), table=photos.name, levels=tuple(levels))
    raise DataError(f"there is no folder and no CSV file {one_line(str(photos))}: correct the path or mount the disk")


def _encoded(taxonomy: Taxonomy, label: Sequence[str]) -> tuple[int, ...]:
    """The label as class indices; below a class where no label of the classifier ends, the rest is not known."""
    row = taxonomy.encode(label)
    if UNKNOWN not in row and taxonomy.terminal_of(np.array([row], dtype=np.int32))[0] < 0:
        return tuple(UNKNOWN if index == ABSENT else index for index in row)
    return row


def _evaluation(
    taxonomy: Taxonomy,
    found: Sequence[Prediction],
    truth: LabelArray,
    seen: npt.NDArray[np.bool_],
    left_out: tuple[int, dict[str, int], Any],
) -> Evaluation:
    said = np.array([_row(taxonomy, each) for each in found], dtype=np.int32)
    tallies = tally(said, truth, taxonomy.levels)
    unlabelled, unknown, unreadable = left_out
    some_seen = seen.any() and not seen.all()
    return Evaluation(
        scores=_intervals(tallies),
        classes=tuple(_classes(taxonomy, said, truth)),
        mistakes=tuple(sorted(_mistakes(taxonomy, found, said, truth), key=lambda each: -each.probability)),
        images=len(found),
        seen_before=int(seen.sum()),
        scores_of_new=_intervals({name: ratio[~seen] for name, ratio in tallies.items()}) if some_seen else {},
        unlabelled=unlabelled,
        unknown=unknown,
        unreadable=unreadable,
    )


def _intervals(tallies: Mapping[str, Ratio]) -> dict[str, Interval | None]:
    return {name: interval(ratio, _RESAMPLES, CONFIDENCE_OF_STEPS) for name, ratio in tallies.items()}


def _json(scores: Mapping[str, Interval | None]) -> dict[str, Any]:
    return {name: None if each is None else each.to_json() for name, each in scores.items()}


def _row(taxonomy: Taxonomy, prediction: Prediction) -> tuple[int, ...]:
    labels = prediction.labels
    return taxonomy.encode([labels[level].name if level in labels else ABSENT_ENTRY for level in taxonomy.levels])


def _classes(taxonomy: Taxonomy, said: LabelArray, truth: LabelArray) -> Iterator[ClassScore]:
    for number, level in enumerate(taxonomy.levels):
        known = truth[:, number] != UNKNOWN
        here_truth, here_said = truth[known, number], said[known, number]
        rows = []
        for index, name in enumerate(taxonomy.classes[number]):
            of_it, said_it = here_truth == index, here_said == index
            right = _share(here_said[of_it] == index)
            if right is not None:
                precision = float((here_truth[said_it] == index).mean()) if said_it.any() else None
                rows.append(ClassScore(level, name, int(of_it.sum()), right, int(said_it.sum()), precision))
        yield from sorted(rows, key=lambda each: each.right.value)


def _share(right: npt.NDArray[np.bool_]) -> Interval | None:
    return interval(np.stack([right, np.ones(len(right))], axis=1).astype(float), _RESAMPLES, CONFIDENCE_OF_STEPS)


def _mistakes(
    taxonomy: Taxonomy, found: Sequence[Prediction], said: LabelArray, truth: LabelArray
) -> Iterator[Mistake]:
    wrong = (said != truth) & (truth != UNKNOWN)
    for row in np.flatnonzero(wrong.any(axis=1)).tolist():
        level = taxonomy.levels[int(wrong[row].argmax())]
        answer = found[row].labels.get(level)
        yield Mistake(
            image=found[row].image,
            truth=_path(taxonomy, truth[row]),
            said=_path(taxonomy, said[row]),
            level=level,
            probability=round(answer.probability, 4) if answer else 0.0,
        )


def _path(taxonomy: Taxonomy, row: npt.NDArray[np.int32]) -> str:
    return "/".join(taxonomy.names(row.tolist()).values())


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")
