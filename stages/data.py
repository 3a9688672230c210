"""Read the source once: decode every image, divide them, and write it all down.

Everything later reads this artifact alone. It is also where bad input comes to light: an image that cannot be decoded,
a label that contradicts the taxonomy, a test image that is also in train. All before anything is trained.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nstudent.data import dataset as packed
from nstudent.data.curation.duplicates import (
    contested_groups,
    described,
    described_groups,
    drop_contested,
    drop_copies,
    drop_similar,
)
from nstudent.data.curation.folds import draw_folds
from nstudent.data.curation.given_labels import encode_labels, findings, taxonomy_of
from nstudent.data.curation.near_duplicates import NearDuplicate, near_duplicates
from nstudent.data.curation.split import (
    TEST,
    TRAIN,
    UNLABELLED,
    VALIDATION,
    draw_splits,
    flip_labels,
    is_drawn,
    thin_heap,
)
from nstudent.data.curation.thumbnails import BYTES, Thumbnails
from nstudent.data.decode import VERSION
from nstudent.data.left_out import LEFT_OUT, announce, write_left_out
from nstudent.data.packing.shards import fill
from nstudent.data.sources import NO_HEAP, Record, catalogue_of, open_source
from nstudent.errors import ConfigError, DataError
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import DataMetrics
from nstudent.storage import hdf5
from nstudent.storage.files import write_json
from nstudent.storage.sealed import SealedFiles
from nstudent.taxonomy.tree import UNKNOWN, LabelArray, Taxonomy

_Splits = npt.NDArray[np.int8]


def run(context: Context) -> DataMetrics:
    """Pack the source's images and labels into the artifact."""
    config, seed = context.config.data, context.config.seed
    source = open_source(config)
    found = catalogue_of(source, config)
    records = found.records
    announce(found, context.progress)
    taxonomy = taxonomy_of(found, config)
    _check_levels(context, taxonomy)
    truth = encode_labels(records, taxonomy)
    taxonomy = taxonomy.including(truth)
    split = draw_splits(truth, [record.split for record in records], config, seed)
    _check_heap(context, split)
    digests, reasons = fill(context.folder, source, records, config, context.progress)
    left = _Left(len(records))
    left.out(reasons, packed.UNREADABLE)
    groups = contested_groups(digests, left.usable().tolist(), truth)
    left.out(drop_contested(records, groups, split, config), packed.CONFLICTING)
    left.out(drop_copies(records, digests, left.usable().tolist(), split, config), packed.DUPLICATE)
    similar = _similar(context, split, left.usable())
    if config.near_duplicates == "drop":
        left.out(drop_similar(records, similar, split), packed.NEAR_DUPLICATE)
    heap = np.where(left.status == packed.OK, split, -1).astype(np.int8)
    left.status[thin_heap(heap, config.unlabelled, seed)] = packed.THINNED
    labels = _visible(truth, split, taxonomy, config.label_noise, seed)
    _write_index(context.folder, records, labels, truth, split, left.status)
    if config.folds:
        labelled = np.flatnonzero((split == TRAIN) & (left.status == packed.OK))
        _write_folds(context, records, truth, digests, labelled)
    write_json(context.folder / packed.TAXONOMY, taxonomy.to_json())
    write_json(context.folder / packed.INFO, {"image_size": config.image_size, "decode_version": VERSION})
    write_left_out(context.folder, records, left.reasons, found.passed_over)
    odd = findings(taxonomy, truth, split, left.status == packed.OK)
    odd |= {"conflicting_labels": described_groups(records, groups), "near_duplicates": described(records, similar)}
    write_json(context.folder / packed.FINDINGS, odd)
    metrics = _metrics(split, left.status, taxonomy, {name: len(entries) for name, entries in odd.items()})
    metrics = replace(metrics, not_taken=sum(each.files for each in found.passed_over))
    _say_left_out(context, metrics)
    _check_enough(metrics, context.config.rounds, context.folder)
    return metrics


def _check_levels(context: Context, taxonomy: Taxonomy) -> None:
    """Levels that follow from the data are counted here, before an image is decoded."""
    problem = next(context.config.misfits(taxonomy.num_levels), None)
    if problem is not None:
        raise ConfigError(f"{problem}, which are {', '.join(taxonomy.levels)}")


def _check_heap(context: Context, split: _Splits) -> None:
    """That there is nothing to learn from in rounds is known before an image is decoded, too."""
    if context.config.rounds and not (split == UNLABELLED).any():
        raise DataError(NO_HEAP)


class _Left:
    """Which images are left, and why the others are not."""

    def __init__(self, num_images: int) -> None:
        self.status = np.zeros(num_images, dtype=np.uint8)
        self.reasons: dict[int, str] = {}

    def out(self, reasons: dict[int, str], status: int) -> None:
        """Leave out the images with these ids."""
        self.reasons |= reasons
        self.status[list(reasons)] = status

    def usable(self) -> packed.Ids:
        """Ids of the images that are left."""
        return np.flatnonzero(self.status == packed.OK)


def _similar(context: Context, split: _Splits, usable: packed.Ids) -> list[NearDuplicate]:
    config = context.config.data
    if config.near_duplicates == "ignore":
        return []
    shards = sorted(context.folder.glob(f"{packed.PIXELS}*.h5"))
    store = packed.PixelStore(shards, config)
    context.reserve(sum(shard.stat().st_size for shard in shards) + BYTES * len(usable))
    sealed = SealedFiles(context.folder, context.progress.say)
    looks = Thumbnails.make(store, usable, sealed, context.progress)
    return near_duplicates(looks, split, usable, config.near_duplicate_distance, context.progress)


def _say_left_out(context: Context, metrics: DataMetrics) -> None:
    said = {
        "unreadable": metrics.unreadable,
        "with conflicting labels": metrics.conflicting_labels,
        "duplicates": metrics.duplicates,
        "near-duplicates": metrics.near_duplicates,
    }
    if any(said.values()):
        counts = ", ".join(f"{count:,} {what}" for what, count in said.items() if count)
        context.progress.say(f"  images not used: {counts}; each is listed in {LEFT_OUT}")


def _check_enough(metrics: DataMetrics, rounds: int, folder: Path) -> None:
    """Whether what was left out has left enough."""
    for part, images in (("labelled", metrics.labelled), ("validation", metrics.validation), ("test", metrics.test)):
        if not images:
            raise DataError(f"no usable {part} image is left: {folder / LEFT_OUT} says why the others are not used")
    if metrics.terminals < 2:
        raise DataError("every image has the same label, so there is nothing to tell apart: add images of another")
    if rounds and not metrics.unlabelled:
        raise DataError(NO_HEAP)


def _visible(truth: LabelArray, split: _Splits, taxonomy: Taxonomy, noise: float, seed: int) -> LabelArray:
    """Labels as training may see them."""
    labels = truth.copy()
    labels[split == UNLABELLED] = UNKNOWN
    if noise:
        train = split == TRAIN
        labels[train] = flip_labels(truth[train], taxonomy.terminal_rows, noise, seed)
    return labels


def _write_index(
    folder: Path,
    records: Sequence[Record],
    labels: LabelArray,
    truth: LabelArray,
    split: _Splits,
    status: npt.NDArray[np.uint8],
) -> None:
    names = np.array([record.name.encode("utf-8", "surrogateescape") for record in records])
    hdf5.write(folder / packed.INDEX, {"label": labels, "split": split, "status": status, "name": names}, {})
    hdf5.write(folder / packed.TRUTH, {"label": truth}, {})


def _write_folds(
    context: Context, records: Sequence[Record], truth: LabelArray, digests: Sequence[bytes], labelled: packed.Ids
) -> None:
    """Divide the labelled images; labels are those of the source, so that noise in them does not move an image."""
    count, seed = context.config.data.folds, context.config.seed
    names = [records[image].name for image in labelled]
    folds = draw_folds(names, truth[labelled], [digests[image] for image in labelled], count, seed)
    drawn = is_drawn(VALIDATION, [record.split for record in records])
    attributes = {"folds": count, packed.VALIDATION_DRAWN: drawn}
    hdf5.write(context.folder / packed.FOLDS, {"fold": folds}, attributes)


def _metrics(
    split: _Splits, status: npt.NDArray[np.uint8], taxonomy: Taxonomy, findings: dict[str, int]
) -> DataMetrics:
    usable = Counter(split[status == packed.OK].tolist())
    return DataMetrics(
        labelled=usable[TRAIN],
        unlabelled=usable[UNLABELLED],
        validation=usable[VALIDATION],
        test=usable[TEST],
        unreadable=int((status == packed.UNREADABLE).sum()),
        duplicates=int((status == packed.DUPLICATE).sum()),
        near_duplicates=int((status == packed.NEAR_DUPLICATE).sum()),
        conflicting_labels=int((status == packed.CONFLICTING).sum()),
        classes=taxonomy.num_classes,
        terminals=len(taxonomy.terminals),
        findings=findings,
    )
