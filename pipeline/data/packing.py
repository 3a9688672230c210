"""From a source to shards of squares: decoded once, resized, and written as pixels or as JPEG, shard by shard."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nstudent import hdf5
from nstudent.config import DataConfig
from nstudent.data.dataset import PIXELS
from nstudent.data.decoders import Decoded, Reader, reading
from nstudent.data.encoded import joined
from nstudent.data.sources import Record, Source
from nstudent.data.sources.source import printable
from nstudent.errors import DataError
from nstudent.progress import Progress

MAX_RAW_BYTES = 8 << 30
"""Of squares that are kept as pixels without being told to. So many stay in the page cache of a machine with 16 GiB,
and a row is then a copy of 10 microseconds (224 px); what does not fit is read from the disk at random, and 150 KB take
an SSD about as long as decoding 50 KB takes a core."""
SHARD_BYTES = 64 << 20
_JPEG_SHARE = 3
"""A busy photo takes a third of its pixels at quality 95, most take less."""


@dataclass(frozen=True)
class Layout:
    """How squares lie in shards. The number of rows is fixed, so that a row is found by a division."""

    side_px: int
    rows: int
    """Of every shard but the last."""
    num_bytes: int
    """About what all shards take."""
    jpeg_quality: int | None
    """``None``: pixels."""

    @classmethod
    def of(cls, config: DataConfig, num_images: int, progress: Progress) -> "Layout":
        """As ``data.storage`` says; ``auto`` is decided by the size of the whole set, and said."""
        square_bytes = config.image_size**2 * 3
        raw = num_images * square_bytes
        storage = config.storage
        if storage == "auto":
            storage = "pixels" if raw <= MAX_RAW_BYTES else "jpeg"
            as_pixels, as_jpeg = _size(raw), f"about {_size(raw // _JPEG_SHARE)}"
            this, other = (as_pixels, f"jpeg: {as_jpeg}") if storage == "pixels" else (as_jpeg, f"pixels: {as_pixels}")
            progress.say(f"  data.storage={storage}, {this} ({other})")
        share = _JPEG_SHARE if storage == "jpeg" else 1
        rows = max(1, share * SHARD_BYTES // square_bytes)
        return cls(config.image_size, rows, raw // share, config.jpeg_quality if storage == "jpeg" else None)

    def write(self, path: Path, images: Sequence[Decoded]) -> None:
        """One shard. An unreadable image keeps its row and is black."""
        blank = np.zeros((self.side_px, self.side_px, 3), dtype=np.uint8)
        unreadable = {str(row): image.reason for row, image in enumerate(images) if not image.readable}
        attributes: dict[str, object] = {"unreadable": json.dumps(unreadable)}
        if self.jpeg_quality is None:
            arrays = {"pixels": np.stack([blank if image.pixels is None else image.pixels for image in images])}
        else:
            arrays = joined([image.jpeg for image in images])
            attributes["side"] = self.side_px
        arrays["digest"] = np.stack([np.frombuffer(image.digest, np.uint8) for image in images])
        hdf5.write(path, arrays, attributes)


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"{PIXELS}{number:05d}.h5"


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
        DataError: more than ``data.max_bad_share`` are; nothing of that shard is written.
    """
    digests: list[bytes] = []
    reasons: dict[int, str] = {}
    reader = Reader(source, layout.side_px, config.max_pixels, layout.jpeg_quality)
    with progress.task("decode", len(records), "images") as task, reading(reader) as read:
        for shard, first in enumerate(range(0, len(records), layout.rows)):
            path = folder / shard_name(shard)
            ids = range(first, min(first + layout.rows, len(records)))
            if not path.exists():
                images = read(ids)
                bad = {i: image.reason for i, image in zip(ids, images, strict=True) if not image.readable}
                # Before anything is written: a folder that is back the next time must not stay unreadable.
                check_unreadable(records, reasons | bad, config.max_bad_share)
                layout.write(path, images)
            digests += [row.tobytes() for row in hdf5.mapped(path)["digest"]]
            bad = json.loads(hdf5.attributes(path)["unreadable"])
            reasons |= {first + int(row): reason for row, reason in bad.items()}
            task.advance(len(ids))
    return digests, reasons


def check_unreadable(records: Sequence[Record], reasons: dict[int, str], max_share: float) -> None:
    """Whether few enough images are unreadable to go on.

    Raises:
        DataError: names the first of them.
    """
    if len(reasons) > max_share * len(records):
        first = min(reasons)
        raise DataError(
            f"{len(reasons)} of {len(records)} images cannot be read, the first is {printable(records[first].name)} "
            f"({reasons[first]}): mend or remove them, or raise data.max_bad_share (now {max_share:g})"
        )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.1f} GiB" if num_bytes >= 1 << 30 else f"{num_bytes / (1 << 20):.1f} MiB"
