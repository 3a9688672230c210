"""A look at a source before any run: what it holds, what is odd about it, and what its images are like.

Every label is read, and of the images a sample: all of a small source, as many as a minute allows of a large one.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt
from nstudent.config.schema import DataConfig
from nstudent.data.curation.given_labels import counted_labels, encode_labels, findings, taxonomy_of
from nstudent.data.curation.split import VALIDATION, draw_splits
from nstudent.data.decode import shorter_side
from nstudent.data.packing.decoders import reading
from nstudent.data.packing.reader import Reader
from nstudent.data.sources import Catalogue, Source, catalogue_of, open_source
from nstudent.data.sources.listing import PassedOver
from nstudent.data.sources.source import SPLITS, Split, printable
from nstudent.errors import DataError, ImageError
from nstudent.machine import available_cores
from nstudent.progress import Progress
from nstudent.taxonomy.tree import ABSENT, UNKNOWN, LabelArray, Taxonomy

_MOST_OPENED = 400
"""Largest number of images that are opened for their size and state."""
_MOST_COMPARED = 20_000
"""Largest number of images without a known size in bytes that are read to find copies."""


@dataclass(frozen=True)
class LevelCounts:
    """The labels of one level."""

    level: str
    images: Mapping[str, int]
    """Number of labelled images by class, in the order of the tree; classes of one name are counted together."""
    absent: int
    """Number of labelled images whose label ends above the level."""
    unknown: int
    """Number of labelled images of which nobody said the class at the level."""


@dataclass(frozen=True)
class Sample:
    """What opening some of the images has shown."""

    opened: int
    unreadable: Mapping[str, str]
    """Reason by name."""
    side: int | None
    """Median of the shorter sides, in pixels; ``None`` if no image could be read."""
    seconds_each: float
    """Time to read and decode an image on one core."""


@dataclass(frozen=True)
class Survey:
    """What a source holds."""

    images: int
    labelled: int
    """Images with a label at some level."""
    levels: tuple[LevelCounts, ...]
    splits: Mapping[str, int]
    """Number of images by split, as a run would divide them; empty if it could not."""
    no_splits: str
    """Why a run could not divide them; else empty."""
    given_splits: frozenset[str]
    """The splits that the source gives itself."""
    rare: tuple[str, ...]
    """Ends of labels that fewer than ``FEW`` images have."""
    copies: int
    """Number of images whose bytes another image has, too; -1 if they were not compared."""
    contradictions: tuple[tuple[str, str], ...]
    """Pairs of equal images under different labels."""
    leaks: tuple[tuple[str, str], ...]
    """Pairs of equal images that the source itself put into different splits."""
    few_validation: str
    """The labels with the fewest validation images and their numbers, where some have fewer than three; else empty."""
    findings: Mapping[str, int]
    """Number of labels that are legal and yet worth a look, by kind (``given_labels.findings``)."""
    passed_over: tuple[PassedOver, ...]
    notes: tuple[str, ...]
    sample: Sample


_FEW_TO_VALIDATE = 3
"""Validation images of a label below which they tell nearly nothing of it."""
FEW = 5
"""A class with fewer images cannot be in train, validation and test in any useful number."""


def survey(config: DataConfig, seed: int, progress: Progress) -> Survey:
    """Look at the source that the configuration names.

    Args:
        config: Where the images and labels are.
        seed: Of the run: equal seeds divide the images in the same way.
        progress: Is told how far it is.

    Raises:
        DataError: The source cannot be read, or its labels fit no tree.
    """
    source = open_source(config)
    found = catalogue_of(source, config)
    taxonomy = taxonomy_of(found, config)
    labels = encode_labels(found.records, taxonomy)
    taxonomy = taxonomy.including(labels)
    given = [record.split for record in found.records]
    split, why = _divided(labels, given, config, seed)
    equal = _copies(source, found, progress)
    names = [record.name for record in found.records]
    has_label = (labels != UNKNOWN).any(axis=1) & np.array([each != "unlabelled" for each in given], dtype=bool)
    return Survey(
        images=len(names),
        labelled=int(has_label.sum()),
        levels=tuple(_counts(taxonomy, labels[has_label], level) for level in range(taxonomy.num_levels)),
        splits={} if split is None else {name: int((split == i).sum()) for i, name in enumerate(SPLITS)},
        no_splits=why,
        given_splits=frozenset(each for each in given if each is not None),
        rare=_rare(taxonomy, labels[has_label]),
        copies=-1 if equal is None else sum(len(group) - 1 for group in equal),
        contradictions=tuple((names[a], names[b]) for a, b in _contradictions(equal or [], labels)),
        leaks=tuple((names[a], names[b]) for a, b in _leaks(equal or [], given)),
        few_validation="" if split is None else _few_validation(taxonomy, labels[split == VALIDATION]),
        findings={} if split is None else _found(taxonomy, labels, split),
        passed_over=found.passed_over,
        notes=found.notes,
        sample=_sample(source, names, config, progress),
    )


def _divided(
    labels: LabelArray, given: Sequence[Split | None], config: DataConfig, seed: int
) -> tuple[npt.NDArray[np.int8] | None, str]:
    try:
        return draw_splits(labels, given, config, seed), ""
    except DataError as error:
        return None, str(error)


def _counts(taxonomy: Taxonomy, labels: LabelArray, level: int) -> LevelCounts:
    column = labels[:, level]
    names = taxonomy.classes[level]
    counts = dict.fromkeys(names, 0)
    for index, number in Counter(column[column >= 0].tolist()).items():
        counts[names[index]] += number
    return LevelCounts(taxonomy.levels[level], counts, int((column == ABSENT).sum()), int((column == UNKNOWN).sum()))


def _rare(taxonomy: Taxonomy, labels: LabelArray) -> tuple[str, ...]:
    ends = taxonomy.terminal_of(labels)
    numbers = np.bincount(ends[ends >= 0], minlength=len(taxonomy.terminals))
    return tuple(
        "/".join(taxonomy.names(taxonomy.terminals[end]).values()) for end in np.flatnonzero(numbers < FEW).tolist()
    )


def _few_validation(taxonomy: Taxonomy, labels: LabelArray) -> str:
    _, counts = np.unique(labels, axis=0, return_counts=True)
    few = counts.min(initial=_FEW_TO_VALIDATE) < _FEW_TO_VALIDATE
    return counted_labels(labels, taxonomy) if few else ""


def _found(taxonomy: Taxonomy, labels: LabelArray, split: npt.NDArray[np.int8]) -> dict[str, int]:
    odd = findings(taxonomy, labels, split, np.ones(len(labels), dtype=bool))
    return {name: len(entries) for name, entries in odd.items() if entries}


def _copies(source: Source, found: Catalogue, progress: Progress) -> list[list[int]] | None:
    """Groups of images with equal bytes; ``None`` if there are too many to read. Only files of equal size are read."""
    files = source.seen().files
    of_size: dict[int, list[int]] = defaultdict(list)
    for image, record in enumerate(found.records):
        # A source names the files of its second folder otherwise than its records.
        name = record.name
        seen = files.get(name) or files.get(f"2:{name.removeprefix('unlabelled:')}")
        of_size[seen[0] if seen else -1].append(image)
    if len(of_size.get(-1, ())) > _MOST_COMPARED:
        return None
    alike = [image for group in of_size.values() if len(group) > 1 for image in group]
    equal: dict[bytes, list[int]] = defaultdict(list)
    with progress.task("compare", len(alike), "images") as task:
        for image in alike:
            digest = _digest(source, image)
            if digest is not None:
                equal[digest].append(image)
            task.advance(1)
    return [group for group in equal.values() if len(group) > 1]


def _digest(source: Source, image: int) -> bytes | None:
    try:
        content = source.read(image)
    except ImageError:
        return None
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    return hashlib.sha256(f"{content.shape}".encode() + content.tobytes()).digest()


def _contradictions(groups: Sequence[Sequence[int]], labels: LabelArray) -> Iterator[tuple[int, int]]:
    for first, *others in groups:
        for other in others:
            both = (labels[first] != UNKNOWN) & (labels[other] != UNKNOWN)
            if (labels[first] != labels[other])[both].any():
                yield first, other
                break


def _leaks(groups: Sequence[Sequence[int]], given: Sequence[Split | None]) -> Iterator[tuple[int, int]]:
    held_out = ("validation", "test")
    for first, *others in groups:
        for other in others:
            sides = given[first], given[other]
            if sides[0] != sides[1] and None not in sides and any(side in held_out for side in sides):
                yield first, other
                break


def _sample(source: Source, names: Sequence[str], config: DataConfig, progress: Progress) -> Sample:
    """Open images that lie evenly in the source; files in processes that an image may crash, as a run does."""
    ids = np.unique(np.linspace(0, len(names) - 1, min(len(names), _MOST_OPENED)).round().astype(int)).tolist()
    began = time.monotonic()
    unreadable = _unreadable(source, ids, config, progress) if source.encoded else {}
    seconds = (time.monotonic() - began) * available_cores() / max(1, len(ids))
    sides = [_side(source, image) for image in ids if image not in unreadable]
    named = {printable(names[image]): why for image, why in unreadable.items()}
    return Sample(len(ids), named, round(median(sides)) if sides else None, seconds)


def _unreadable(source: Source, ids: list[int], config: DataConfig, progress: Progress) -> dict[int, str]:
    reader = Reader(source, config.image_size, config.max_pixels, config.bits, keeps=False, endless_is_unreadable=True)
    found: dict[int, str] = {}
    waiting = iter(ids)
    with reading(reader, len(ids)) as read, progress.task("open", len(ids), "images") as task:
        for some in read(ids):
            for decoded in some:
                image = next(waiting)
                if not decoded.readable:
                    found[image] = decoded.reason
            task.advance(len(some))
    return found


def _side(source: Source, image: int) -> int:
    content = source.read(image)
    return shorter_side(content) if isinstance(content, bytes) else min(content.shape[:2])
