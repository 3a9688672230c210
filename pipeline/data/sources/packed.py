"""A folder that ``nstudent data pack`` has made: the images are squares already, and are linked instead of decoded.

records.h5       name    bytes (images,)          as the source has it
                 label   int32 (images,)          row of ``labels``
                 labels  bytes (labels, levels)   each label as it is spelled; - absent, empty unknown
                 split   int8  (images,)          0 train, 1 validation, 2 test, 3 unlabelled; -1 not given
info.json        image_size, decode_version, levels, storage, images, bits
left_out.json    files that were not taken and images that cannot be read, each with the reason
pixels-*.h5      the shards, as they lie in the data step of a run
manifest.json    sha256 of each file; nothing of the folder is used that is not what was packed
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nstudent.config.schema import DataConfig
from nstudent.data.sources.seen import Seen
from nstudent.data.sources.source import SPLITS, Catalogue, Record, existing
from nstudent.errors import ArtifactError, DataError
from nstudent.storage.artifact import MANIFEST, Manifest, Metrics
from nstudent.storage.files import can_link, link_or_copy, read_json, sha256_of, write_json
from nstudent.storage.hdf5 import Array, mapped, write

STAGE = "pack"
"""Stage and role in the manifest of such a folder."""
RECORDS = "records.h5"
INFO = "info.json"
SHARD = re.compile(r"pixels-\d{5,}\.h5")
"""Names of its shards."""
_LAYOUT = {"name": ("S", 1), "label": ("i", 1), "labels": ("S", 2), "split": ("i", 1)}
"""Kind of number (numpy's letter) and dimensions of each data set."""
_NOT_GIVEN = -1


@dataclass(frozen=True)
class PackMetrics(Metrics):
    """What the making of a pack reports: numbers of images."""

    images: int
    unreadable: int


@dataclass(frozen=True)
class Info:
    """What the images of a pack are."""

    image_size: int
    decode_version: int
    levels: tuple[str, ...]
    storage: str
    """pixels or jpeg."""
    images: int
    bits: int | None = None
    """``data.bits`` of the page that it was packed by."""

    def save(self, folder: Path) -> None:
        """Write it down."""
        write_json(folder / INFO, {**vars(self), "levels": list(self.levels)})

    @classmethod
    def read(cls, path: Path) -> "Info":
        """Read what ``save`` has written.

        Raises:
            ArtifactError: it is something else.
        """
        found = read_json(path)
        try:
            info = cls(**{**found, "levels": tuple(found["levels"])})
            numbers = (info.image_size, info.decode_version, info.images)
            whole = all(type(number) is int and number > 0 for number in numbers)
            whole = whole and (info.bits is None or type(info.bits) is int)
            whole = whole and info.storage in ("pixels", "jpeg") and all(isinstance(n, str) for n in info.levels)
        except (TypeError, KeyError):
            whole = False
        if not whole:
            raise ArtifactError(f"{path} does not describe a pack: make it with nstudent data pack")
        return info


class Pack:
    """Images that are decoded already."""

    encoded = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder)
        self.info = Info.read(self._file(INFO))
        self.shards = sorted(name for name in self.manifest.files if SHARD.fullmatch(name))

    def seen(self) -> Seen:
        """What the pack holds, wherever and whenever it was made."""
        return Seen(f"pack {self.manifest.id}")

    def catalogue(self) -> Catalogue:
        """Every image, as the source it was packed from gave it."""
        path = self._file(RECORDS)
        arrays = mapped(path)
        self._check(path, arrays)
        labels = [tuple(_text(entry) for entry in row) for row in arrays["labels"].tolist()]
        splits = (*SPLITS, None)
        rows = zip(arrays["name"].tolist(), arrays["label"].tolist(), arrays["split"].tolist(), strict=True)
        records = [Record(_text(name), labels[label], splits[split]) for name, label, split in rows]
        return Catalogue(records, self.info.levels)

    def read(self, index: int) -> bytes:
        """Never asked for: the shards are taken as they are."""
        raise AssertionError("a pack has no files to decode")

    def num_bytes(self, folder: Path) -> int:
        """What the shards take in another folder: nothing where they can be linked."""
        if self.shards and can_link(self.folder / self.shards[0], folder):
            return 0
        return sum(self.manifest.files[name]["bytes"] for name in self.shards)

    def put(self, name: str, folder: Path) -> Path:
        """Put a shard into another folder, linked or copied, and hash it there: also one that lies there already.

        Raises:
            ArtifactError: it is not what was packed.
        """
        target, wanted = folder / name, self.manifest.files[name]["sha256"]
        if target.exists() and sha256_of(target) != wanted:
            target.unlink()
        if not target.exists():
            self._refuse_what_is_no_file(name)
            link_or_copy(self.folder / name, target)
            if target.is_symlink() or sha256_of(target) != wanted:
                target.unlink()
                raise ArtifactError(self._changed(name))
        return target

    def _file(self, name: str) -> Path:
        self._refuse_what_is_no_file(name)
        path = self.folder / name
        if sha256_of(path) != self.manifest.files[name]["sha256"]:
            raise ArtifactError(self._changed(name))
        return path

    def _refuse_what_is_no_file(self, name: str) -> None:
        path = self.folder / name
        if path.is_symlink():
            raise ArtifactError(f"{path} is a link: put the file itself there")
        if name not in self.manifest.files or not path.is_file():
            raise ArtifactError(f"{path} is missing: {self._mend()}")
        if path.stat().st_size != self.manifest.files[name]["bytes"]:
            raise ArtifactError(self._changed(name))

    def _changed(self, name: str) -> str:
        return f"{self.folder / name} has changed since it was packed: {self._mend()}"

    def _mend(self) -> str:
        return f"nstudent data pack {self.folder} --repair with the page it was packed by makes it again"

    def _check(self, path: Path, arrays: dict[str, Array]) -> None:
        for name, (kind, dimensions) in _LAYOUT.items():
            array = arrays.get(name)
            if array is None or array.dtype.kind != kind or array.ndim != dimensions:
                raise ArtifactError(f"{path}: '{name}' is missing or has the wrong type or shape: {self._mend()}")
        label, labels, split = arrays["label"], arrays["labels"], arrays["split"]
        lengths = {self.info.images, len(arrays["name"]), len(label), len(split)}
        if len(lengths) > 1 or labels.shape[1] != len(self.info.levels):
            raise ArtifactError(f"{path} and {INFO} tell different numbers of images or levels: {self._mend()}")
        if label.min() < 0 or label.max() >= len(labels) or split.min() < _NOT_GIVEN or split.max() >= len(SPLITS):
            raise ArtifactError(f"{path}: label or split holds a number that names nothing: {self._mend()}")


def write_records(folder: Path, records: list[Record]) -> None:
    """Keep names, labels and given splits in a pack."""
    rows: dict[tuple[str, ...], int] = {}
    label = [rows.setdefault(record.label, len(rows)) for record in records]
    split = [_NOT_GIVEN if record.split is None else SPLITS.index(record.split) for record in records]
    arrays = {
        "name": np.array([_bytes(record.name) for record in records]),
        "label": np.array(label, dtype=np.int32),
        "labels": np.array([[_bytes(entry) for entry in row] for row in rows]),
        "split": np.array(split, dtype=np.int8),
    }
    write(folder / RECORDS, arrays, {})


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def open_source(config: DataConfig) -> Pack:
    """Check that the folder is a pack, and one of what the configuration asks for.

    Raises:
        DataError: it is no pack, or holds images of another size, kind, or with other levels.
    """
    folder = existing(config.root, "data.root", folder=True)
    if not is_pack(folder):
        raise DataError(f"data.root: {folder} is no pack: nstudent data pack {folder} makes one from another source")
    pack = Pack(folder)
    info: dict[str, Any] = vars(pack.info)
    asked_for = {
        "image_size": config.image_size,
        "levels": config.levels,
        "storage": config.storage,
        "bits": config.bits,
    }
    follows = {"levels": None, "storage": "auto"}
    for key, asked in asked_for.items():
        if asked != info[key] and not (key in follows and asked == follows[key]):
            held = list(info[key]) if isinstance(info[key], tuple) else info[key]
            raise DataError(f"{folder} was packed with data.{key}={held}: ask for that, or pack the source again")
    return pack


def is_pack(folder: Path) -> bool:
    """Whether a folder holds what ``nstudent data pack`` has made."""
    return (folder / MANIFEST).exists() and Manifest.read(folder).role == STAGE
