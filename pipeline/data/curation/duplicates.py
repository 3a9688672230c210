"""Equal images: those that carry two labels, and those that would leak from train or the heap into what is held out."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from nstudent.config.schema import DataConfig
from nstudent.data.curation.near_duplicates import NearDuplicate
from nstudent.data.curation.split import TEST, TRAIN, UNLABELLED, VALIDATION
from nstudent.data.sources import Record
from nstudent.data.sources.source import printable
from nstudent.errors import DataError
from nstudent.taxonomy.tree import UNKNOWN, LabelArray

Splits = npt.NDArray[np.int8]
_RANK = {TEST: 0, VALIDATION: 1, TRAIN: 2, UNLABELLED: 3}
"""The most protected split first: of equal images the one in test stays."""


def contested_groups(digests: Sequence[bytes], usable: Iterable[int], truth: LabelArray) -> list[list[int]]:
    """Ids of equal images whose labels contradict each other: at some level, two of them name different classes.

    Args:
        digests: Digest of the content of each image.
        usable: Ids of the images to compare, ascending.
        truth: (images, levels), as the source labels them.
    """
    equal: dict[bytes, list[int]] = defaultdict(list)
    for image in usable:
        if (truth[image] != UNKNOWN).any():
            equal[digests[image]].append(image)
    return [group for group in equal.values() if len(group) > 1 and _contradict(truth[group])]


def _contradict(labels: LabelArray) -> bool:
    return any(len(set(level[level != UNKNOWN].tolist())) > 1 for level in labels.T)


def drop_contested(
    records: Sequence[Record], groups: Sequence[Sequence[int]], split: Splits, config: DataConfig
) -> dict[int, str]:
    """Training images whose label cannot be believed, with the reason. What is held out stays, and is reported.

    Raises:
        DataError: there is one, and ``data.conflicting_labels`` is ``error``.
    """
    if groups and config.conflicting_labels == "error":
        first, second = _two_labels(records, groups[0])
        more = f" ({len(groups) - 1} more images have several labels)" if len(groups) > 1 else ""
        raise DataError(
            f"{_labelled(records[second])} is the same image as {_labelled(records[first])}{more}: correct one, "
            "or set data.conflicting_labels=drop to leave out such images of train"
        )
    dropped: dict[int, str] = {}
    for group in groups:
        for image in group:
            other = next(i for i in group if i != image and records[i].label != records[image].label)
            if split[image] == TRAIN:
                dropped[image] = f"labelled {_spelled(records[image])}, and as {_labelled(records[other])}"
    return dropped


def _two_labels(records: Sequence[Record], group: Sequence[int]) -> tuple[int, int]:
    first = group[0]
    return first, next(image for image in group if records[image].label != records[first].label)


def _spelled(record: Record) -> str:
    return printable("/".join(record.label))


def _labelled(record: Record) -> str:
    return f"{printable(record.name)} (labelled {_spelled(record)})"


def drop_copies(
    records: Sequence[Record], digests: Sequence[bytes], usable: Iterable[int], split: Splits, config: DataConfig
) -> dict[int, str]:
    """Images equal to one of a more protected split, and copies within the heap, with the reason.

    Raises:
        DataError: the source itself put equal images on both sides, and ``data.duplicates`` is ``error``.
    """
    dropped: dict[int, str] = {}
    first_of: dict[bytes, int] = {}
    for image in sorted(usable, key=lambda i: (_RANK[int(split[i])], i)):
        first = first_of.setdefault(digests[image], image)
        if first == image or split[first] == split[image] != UNLABELLED:
            continue
        given = records[first].split is not None and records[image].split is not None
        if given and split[image] in (TRAIN, VALIDATION) and config.duplicates == "error":
            raise DataError(
                f"{printable(records[image].name)} is the same image as {printable(records[first].name)} "
                "of another split: remove one, or set data.duplicates=drop to leave out the less protected"
            )
        dropped[image] = f"the same image as {printable(records[first].name)}"
    return dropped


def drop_similar(records: Sequence[Record], similar: Iterable[NearDuplicate], split: Splits) -> dict[int, str]:
    """Near-duplicates in train and the heap, with the reason. What is held out stays, and is reported."""
    return {
        pair.image: f"shows the same as {printable(records[pair.of].name)}"
        for pair in similar
        if split[pair.image] in (TRAIN, UNLABELLED)
    }


def described(records: Sequence[Record], similar: Iterable[NearDuplicate]) -> list[dict[str, Any]]:
    """Near-duplicates as JSON."""
    return [
        {
            "name": printable(records[pair.image].name),
            "of": printable(records[pair.of].name),
            "distance": pair.distance,
            "difference": pair.difference,
        }
        for pair in similar
    ]


def described_groups(records: Sequence[Record], groups: Iterable[Sequence[int]]) -> list[list[dict[str, Any]]]:
    """Equal images with contradicting labels as JSON: a list of names and labels for each."""
    return [
        [{"name": printable(records[image].name), "label": list(records[image].label)} for image in group]
        for group in groups
    ]
