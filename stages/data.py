"""Read the source once: decode every image, divide them, and write it all down.

Everything later reads this artifact alone. It is also where bad input comes to light: an image that cannot be decoded,
a label that contradicts the taxonomy, a test image that is also in train. All before anything is trained.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nstudent import hdf5
from nstudent.config import DataConfig
from nstudent.config_file import read_yaml
from nstudent.data import dataset as packed
from nstudent.data.decode import VERSION, Pixels, decode, square
from nstudent.data.sources import Record, Source, open_source
from nstudent.data.split import TEST, TRAIN, UNLABELLED, VALIDATION, draw_splits, flip_labels, thin_heap
from nstudent.errors import ConfigError, DataError, ImageError
from nstudent.stage import Context, Metrics
from nstudent.storage import write_json
from nstudent.taxonomy import UNKNOWN, LabelArray, Taxonomy

_SHARD_BYTES = 64 << 20
_INDEX_BYTES = 256
"""About what an image takes in the index: its name, digest and labels."""
_Splits = npt.NDArray[np.int8]


def run(context: Context) -> Metrics:
    """Pack the source's images and labels into the artifact."""
    config = context.config.data
    source = open_source(config)
    records = source.records()
    taxonomy, truth = _labels(records, config)
    context.reserve(len(records) * (config.image_size**2 * 3 + _INDEX_BYTES))
    digests, reasons = _pack(context, source, len(records))
    _check_unreadable(records, reasons, config.max_bad_share)
    split = draw_splits(truth, [record.split for record in records], config, context.config.seed)
    status = np.zeros(len(records), dtype=np.uint8)
    status[list(reasons)] = packed.UNREADABLE
    reasons |= _drop_duplicates(records, digests, split, status, config)
    usable = np.where(status == packed.OK, split, -1).astype(np.int8)
    status[thin_heap(usable, config.unlabelled, context.config.seed)] = packed.THINNED
    taxonomy = taxonomy.including(truth)
    labels = _visible(truth, split, taxonomy, config.label_noise, context.config.seed)
    _write_index(context.folder, records, labels, truth, split, status)
    write_json(context.folder / packed.TAXONOMY, taxonomy.to_json())
    write_json(context.folder / packed.INFO, {"image_size": config.image_size, "decode_version": VERSION})
    left_out = [{"name": _printable(records[i].name), "reason": reasons[i]} for i in sorted(reasons)]
    write_json(context.folder / packed.LEFT_OUT, left_out)
    metrics = _metrics(split, status, taxonomy)
    if context.config.rounds and not metrics["unlabelled"]:
        raise DataError(
            "there are no unlabelled images to learn from: give data.unlabelled_root, lower data.labelled, "
            "or set rounds=0 to train a teacher alone"
        )
    return metrics


def _labels(records: Sequence[Record], config: DataConfig) -> tuple[Taxonomy, LabelArray]:
    if config.taxonomy is None:
        taxonomy = Taxonomy.from_labels((record.label for record in records), config.levels)
    else:
        tree = config.taxonomy
        content = read_yaml(Path(tree)) if isinstance(tree, str) else tree
        if not isinstance(content, dict | list):
            raise ConfigError("data.taxonomy is not a tree: write nested class names")
        taxonomy = Taxonomy.from_tree(content, config.levels)
    for level, num_classes in zip(taxonomy.levels, taxonomy.num_classes, strict=True):
        if not num_classes:
            raise DataError(f"no label names a class of the level '{level}': leave it out of data.levels")
    rows = []
    for record in records:
        try:
            rows.append(taxonomy.encode(record.label))
        except DataError as error:
            raise DataError(f"{_printable(record.name)}: {error}") from error
    return taxonomy, np.array(rows, dtype=np.int32).reshape(len(rows), taxonomy.num_levels)


def _pack(context: Context, source: Source, num_images: int) -> tuple[list[bytes], dict[int, str]]:
    """Write the pixel shards that are not there yet. Returns a digest of each image, and the unreadable ones."""
    size = context.config.data.image_size
    rows = max(1, _SHARD_BYTES // (size * size * 3))
    digests: list[bytes] = []
    reasons: dict[int, str] = {}
    with context.progress.task("decode", num_images, "images") as task, ThreadPoolExecutor() as threads:
        for shard, first in enumerate(range(0, num_images, rows)):
            path = context.folder / f"{packed.PIXELS}{shard:05d}.h5"
            ids = range(first, min(first + rows, num_images))
            if not path.exists():
                _write_shard(path, size, list(threads.map(lambda i: _read(source, i, context.config.data), ids)))
            digests += [row.tobytes() for row in hdf5.mapped(path)["digest"]]
            bad: dict[str, str] = json.loads(hdf5.attributes(path)["unreadable"])
            reasons |= {first + int(row): reason for row, reason in bad.items()}
            task.advance(len(ids))
    return digests, reasons


def _read(source: Source, image: int, config: DataConfig) -> tuple[Pixels | None, bytes, str]:
    """(pixels, digest of the content, why there are no pixels)."""
    digest = b"\0" * 32
    try:
        content = source.read(image)
        raw = content if isinstance(content, bytes) else content.tobytes()
        digest = hashlib.sha256(raw).digest()
        if isinstance(content, bytes):
            return decode(content, config.image_size, config.max_pixels), digest, ""
        return square(content, config.image_size), digest, ""
    except (ImageError, DataError) as error:
        return None, digest, str(error)


def _write_shard(path: Path, size: int, images: list[tuple[Pixels | None, bytes, str]]) -> None:
    blank = np.zeros((size, size, 3), dtype=np.uint8)
    arrays = {
        "pixels": np.stack([blank if pixels is None else pixels for pixels, _, _ in images]),
        "digest": np.stack([np.frombuffer(digest, np.uint8) for _, digest, _ in images]),
    }
    unreadable = {str(row): reason for row, (pixels, _, reason) in enumerate(images) if pixels is None}
    hdf5.write(path, arrays, {"unreadable": json.dumps(unreadable)})


def _check_unreadable(records: Sequence[Record], reasons: dict[int, str], max_share: float) -> None:
    if len(reasons) > max_share * len(records):
        first = min(reasons)
        raise DataError(
            f"{len(reasons)} of {len(records)} images cannot be read, the first is {_printable(records[first].name)} "
            f"({reasons[first]}): mend or remove them, or raise data.max_bad_share (now {max_share:g})"
        )


def _drop_duplicates(
    records: Sequence[Record],
    digests: list[bytes],
    split: _Splits,
    status: npt.NDArray[np.uint8],
    config: DataConfig,
) -> dict[int, str]:
    """Leave out images that would leak from train or the heap into validation or test. Marks them in ``status``."""
    rank = {TEST: 0, VALIDATION: 1, TRAIN: 2, UNLABELLED: 3}
    dropped: dict[int, str] = {}
    first_of: dict[bytes, int] = {}
    # The most protected split first: of equal images the one in test stays.
    for image in sorted(range(len(records)), key=lambda i: (rank[int(split[i])], i)):
        if status[image] != packed.OK:
            continue
        first = first_of.setdefault(digests[image], image)
        if first == image or split[first] == split[image] != UNLABELLED:
            continue
        given = records[first].split is not None and records[image].split is not None
        if given and split[image] in (TRAIN, VALIDATION) and config.duplicates == "error":
            raise DataError(
                f"{_printable(records[image].name)} is the same image as {_printable(records[first].name)} "
                "of another split: remove one, or set data.duplicates=drop to leave out the less protected"
            )
        status[image] = packed.DUPLICATE
        dropped[image] = f"the same image as {_printable(records[first].name)}"
    return dropped


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
        "classes": list(taxonomy.num_classes),
        "terminals": len(taxonomy.terminals),
    }


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
