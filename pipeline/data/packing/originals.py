"""Squares that are not kept: each is read from its source and decoded whenever somebody looks at it.

For heaps that do not fit on the disk a second time. The shards hold nothing but a digest of each image, by which it is
known again: an image is what the data step has seen, or an error.

digest  uint8 (rows, 32)   sha256 of what the source held; zeros where it could not be read
attribute unreadable       JSON, why a row is no image
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nstudent.config.schema import DataConfig
from nstudent.data.decode import Pixels
from nstudent.data.packing.jpeg_shards import unreadable_rows
from nstudent.data.packing.reader import Reader
from nstudent.data.sources import open_source
from nstudent.data.sources.source import printable
from nstudent.errors import DataError
from nstudent.machine import decoding_threads, in_threads
from nstudent.storage.hdf5 import mapped


class Originals:
    """Reads images by id from their source, and holds every one against its digest."""

    def __init__(self, shards: Sequence[Path], config: DataConfig, index: Path) -> None:
        """List the source once more. ``index`` has the names of the images, once the data step has written it.

        Raises:
            DataError: it is gone, or has another number of images.
        """
        self._index = index
        self._side_px = config.image_size
        self._digests = [mapped(path)["digest"] for path in shards]
        self._rows = len(self._digests[0])
        self._unreadable = {
            number * self._rows + row
            for number, (path, digests) in enumerate(zip(shards, self._digests, strict=True))
            for row in unreadable_rows(path, len(digests))
        }
        source = open_source(config)
        count, before = len(source.catalogue().records), sum(map(len, self._digests))
        if count != before:
            raise DataError(
                f"the source has {count:,} images, and had {before:,} when the data step read it: {self._mend()}"
            )
        # Here nothing limits a decoder: what it gets is what one has read within its limits when the data were made.
        self._reader = Reader(source, config.image_size, config.max_pixels, config.bits, known=self._digest)

    def __call__(self, ids: npt.NDArray[np.int64]) -> Pixels:
        """Images by id: (n,) -> uint8 (n, side, side, 3). One that could not be read by the data step is black.

        Raises:
            DataError: one has changed, is gone, or cannot be decoded here.
        """
        images = np.empty((len(ids), self._side_px, self._side_px, 3), dtype=np.uint8)
        in_threads(len(ids), decoding_threads(len(ids)), lambda part: self._decode(ids[part], images[part]))
        return images

    def _decode(self, ids: npt.NDArray[np.int64], images: Pixels) -> None:
        for image, square in zip(ids.tolist(), images, strict=True):
            if image in self._unreadable:
                # Not tried again: it may be what ended its decoder.
                square[:] = 0
                continue
            (found,) = self._reader([image])
            if found.pixels is None:
                raise DataError(
                    f"{self._name(image)} is not what the data step has seen ({found.reason}): {self._mend()}"
                )
            square[:] = found.pixels

    def _digest(self, image: int) -> bytes:
        shard, row = divmod(image, self._rows)
        digest: bytes = self._digests[shard][row].tobytes()
        return digest

    def _name(self, image: int) -> str:
        # From the disk: the names of all images are not kept in memory for the one that may be needed.
        if not self._index.exists():
            return f"image {image}"
        name: bytes = mapped(self._index)["name"][image]
        return printable(name.decode("utf-8", "surrogateescape"))

    def _mend(self) -> str:
        return f"put back what it was, or delete {self._index.parent} and use run-all to begin with what is there now"
