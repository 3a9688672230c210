"""What the data of a run are, before anything is made of them: images and labels counted, and a few images decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from nstudent.config.data import DataConfig
from nstudent.data.curation.given_labels import counted_labels, encode_labels, findings, taxonomy_of
from nstudent.data.curation.split import TEST, TRAIN, UNLABELLED, VALIDATION, draw_splits
from nstudent.data.left_out import announce
from nstudent.data.packing.decoders import Reader, reading
from nstudent.data.sources import catalogue_of, open_source
from nstudent.data.sources.source import Source, printable
from nstudent.progress import Progress
from nstudent.taxonomy.tree import LabelArray, Taxonomy

_FEW = 3
"""Validation images of a label below which they tell nearly nothing of it."""
_MOST_DECODED = 200
"""Images that are decoded for a look, evenly spread over all of them."""


@dataclass(frozen=True, eq=False)
class DataReport:
    """What a run would find in its data."""

    images: Mapping[str, int]
    """Number of images by what they are used for: labelled, unlabelled, validation, test."""
    taxonomy: Taxonomy
    """The classes."""
    validation: LabelArray
    """Labels of the validation images, (images, levels)."""
    findings: Mapping[str, Any]
    """Labels that are legal and yet worth a look, as ``findings`` gives them."""
    decoded: int
    """Number of images that were decoded for a look."""
    unreadable: Mapping[str, str]
    """Why some of them cannot be used, by their names."""

    def rarest_in_validation(self) -> str:
        """The labels with the fewest validation images, where some have fewer than three; else empty."""
        _, counts = np.unique(self.validation, axis=0, return_counts=True)
        return counted_labels(self.validation, self.taxonomy) if counts.min(initial=_FEW) < _FEW else ""


def report_on(config: DataConfig, seed: int, progress: Progress) -> DataReport:
    """Read the list of images and their labels, divide them as a run with this seed would, and decode a few.

    Raises:
        DataError: The run would end at its data; the message is the one that it would end with.
    """
    source = open_source(config)
    found = catalogue_of(source, config)
    announce(found, progress)
    taxonomy = taxonomy_of(found, config)
    truth = encode_labels(found.records, taxonomy)
    taxonomy = taxonomy.including(truth)
    split = draw_splits(truth, [record.split for record in found.records], config, seed)
    parts = {"labelled": TRAIN, "unlabelled": UNLABELLED, "validation": VALIDATION, "test": TEST}
    ids = np.unique(np.linspace(0, len(truth) - 1, min(_MOST_DECODED, len(truth))).round().astype(int)).tolist()
    unreadable = _unreadable(source, ids, config, progress) if source.encoded else {}
    return DataReport(
        images={name: int((split == part).sum()) for name, part in parts.items()},
        taxonomy=taxonomy,
        validation=truth[split == VALIDATION],
        findings=findings(taxonomy, truth, split, np.ones(len(truth), dtype=bool)),
        decoded=len(ids) if source.encoded else 0,
        unreadable={printable(found.records[image].name): why for image, why in unreadable.items()},
    )


def _unreadable(source: Source, ids: list[int], config: DataConfig, progress: Progress) -> dict[int, str]:
    reader = Reader(source, config.image_size, config.max_pixels, config.bits, keeps=False)
    found: dict[int, str] = {}
    waiting = iter(ids)
    with reading(reader) as read, progress.task("look", len(ids), "images") as task:
        for some in read(ids):
            for decoded in some:
                image = next(waiting)
                if not decoded.readable:
                    found[image] = decoded.reason
            task.advance(len(some))
    return found
