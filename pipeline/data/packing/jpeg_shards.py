"""Squares kept as JPEG, end to end in shards: a third of the bytes or less, for half a millisecond an image (224 px).

jpeg    uint8 (bytes,)     the images of a shard end to end; an unreadable one has no bytes
offset  int64 (rows + 1,)  image i is jpeg[offset[i]:offset[i + 1]]
crc32   uint32 (rows,)     of each image's bytes
digest  uint8 (rows, 32)   sha256 of what the source held
attribute side             of every square, in pixels; attribute unreadable: JSON, why a row is no image

The checksum is not for show: of 400 images with one flipped bit, libjpeg decoded 254 without a word.
"""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from nstudent.data.decode import Pixels
from nstudent.data.image_cost import check_scans
from nstudent.errors import ArtifactError, ImageError
from nstudent.machine import decoding_threads, in_threads
from nstudent.storage.hdf5 import Array, attributes, mapped

MAX_SIDE_PX = 1024
"""As ``data.image_size`` has it."""
_LAYOUT = {"jpeg": ("uint8", 1), "offset": ("int64", 1), "crc32": ("uint32", 1)}


def encode(pixels: Pixels, quality: int) -> bytes:
    """A square, uint8 (side, side, 3), as JPEG, its colours as fine as its brightness (4:4:4)."""
    content: bytes = simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="444")
    return content


def joined(contents: Sequence[bytes]) -> dict[str, Array]:
    """The data sets of a shard that holds these images."""
    lengths = [len(content) for content in contents]
    return {
        "jpeg": np.frombuffer(b"".join(contents), np.uint8),
        "offset": np.cumsum([0, *lengths], dtype=np.int64),
        "crc32": np.array([zlib.crc32(content) for content in contents], dtype=np.uint32),
    }


class EncodedShards:
    """Reads images by id from shards of equal numbers of rows. Its maps are this process's own."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._shards = [_checked(path) for path in paths]
        self.rows = len(self._shards[0]["crc32"])
        self.side_px = _side_px(paths[0])

    def __call__(self, ids: npt.NDArray[np.int64]) -> Pixels:
        """Images by id: (n,) -> uint8 (n, side, side, 3).

        Raises:
            ArtifactError: the bytes of one are not those that were packed.
        """
        images = np.empty((len(ids), self.side_px, self.side_px, 3), dtype=np.uint8)
        in_threads(len(ids), decoding_threads(len(ids)), lambda part: self._decode(ids[part], images[part]))
        return images

    def _decode(self, ids: npt.NDArray[np.int64], images: Pixels) -> None:
        for image, square in zip(ids.tolist(), images, strict=True):
            number, row = divmod(image, self.rows)
            shard = self._shards[number]
            first, last = shard["offset"][row : row + 2]
            content = shard["jpeg"][first:last]
            if zlib.crc32(content) != shard["crc32"][row]:
                raise ArtifactError(_damaged(self._paths[number], row, "its checksum is wrong"))
            if first == last:
                square[:] = 0
                continue
            try:
                self._decode_one(content, square)
            except ValueError as error:
                raise ArtifactError(_damaged(self._paths[number], row, str(error))) from error

    def _decode_one(self, content: Array, square: Pixels) -> None:
        # A stranger's shard may hold other sizes and kinds under the right checksum.
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(content)
        if (height, width) != (self.side_px, self.side_px):
            raise ValueError(f"{width}x{height} pixels in place of {self.side_px}x{self.side_px}")
        if colorspace != "YCbCr":
            raise ValueError(f"its colours are {colorspace}")
        try:
            check_scans(content.tobytes())
        except ImageError as error:
            raise ValueError(str(error)) from error
        simplejpeg.decode_jpeg(content, buffer=square, strict=True)


def unreadable_rows(path: Path, rows: int) -> dict[int, str]:
    """Why some rows of a shard, of whatever kind, are no images.

    Raises:
        ArtifactError: the shard does not say.
    """
    try:
        found = json.loads(attributes(path)["unreadable"])
        reasons = {int(row): str(reason) for row, reason in found.items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        reasons = {-1: ""}
    if not all(0 <= row < rows for row in reasons):
        raise ArtifactError(f"{path} does not say which of its images are unreadable: pack the source again")
    return reasons


def _side_px(path: Path) -> int:
    """Side of the squares of a shard.

    Raises:
        ArtifactError: the shard does not say.
    """
    side: Any = attributes(path).get("side")
    if not isinstance(side, int | np.integer) or not 0 < side <= MAX_SIDE_PX:
        raise ArtifactError(f"{path} does not say how large its images are: pack the data again")
    return int(side)


def _checked(path: Path) -> dict[str, Array]:
    """The data sets of a shard, none of which points out of another."""
    found = mapped(path)
    for name, (dtype, dimensions) in _LAYOUT.items():
        array = found.get(name)
        if array is None or array.dtype != np.dtype(dtype) or array.ndim != dimensions:
            raise ArtifactError(f"{path} is no shard of JPEG images, '{name}' is missing or odd: pack the data again")
    offset = found["offset"]
    if len(offset) != len(found["crc32"]) + 1 or len(offset) < 2:
        raise ArtifactError(f"{path}: offset and crc32 tell different numbers of images: pack the data again")
    if (offset[1:] < offset[:-1]).any() or offset[0] != 0 or offset[-1] != len(found["jpeg"]):
        raise ArtifactError(f"{path}: offset points out of jpeg: pack the data again")
    return found


def _damaged(path: Path, row: int, what: str) -> str:
    said = " ".join(what.split())[:160]
    return f"{path}: image {row} is damaged ({said}): nstudent verify {path.parent.parent} --repair makes it again"
