"""From a source to shards of squares: decoded once, resized, and written as pixels or as JPEG, shard by shard."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from nstudent.config.schema import DataConfig
from nstudent.data.dataset import PIXELS
from nstudent.data.decode import VERSION
from nstudent.data.left_out import LEFT_OUT, write_left_out
from nstudent.data.packing.decoders import IMAGE_CPU_SECONDS, EndlessImageError, reading
from nstudent.data.packing.jpeg_shards import EncodedShards, joined, unreadable_rows
from nstudent.data.packing.pieces import Pieces
from nstudent.data.packing.reader import Decoded, Reader
from nstudent.data.sources import Record, Source
from nstudent.data.sources.packed import Info, Pack
from nstudent.data.sources.source import printable
from nstudent.errors import ArtifactError, DataError
from nstudent.progress import Progress
from nstudent.storage import hdf5
from nstudent.storage.files import reserve
from nstudent.storage.sealed import SealedFiles

MAX_RAW_BYTES = 8 << 30
"""Largest number of bytes of squares that are kept as pixels without being told to. They stay in the page cache of a
machine with 16 GiB, and a row is then a copy of 30 microseconds (224 px); what does not fit is read from the disk at
random, and 150 KB take an SSD about as long as decoding 50 KB takes a core."""
SHARD_BYTES = 64 << 20
_ROWS_OF_ORIGINALS = 1024
"""Rows of a shard that holds no images: as many are looked at again if the data step is interrupted."""
_INDEX_BYTES = 256
"""About what an image takes beside its square: its name, digest and labels."""
_JPEG_HEADER_BYTES = 620
"""JPEG overhead of every image, above all the tables of its code: below 24 px JPEG is larger than pixels."""
_JPEG_SHARE = 3
"""Factor by which JPEG of quality 95 is smaller than pixels: a busy photo takes a third, and most take less."""


@dataclass(frozen=True)
class Layout:
    """How squares lie in shards. The number of rows is fixed, so that a row is found by a division."""

    side_px: int
    rows: int
    """Number of images of every shard but the last."""
    num_bytes: int
    """About what all shards take."""
    storage: str
    """pixels, jpeg or original."""
    jpeg_quality: int | None
    """Where they are kept as JPEG."""

    @classmethod
    def of(cls, config: DataConfig, num_images: int, progress: Progress) -> "Layout":
        """As ``data.storage`` says; ``auto`` is decided by the size of the whole set, and said."""
        square_bytes = config.image_size**2 * 3
        jpeg_bytes = _JPEG_HEADER_BYTES + square_bytes // _JPEG_SHARE
        storage = config.storage
        if storage == "auto":
            sizes = {"pixels": num_images * square_bytes, "jpeg": num_images * jpeg_bytes}
            storage = "pixels" if sizes["pixels"] <= max(MAX_RAW_BYTES, sizes["jpeg"]) else "jpeg"
            said = {"pixels": readable_size(sizes["pixels"]), "jpeg": f"about {readable_size(sizes['jpeg'])}"}
            other = "jpeg" if storage == "pixels" else "pixels"
            progress.say(f"  data.storage={storage}, {said[storage]} ({other}: {said[other]})")
        if storage == "original":
            return cls(config.image_size, _ROWS_OF_ORIGINALS, 0, storage, None)
        row_bytes, quality = (jpeg_bytes, config.jpeg_quality) if storage == "jpeg" else (square_bytes, None)
        return cls(config.image_size, max(1, SHARD_BYTES // row_bytes), num_images * row_bytes, storage, quality)

    def encoded(self, images: Sequence[Decoded]) -> bytes:
        """The content of a shard. An unreadable image keeps its row and is black."""
        unreadable = {str(row): image.reason for row, image in enumerate(images) if not image.readable}
        attributes: dict[str, object] = {"unreadable": json.dumps(unreadable)}
        arrays: dict[str, hdf5.Array] = {}
        if self.storage == "pixels":
            blank = np.zeros((self.side_px, self.side_px, 3), dtype=np.uint8)
            arrays["pixels"] = np.stack([blank if image.pixels is None else image.pixels for image in images])
        elif self.storage == "jpeg":
            arrays |= joined([image.jpeg for image in images])
            attributes["side"] = self.side_px
        arrays["digest"] = np.stack([np.frombuffer(image.digest, np.uint8) for image in images])
        return hdf5.encoded(arrays, attributes)


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"{PIXELS}{number:05d}.h5"


def fill(
    folder: Path, source: Source, records: Sequence[Record], config: DataConfig, progress: Progress
) -> tuple[list[bytes], dict[int, str]]:
    """Put the shards of a source into the folder of a step: decoded, or of a pack linked.

    Returns a digest of each image, and why some are unreadable.

    Raises:
        ArtifactError: the disk has no room for them, or a pack is damaged.
        DataError: too many are unreadable.
    """
    if isinstance(source, Pack):
        reserve(folder, source.num_bytes(folder) + len(records) * _INDEX_BYTES)
        return _take(folder, source, records, config, progress)
    return pack(folder, source, records, config, Layout.of(config, len(records), progress), progress)


def pack(
    folder: Path,
    source: Source,
    records: Sequence[Record],
    config: DataConfig,
    layout: Layout,
    progress: Progress,
) -> tuple[list[bytes], dict[int, str]]:
    """Write the shards that are not there yet. Returns a digest of each image, and why some are unreadable.

    Raises:
        ArtifactError: the disk has no room for them.
        DataError: too many are (``check_unreadable``); nothing of that shard is written.
    """
    reserve(folder, layout.num_bytes + len(records) * _INDEX_BYTES)
    sealed = SealedFiles(folder, progress.say)
    digests: list[bytes] = []
    reasons: dict[int, str] = {}
    reader = Reader(
        source, layout.side_px, config.max_pixels, config.bits, layout.jpeg_quality, layout.storage != "original"
    )

    def check(first: int, images: Sequence[Decoded]) -> None:
        bad = {first + row: image.reason for row, image in enumerate(images) if not image.readable}
        # Before anything is written: a folder that is back the next time must not stay unreadable.
        check_unreadable(records, reasons | bad, config, folder)

    with progress.task("decode", len(records), "images") as task, reading(reader) as read:
        for shard, first in enumerate(range(0, len(records), layout.rows)):
            name, ids = shard_name(shard), range(first, min(first + layout.rows, len(records)))
            if sealed.has(name):
                task.advance(len(ids))
            else:
                pieces = Pieces(sealed, name, layout.encoded, partial(check, first))
                try:
                    images = pieces.gather(ids, read, task)
                except EndlessImageError as error:
                    raise DataError(_endless(records[error.image].name)) from error
                check(first, images)
                sealed.write(name, layout.encoded(images))
                pieces.remove()
            path = folder / name
            digests += [row.tobytes() for row in hdf5.mapped(path)["digest"]]
            reasons |= {first + row: reason for row, reason in unreadable_rows(path, len(ids)).items()}
    return digests, reasons


def _endless(name: str) -> str:
    return (
        f"the decoder of {printable(name)} has not ended after {IMAGE_CPU_SECONDS:,.0f} s of processor time: "
        "remove that file, or save it again as PNG, and run the same command"
    )


def _take(
    folder: Path, source: Pack, records: Sequence[Record], config: DataConfig, progress: Progress
) -> tuple[list[bytes], dict[int, str]]:
    if source.info.decode_version != VERSION:
        raise DataError(f"{source.folder} was packed by another decoder than this nstudent's: pack the source again")
    digests: list[bytes] = []
    reasons: dict[int, str] = {}
    rows = 0
    with progress.task("link", len(records), "images") as task:
        for name in source.shards:
            found, bad = _take_shard(folder, source, name)
            rows = rows or len(found)
            if len(found) != min(rows, len(records) - len(digests)) or not found:
                raise ArtifactError(f"{source.folder / name} has {len(found)} images in a wrong place: pack again")
            reasons |= {len(digests) + row: reason for row, reason in bad.items()}
            digests += found
            task.advance(len(found))
    if len(digests) != len(records):
        raise ArtifactError(f"{source.folder} has {len(digests)} images and {len(records)} names: pack again")
    check_unreadable(records, reasons, config, folder)
    return digests, reasons


def _take_shard(folder: Path, source: Pack, name: str) -> tuple[list[bytes], dict[int, str]]:
    """Digests of the images of a shard, and why some are unreadable. Somebody else may have made it."""
    path = source.put(name, folder)
    try:
        found = _checked_digests(path, source.info)
        return found, unreadable_rows(path, len(found))
    except ArtifactError as error:
        path.unlink()
        said = str(error).replace(str(path), name)
        raise ArtifactError(f"{source.folder} does not hold what it says ({said})") from error


def check_unreadable(records: Sequence[Record], reasons: dict[int, str], config: DataConfig, folder: Path) -> None:
    """Whether few enough images are unreadable to go on: too many are more than a share and more than a number.

    Raises:
        DataError: names the first of them, and the file in ``folder`` that lists all that were found so far.
    """
    if len(reasons) > max(config.max_bad_images, config.max_bad_share * len(records)):
        first = min(reasons)
        write_left_out(folder, records, reasons)
        raise DataError(
            f"{len(reasons)} of {len(records)} images cannot be read, the first is {printable(records[first].name)} "
            f"({reasons[first]}); {folder / LEFT_OUT} lists them: repair or remove them, or raise data.max_bad_images "
            f"(now {config.max_bad_images}) or data.max_bad_share (now {config.max_bad_share:g})"
        )


def _checked_digests(path: Path, info: Info) -> list[bytes]:
    arrays = hdf5.mapped(path)
    if info.storage == "jpeg":
        shards = EncodedShards([path])
        shape: tuple[int, ...] = (shards.rows,)
        fits = shards.side_px == info.image_size
    else:
        pixels = arrays.get("pixels", np.zeros(0))
        shape = pixels.shape[:1]
        fits = pixels.dtype == np.uint8 and pixels.shape[1:] == (info.image_size, info.image_size, 3)
    digest = arrays.get("digest", np.zeros(0))
    if (
        not fits
        or digest.dtype != np.uint8
        or digest.shape != (*shape, 32)
        or ("jpeg" in arrays) != (info.storage == "jpeg")
    ):
        raise ArtifactError(f"{path} holds no images as its pack describes them: pack the source again")
    return [row.tobytes() for row in digest]


def readable_size(num_bytes: int) -> str:
    """In MiB or GiB."""
    return f"{num_bytes / (1 << 30):.1f} GiB" if num_bytes >= 1 << 30 else f"{num_bytes / (1 << 20):.1f} MiB"
