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
from nstudent.config import DataConfig
from nstudent.data.decode import Pixels
from nstudent.data.decoders import NO_DIGEST, Decoded, Reader
from nstudent.data.sources import open_source
from nstudent.data.sources.source import printable
from nstudent.errors import DataError
from nstudent.hdf5 import mapped
from nstudent.processes import in_threads


class Originals:
    """Reads images by id from their source, and holds every one against its digest."""

    def __init__(self, shards: Sequence[Path], config: DataConfig, index: Path) -> None:
        """List the source once more. ``index`` has the names of the images, once the data step has written it.

        Raises:
            DataError: it is gone, or has another number of images.
        """
        self._index = index
        self._side_px = config.image_size
        source = open_source(config)
        count = len(source.records())
        self._digests = np.concatenate([mapped(path)["digest"] for path in shards])
        if count != len(self._digests):
            raise DataError(
                f"the source has {count:,} images, and had {len(self._digests):,} when the data step read "
                "it: run the same command again, which makes that step anew"
            )
        self._reader = Reader(source, config.image_size, config.max_pixels)

    def __call__(self, ids: npt.NDArray[np.int64]) -> Pixels:
        """Images by id: (n,) -> uint8 (n, side, side, 3). One that never could be read is black.

        Raises:
            DataError: one has changed, or is gone.
        """
        images = np.empty((len(ids), self._side_px, self._side_px, 3), dtype=np.uint8)
        in_threads(len(ids), lambda part: self._decode(ids[part], images[part]))
        return images

    def _decode(self, ids: npt.NDArray[np.int64], images: Pixels) -> None:
        for image, square in zip(ids.tolist(), images, strict=True):
            known = self._digests[image].tobytes()
            if known == NO_DIGEST:
                square[:] = 0
                continue
            (found,) = self._reader([image])
            if found.digest != known:
                raise DataError(self._changed(image, found))
            square[:] = 0 if found.pixels is None else found.pixels

    def _changed(self, image: int, found: Decoded) -> str:
        why = found.reason if found.digest == NO_DIGEST else "its content has changed"
        return (
            f"{self._name(image)} is not what the data step has seen ({why}): put it back, or run the same command "
            "again to begin with what is there now"
        )

    def _name(self, image: int) -> str:
        # From the disk: the names of all images are not kept in memory for the one that may be needed.
        if not self._index.exists():
            return f"image {image}"
        name: bytes = mapped(self._index)["name"][image]
        return printable(name.decode("utf-8", "surrogateescape"))
