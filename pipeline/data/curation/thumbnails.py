"""What each image looks like when it is small: made once an image, kept on disk, and all that copies are found by."""

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
from nstudent.data.decode import Pixels
from nstudent.progress import Progress
from nstudent.storage.hdf5 import Array, encoded, mapped
from nstudent.storage.sealed import SCRATCH, SealedFiles

Ids = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.float64]

GREY_PX, COLOUR_PX = 32, 8
HASH_BITS = 64
_HASH_SIDE = 8
_MIN_CONTRAST = 4.0
"""Standard deviation, in grey levels, below which an image shows nothing that could be compared."""
_MIDDLE = 128
"""Values are counted from it: products of 1,024 pairs then add up to 24 bits."""
_IMAGES_AT_ONCE = 256
_ROWS_OF_A_FILE = 8192
BYTES = GREY_PX**2 + COLOUR_PX**2 * 3 + 41
"""Bytes of one image on disk."""


class Images(Protocol):
    """What holds the packed images."""

    def __getitem__(self, ids: Ids) -> Pixels:
        """Images by id: (n,) -> uint8 (n, side, side, 3)."""


class Thumbnails:
    """Thumbnails of some images, one row each, in files that are mapped: memory holds 9 bytes an image."""

    def __init__(self, parts: Sequence[dict[str, Array]]) -> None:
        """Join the results of ``measured``, each but the last of the same number of rows."""
        self._parts = parts
        self._rows = len(parts[0]["hash"]) if parts else 1
        none = measured(np.zeros((0, 1, 1, 3), dtype=np.uint8))
        self.hashes: Hashes = np.concatenate([part["hash"] for part in parts or [none]])
        """Perceptual hash of each image, (images,)."""
        self.shows_something: npt.NDArray[np.bool_] = np.concatenate([part["shows"] for part in parts or [none]]) > 0
        """Whether there is anything to compare in an image, (images,)."""

    @classmethod
    def make(cls, images: Images, ids: Ids, sealed: SealedFiles, progress: Progress) -> "Thumbnails":
        """Make those of the images with these ids, or go on where an earlier attempt was stopped.

        Raises:
            StoppedError: The progress asked to stop; what was made is kept.
        """
        parts = []
        with progress.task("thumbnails", len(ids), "images") as task:
            for first in range(0, len(ids), _ROWS_OF_A_FILE):
                rows = ids[first : first + _ROWS_OF_A_FILE]
                name = f"{SCRATCH}/thumbnails-{first:010d}.h5"
                if sealed.has(name) and len(mapped(sealed.path(name))["hash"]) == len(rows):
                    task.advance(len(rows))
                else:
                    made = []
                    for at in range(0, len(rows), _IMAGES_AT_ONCE):
                        made.append(measured(images[rows[at : at + _IMAGES_AT_ONCE]]))
                        task.advance(len(made[-1]["hash"]))
                    joined = {key: np.concatenate([each[key] for each in made]) for key in made[0]}
                    sealed.write(name, encoded(joined, {}))
                parts.append(mapped(sealed.path(name)))
        return cls(parts)

    def __len__(self) -> int:
        return len(self.hashes)

    def differences(self, left: Ids, right: Ids, name: str) -> Numbers:
        """Difference of the thumbnails of pairs of rows, (pairs,): ``name`` is grey or colour.

        What is left of the contrast of one image after the other, made as bright and strong, is taken from it:
        sqrt(1 - r^2), where r is the correlation over all values of a thumbnail; 1 where r is negative.
        """
        a, b = (self._gathered(rows, name).astype(np.float32) - _MIDDLE for rows in (left, right))
        length = a.shape[1]
        (sum_a, square_a), (sum_b, square_b) = (self._gathered(rows, f"{name} sums").T for rows in (left, right))
        # Whole numbers of at most 24 bits, which this type adds up without an error.
        product = np.einsum("ij,ij->i", a, b).astype(np.float64)
        strength = np.sqrt((square_a - sum_a**2 / length) * (square_b - sum_b**2 / length))
        correlation = (product - sum_a * sum_b / length) / np.maximum(strength, 1e-9)
        found: Numbers = np.sqrt(1 - np.clip(correlation, 0, 1) ** 2)
        return found

    def _gathered(self, rows: Ids, name: str) -> Array:
        """A data set of all files by row, (n, values)."""
        part = rows // self._rows
        numbers = np.unique(part)
        if len(numbers) == 1:
            alone: Array = self._parts[numbers[0]][name][rows - numbers[0] * self._rows]
            return alone
        found = np.empty((len(rows), *self._parts[0][name].shape[1:]), dtype=self._parts[0][name].dtype)
        for number in numbers:
            here = np.flatnonzero(part == number)
            found[here] = self._parts[number][name][rows[here] - number * self._rows]
        return found


def measured(pixels: Pixels) -> dict[str, Array]:
    """The thumbnails of some images, (images, side, side, 3), and what is known from them.

    Returns:
        grey          uint8 (images, 32 * 32)     brightness, for details
        colour        uint8 (images, 8 * 8 * 3)   colours, where compression leaves them alone
        grey sums     int64 (images, 2)           sum of its values, and of their squares, counted from 128
        colour sums   int64 (images, 2)           the same
        hash          uint64 (images,)            perceptual hash
        shows         uint8 (images,)             1 where there is anything to see
    """
    grey = _resized([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in pixels], GREY_PX, 1)
    colour = _resized(list(pixels), COLOUR_PX, 3)
    return {
        "grey": grey,
        "colour": colour,
        "grey sums": _sums(grey),
        "colour sums": _sums(colour),
        "hash": _hashes(grey.reshape(-1, GREY_PX, GREY_PX).astype(np.float64)),
        "shows": (grey.astype(np.float64).std(axis=1) >= _MIN_CONTRAST).astype(np.uint8),
    }


def perceptual_hash(pixels: Pixels) -> Hashes:
    """64 bits an image: which of the lowest 8 x 8 frequencies of its brightness are above their median.

    Args:
        pixels: uint8, (images, side, side, 3).
    """
    found: Hashes = measured(pixels)["hash"]
    return found


def _resized(images: Sequence[Array], side_px: int, channels: int) -> Pixels:
    """Thumbnails end to end: (images, side * side * channels)."""
    found = np.empty((len(images), side_px, side_px, channels), dtype=np.uint8)
    for number, image in enumerate(images):
        small = cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA)
        found[number] = small.reshape(side_px, side_px, channels)
    return found.reshape(len(images), side_px**2 * channels)


def _sums(values: Pixels) -> npt.NDArray[np.int64]:
    """(sum, sum of squares) of the values of each image, counted from the middle: (images, 2)."""
    centred = values.astype(np.int64) - _MIDDLE
    return np.stack([centred.sum(axis=1), (centred**2).sum(axis=1)], axis=1)


def _hashes(grey: Numbers) -> Hashes:
    """Hashes of thumbnails in grey, (images, 32, 32)."""
    cosines = _cosines(GREY_PX, _HASH_SIDE)
    spectrum = (cosines @ grey @ cosines.T).reshape(len(grey), HASH_BITS)
    # The first is the mean brightness: not part of what is seen.
    median = np.median(spectrum[:, 1:], axis=1, keepdims=True)
    bits: Hashes = np.packbits(spectrum > median, axis=1).view(np.uint64)[:, 0]
    return bits


def _cosines(length: int, count: int) -> Numbers:
    """The lowest ``count`` basis functions of the discrete cosine transform. (count, length)."""
    at = (2 * np.arange(length) + 1) * np.pi / (2 * length)
    basis: Numbers = np.cos(np.arange(count)[:, None] * at)
    return basis
