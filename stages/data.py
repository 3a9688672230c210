"""Read the source once: decode every image, divide them, and write it all down.

Everything later reads this artifact alone. It is also where bad input comes to light: an image that cannot be decoded,
a label that contradicts the taxonomy, a test image that is also in train. All before anything is trained.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nstudent import hdf5
from nstudent.data import dataset as packed
from nstudent.data.decode import VERSION
from nstudent.data.decoders import Decoded, Reader, reading
from nstudent.data.duplicates import (
    contested_groups,
    described,
    described_groups,
    drop_contested,
    drop_copies,
    drop_similar,
)
from nstudent.data.labelling import encode_labels, findings, taxonomy_of
from nstudent.data.near_duplicates import NearDuplicate, near_duplicates
from nstudent.data.sources import Record, Source, open_source
from nstudent.data.sources.source import printable
from nstudent.data.split import TEST, TRAIN, UNLABELLED, VALIDATION, draw_splits, flip_labels, thin_heap
from nstudent.errors import DataError
from nstudent.stage import Context, Metrics
from nstudent.storage import write_json
from nstudent.taxonomy import UNKNOWN, LabelArray, Taxonomy

_SHARD_BYTES = 64 << 20
_INDEX_BYTES = 256
"""About what an image takes in the index: its name, digest and labels."""
_Splits = npt.NDArray[np.int8]


def run(context: Context) -> Metrics:
    """Pack the source's images and labels into the artifact."""
    config, seed = context.config.data, context.config.seed
    source = open_source(config)
    records = source.records()
    taxonomy = taxonomy_of(records, config)
    truth = encode_labels(records, taxonomy)
    taxonomy = taxonomy.including(truth)
    context.reserve(len(records) * (config.image_size**2 * 3 + _INDEX_BYTES))
    digests, reasons = _pack(context, source, records)
    split = draw_splits(truth, [record.split for record in records], config, seed)
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
    write_json(context.folder / packed.TAXONOMY, taxonomy.to_json())
    write_json(context.folder / packed.INFO, {"image_size": config.image_size, "decode_version": VERSION})
    write_json(
        context.folder / packed.LEFT_OUT,
        [{"name": printable(records[i].name), "reason": left.reasons[i]} for i in sorted(left.reasons)],
    )
    found = findings(taxonomy, truth, split, left.status == packed.OK)
    found |= {"conflicting_labels": described_groups(records, groups), "near_duplicates": described(records, similar)}
    write_json(context.folder / packed.FINDINGS, found)
    metrics = _metrics(split, left.status, taxonomy)
    metrics["findings"] = {name: len(entries) for name, entries in found.items()}
    _check_enough(metrics, context.config.rounds)
    return metrics


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
    store = packed.PixelStore(sorted(context.folder.glob(f"{packed.PIXELS}*.h5")))
    with context.progress.task("compare", len(usable), "images") as task:
        found = near_duplicates(store, split, usable, config.near_duplicate_distance)
        task.advance(len(usable))
    return found


def _check_enough(metrics: Metrics, rounds: int) -> None:
    """Whether what was left out has left enough."""
    for part in ("labelled", "validation", "test"):
        if not metrics[part]:
            raise DataError(f"no usable {part} image is left: left_out.json says why the others are not used")
    if metrics["terminals"] < 2:
        raise DataError("every image has the same label, so there is nothing to tell apart: add images of another")
    if rounds and not metrics["unlabelled"]:
        raise DataError(
            "there are no unlabelled images to learn from: give data.unlabelled_root, lower data.labelled, "
            "or set rounds=0 to train a teacher alone"
        )


def _pack(context: Context, source: Source, records: Sequence[Record]) -> tuple[list[bytes], dict[int, str]]:
    """Write the pixel shards that are not there yet. Returns a digest of each image, and the unreadable ones."""
    config, num_images = context.config.data, len(records)
    rows = max(1, _SHARD_BYTES // (config.image_size**2 * 3))
    digests: list[bytes] = []
    reasons: dict[int, str] = {}
    reader = Reader(source, config.image_size, config.max_pixels)
    with context.progress.task("decode", num_images, "images") as task, reading(reader) as read:
        for shard, first in enumerate(range(0, num_images, rows)):
            path = context.folder / f"{packed.PIXELS}{shard:05d}.h5"
            ids = range(first, min(first + rows, num_images))
            if not path.exists():
                images = read(ids)
                bad = {i: image.reason for i, image in zip(ids, images, strict=True) if image.pixels is None}
                # Before anything is written: a folder that is back the next time must not stay unreadable.
                _check_unreadable(records, reasons | bad, config.max_bad_share)
                _write_shard(path, config.image_size, images)
            digests += [row.tobytes() for row in hdf5.mapped(path)["digest"]]
            bad = json.loads(hdf5.attributes(path)["unreadable"])
            reasons |= {first + int(row): reason for row, reason in bad.items()}
            task.advance(len(ids))
    return digests, reasons


def _write_shard(path: Path, size: int, images: Sequence[Decoded]) -> None:
    blank = np.zeros((size, size, 3), dtype=np.uint8)
    arrays = {
        "pixels": np.stack([blank if image.pixels is None else image.pixels for image in images]),
        "digest": np.stack([np.frombuffer(image.digest, np.uint8) for image in images]),
    }
    unreadable = {str(row): image.reason for row, image in enumerate(images) if image.pixels is None}
    hdf5.write(path, arrays, {"unreadable": json.dumps(unreadable)})


def _check_unreadable(records: Sequence[Record], reasons: dict[int, str], max_share: float) -> None:
    if len(reasons) > max_share * len(records):
        first = min(reasons)
        raise DataError(
            f"{len(reasons)} of {len(records)} images cannot be read, the first is {printable(records[first].name)} "
            f"({reasons[first]}): mend or remove them, or raise data.max_bad_share (now {max_share:g})"
        )


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


def _metrics(split: _Splits, status: npt.NDArray[np.uint8], taxonomy: Taxonomy) -> Metrics:
    usable = Counter(split[status == packed.OK].tolist())
    return {
        "labelled": usable[TRAIN],
        "unlabelled": usable[UNLABELLED],
        "validation": usable[VALIDATION],
        "test": usable[TEST],
        "unreadable": int((status == packed.UNREADABLE).sum()),
        "duplicates": int((status == packed.DUPLICATE).sum()),
        "near_duplicates": int((status == packed.NEAR_DUPLICATE).sum()),
        "conflicting_labels": int((status == packed.CONFLICTING).sum()),
        "classes": list(taxonomy.num_classes),
        "terminals": len(taxonomy.terminals),
    }
