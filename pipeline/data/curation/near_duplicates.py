"""Copies that are not equal bytes: the same picture encoded again, resized, or made a little brighter.

Two steps, because neither does alone. A perceptual hash finds candidates in no time, but calls different trousers of
Fashion-MNIST equal; comparing the thumbnails of every pair would take forever. Measured figures: docs/DATA.md.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
from nstudent.data.curation.split import TEST, VALIDATION
from nstudent.data.decode import Pixels

Ids = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.float64]

_GREY_PX, _COLOUR_PX = 32, 8
_HASH_SIDE = 8
_HASH_BITS = _HASH_SIDE**2
_MAX_DIFFERENCE = 0.12
"""Largest difference of two thumbnails that are taken for copies, as a share of their contrast. A photo that is saved
as JPEG of quality 60 stays below it, two photos of one product do not."""
_MIN_CONTRAST = 4.0
"""Standard deviation, in grey levels, below which an image shows nothing that could be compared."""
_IMAGES_AT_ONCE = 256
_PAIRS_AT_ONCE = 1 << 20


class Images(Protocol):
    """What holds the packed images."""

    def __getitem__(self, ids: Ids) -> Pixels:
        """Images by id: (n,) -> uint8 (n, side, side, 3)."""


@dataclass(frozen=True)
class NearDuplicate:
    """An image that shows the same as one of a more protected split."""

    image: int
    of: int
    distance: int
    """Bits in which the perceptual hashes differ, of 64."""
    difference: float
    """Difference of the thumbnails, as a share of their contrast."""


def near_duplicates(images: Images, split: npt.NDArray[np.int8], usable: Ids, distance: int) -> list[NearDuplicate]:
    """Images of which validation or test holds a copy, with the closest one there. Validation itself may copy test.

    ``split`` is (images,), ``usable`` the ids of the images that are looked at, (usable images,).

    Beside a constant, memory grows by 8 bytes an image.

    Args:
        images: The packed images.
        split: Split of every image.
        usable: Ids of the images to compare.
        distance: Hashes that differ in more bits are not compared further.
    """
    hashes, shows_something = _hashes(images, usable)
    usable, hashes = usable[shows_something], hashes[shows_something]
    best: dict[int, NearDuplicate] = {}
    for part in (TEST, VALIDATION):
        held_out = np.flatnonzero(split[usable] == part)
        others = np.flatnonzero((split[usable] != part) & (split[usable] != TEST))
        for left, right in _candidates(hashes[held_out], hashes[others], distance):
            for found in _copies(images, usable, hashes, held_out[left], others[right]):
                known = best.setdefault(found.image, found)
                if (found.difference, found.of) < (known.difference, known.of):
                    best[found.image] = found
    return [best[image] for image in sorted(best)]


def perceptual_hash(pixels: Pixels) -> Hashes:
    """64 bits an image: which of the lowest 8 x 8 frequencies of its brightness are above their median.

    Args:
        pixels: uint8, (images, side, side, 3).
    """
    grey = _thumbnails(pixels, _GREY_PX, grey=True)
    cosines = _cosines(_GREY_PX, _HASH_SIDE)
    spectrum = (cosines @ grey @ cosines.T).reshape(len(grey), _HASH_BITS)
    # The first is the mean brightness: not part of what is seen.
    median = np.median(spectrum[:, 1:], axis=1, keepdims=True)
    bits: Hashes = np.packbits(spectrum > median, axis=1).view(np.uint64)[:, 0]
    return bits


def _cosines(length: int, count: int) -> Numbers:
    """The lowest ``count`` basis functions of the discrete cosine transform. (count, length)."""
    at = (2 * np.arange(length) + 1) * np.pi / (2 * length)
    basis: Numbers = np.cos(np.arange(count)[:, None] * at)
    return basis


def _hashes(images: Images, usable: Ids) -> tuple[Hashes, npt.NDArray[np.bool_]]:
    """(hash, whether there is anything to see), of each image."""
    hashes = np.zeros(len(usable), dtype=np.uint64)
    shows_something = np.zeros(len(usable), dtype=np.bool_)
    for first in range(0, len(usable), _IMAGES_AT_ONCE):
        rows = slice(first, first + _IMAGES_AT_ONCE)
        pixels = images[usable[rows]]
        hashes[rows] = perceptual_hash(pixels)
        shows_something[rows] = _thumbnails(pixels, _GREY_PX, grey=True).std(axis=(1, 2)) >= _MIN_CONTRAST
    return hashes, shows_something


def _candidates(left: Hashes, right: Hashes, distance: int) -> Iterator[tuple[Ids, Ids]]:
    """Rows of pairs whose hashes differ in at most ``distance`` bits; a pair may come more than once.

    Cut into ``distance + 1`` pieces, two such hashes agree in one piece at least: only pairs that do are looked at.
    """
    pieces = distance + 1
    for piece in range(pieces):
        low, high = _HASH_BITS * piece // pieces, _HASH_BITS * (piece + 1) // pieces
        mask = np.uint64((1 << (high - low)) - 1)
        ours, theirs = (left >> np.uint64(low)) & mask, (right >> np.uint64(low)) & mask
        order = np.argsort(theirs, kind="stable")
        start = np.searchsorted(theirs[order], ours, "left")
        count = np.searchsorted(theirs[order], ours, "right") - start
        for rows in _blocks(count):
            row = np.repeat(np.arange(rows.start, rows.stop), count[rows])
            before = np.repeat(np.cumsum(count[rows]) - count[rows], count[rows])
            column = order[start[row] + np.arange(len(row)) - before]
            close = np.bitwise_count(left[row] ^ right[column]) <= distance
            yield row[close], column[close]


def _blocks(count: Ids) -> Iterator[slice]:
    """Consecutive rows that have about ``_PAIRS_AT_ONCE`` pairs together."""
    block = np.cumsum(count) // _PAIRS_AT_ONCE
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(count)]
    for start, stop in itertools.pairwise(edges):
        if count[start:stop].any():
            yield slice(start, stop)


def _copies(images: Images, usable: Ids, hashes: Hashes, held_out: Ids, others: Ids) -> Iterator[NearDuplicate]:
    """The candidate pairs that look the same."""
    for first in range(0, len(others), _IMAGES_AT_ONCE):
        left, right = (rows[first : first + _IMAGES_AT_ONCE] for rows in (held_out, others))
        difference = _differences(images[usable[left]], images[usable[right]])
        distance = np.bitwise_count(hashes[left] ^ hashes[right])
        for pair in np.flatnonzero(difference <= _MAX_DIFFERENCE):
            image, of = int(usable[right[pair]]), int(usable[left[pair]])
            # Rounded: the last digits depend on the machine.
            yield NearDuplicate(image, of, int(distance[pair]), round(float(difference[pair]), 3))


def _differences(left: Pixels, right: Pixels) -> Numbers:
    """What is left of the contrast of one image after another, made as bright and strong, is taken from it.

    The larger of two: in brightness at 32 px, for details, and in colour at 8 px, where compression leaves it alone.
    """
    measured = [
        _unexplained(_thumbnails(left, side, grey=grey), _thumbnails(right, side, grey=grey))
        for side, grey in ((_GREY_PX, True), (_COLOUR_PX, False))
    ]
    return np.maximum(*measured)


def _unexplained(left: Numbers, right: Numbers) -> Numbers:
    """sqrt(1 - r^2), where r is the correlation over all values of an image; 1 where it is negative."""
    flat = [rows.reshape(len(rows), -1) for rows in (left, right)]
    flat = [rows - rows.mean(axis=1, keepdims=True) for rows in flat]
    strength = np.sqrt((flat[0] ** 2).sum(axis=1) * (flat[1] ** 2).sum(axis=1))
    correlation = (flat[0] * flat[1]).sum(axis=1) / np.maximum(strength, 1e-9)
    left_over: Numbers = np.sqrt(1 - np.clip(correlation, 0, 1) ** 2)
    return left_over


def _thumbnails(pixels: Pixels, side_px: int, *, grey: bool) -> Numbers:
    """(images, side, side) in grey, (images, side, side, 3) in colour."""
    made = []
    for image in pixels:
        shown = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if grey else image
        made.append(cv2.resize(shown, (side_px, side_px), interpolation=cv2.INTER_AREA))
    shape = (0, side_px, side_px) if grey else (0, side_px, side_px, 3)
    return np.stack(made).astype(np.float64) if made else np.zeros(shape)
