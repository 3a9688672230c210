"""Copies that are not equal bytes: the same picture encoded again, resized, or made a little brighter.

Two steps, because neither does alone. A perceptual hash finds candidates in no time, but calls different trousers of
Fashion-MNIST equal; comparing the thumbnails of every pair would take forever. Measured figures: docs/DATA.md.

Work grows with the number of images, also where all of them look alike, as the frames of a still camera do. Images with
one hash are one group, which is matched with groups and not image by image; and an image whose hash is like those of
many held-out images is compared with a few of them at a time, until it is known to be a copy of one.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nstudent.data.curation.split import TEST, VALIDATION
from nstudent.data.curation.thumbnails import HASH_BITS, Hashes, Ids, Numbers, Thumbnails
from nstudent.progress import Progress

_MAX_DIFFERENCE = 0.12
"""Largest difference of two thumbnails that are taken for copies, as a share of their contrast. A photo that is saved
as JPEG of quality 60 stays below it, two photos of one product do not."""
_ALL_AT_ONCE = 64
"""Candidates of an image that are all compared, so that the closest is found."""
_FIRST, _MORE = 8, 4
"""Number of candidates of an image that come first where there are more, then in each round this many times as many."""
_MOST_CANDIDATES = 1000
"""Candidates of an image that are compared at all, those of the closest hashes first."""
_PAIRS_AT_ONCE = 1 << 16
_DIFFERENCES_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class NearDuplicate:
    """An image that shows the same as one of a more protected split."""

    image: int
    of: int
    distance: int
    """Bits in which the perceptual hashes differ, of 64."""
    difference: float
    """Difference of the thumbnails, as a share of their contrast."""


def near_duplicates(
    looks: Thumbnails, split: npt.NDArray[np.int8], usable: Ids, distance: int, progress: Progress
) -> list[NearDuplicate]:
    """Images of which validation or test holds a copy, and which one. Validation itself may copy test.

    Of up to 64 held-out images with such a hash the closest is named, of more one of the first copies that was found.

    Args:
        looks: Thumbnails of the usable images.
        split: Split of every image, (images,).
        usable: Ids of the images to compare, (usable images,), ascending.
        distance: Hashes that differ in more bits are not compared further.
        progress: Told of the images that are compared.
    """
    shown = np.flatnonzero(looks.shows_something)
    part_of = split[usable[shown]]
    passes = [(shown[part_of == part], shown[(part_of != part) & (part_of != TEST)]) for part in (TEST, VALIDATION)]
    closest = _Closest(looks)
    num_cut = 0
    with progress.task("compare", sum(len(others) for _, others in passes), "images") as task:
        for held_out, others in passes:
            matched = 0
            for images, lists in _groups(looks.hashes, held_out, others, distance):
                for pairs in _rounds(images, lists, closest):
                    closest.take(*pairs)
                    task.advance(0)
                num_cut += int((~closest.is_known(images) & (lists.count > _MOST_CANDIDATES)).sum())
                matched += len(images)
                task.advance(len(images))
            task.advance(len(others) - matched)
    if num_cut:
        progress.say(
            f"  {num_cut:,} images look like more than {_MOST_CANDIDATES:,} held-out ones by their hash, and were "
            "compared with so many of them"
        )
    return closest.found(usable)


@dataclass(frozen=True)
class _Candidates:
    """The held-out images that each of some images may be a copy of, closest hash first."""

    rows: Ids
    """Rows of held-out images; the list of an image is ``rows[start : start + count]``."""
    start: Ids
    count: Ids

    def of(self, which: Ids) -> "_Candidates":
        """The lists of some of the images."""
        return _Candidates(self.rows, self.start[which], self.count[which])


class _Closest:
    """The closest copy that was found of each image."""

    def __init__(self, looks: Thumbnails) -> None:
        self._looks = looks
        self._difference = np.full(len(looks), np.inf)
        self._of = np.full(len(looks), -1, dtype=np.int64)

    def is_known(self, rows: Ids) -> npt.NDArray[np.bool_]:
        """Whether a copy was found of each of these."""
        return self._of[rows] >= 0

    def take(self, images: Ids, held_out: Ids) -> None:
        """Compare pairs of rows, and remember of each image the closest."""
        for first in range(0, len(images), _DIFFERENCES_AT_ONCE):
            image, other = (rows[first : first + _DIFFERENCES_AT_ONCE] for rows in (images, held_out))
            # Colours first: they are a fifth of the work, and tell most pairs apart.
            colour = self._looks.differences(other, image, "colour")
            like = colour <= _MAX_DIFFERENCE
            image, other, colour = image[like], other[like], colour[like]
            difference = np.maximum(colour, self._looks.differences(other, image, "grey"))
            same = difference <= _MAX_DIFFERENCE
            # Rounded: the last digits depend on the machine.
            self._remember(image[same], other[same], difference[same].round(3))

    def found(self, usable: Ids) -> list[NearDuplicate]:
        """What was found, by the ids of the images."""
        rows = np.flatnonzero(self._of >= 0)
        of = self._of[rows]
        distance = np.bitwise_count(self._looks.hashes[rows] ^ self._looks.hashes[of])
        columns = (usable[rows], usable[of], distance, self._difference[rows])
        return [NearDuplicate(*entry) for entry in zip(*(column.tolist() for column in columns), strict=True)]

    def _remember(self, images: Ids, held_out: Ids, difference: Numbers) -> None:
        order = np.lexsort((held_out, difference, images))
        images, held_out, difference = images[order], held_out[order], difference[order]
        first = np.flatnonzero(np.diff(images, prepend=-1))
        images, held_out, difference = images[first], held_out[first], difference[first]
        known, before = self._of[images], self._difference[images]
        better = (difference < before) | ((difference == before) & (held_out < known))
        self._of[images[better]], self._difference[images[better]] = held_out[better], difference[better]


def _rounds(images: Ids, lists: _Candidates, closest: _Closest) -> Iterator[tuple[Ids, Ids]]:
    """(image, held-out image) of the pairs to compare, rows; what an image needs depends on what was found before."""
    count = np.minimum(lists.count, _MOST_CANDIDATES)
    # Of what an earlier pass has found the closest is still looked for, as far as that is no work.
    few = np.flatnonzero((count <= _ALL_AT_ONCE) & (count > 0))
    yield from _pairs(images[few], lists.of(few), 0, _ALL_AT_ONCE)
    many = np.flatnonzero(count > _ALL_AT_ONCE)
    first, width = 0, _FIRST
    while len(many := many[~closest.is_known(images[many]) & (count[many] > first)]):
        last = min(first + width, _MOST_CANDIDATES)
        yield from _pairs(images[many], lists.of(many), first, last)
        first, width = last, width * _MORE


def _pairs(images: Ids, lists: _Candidates, first: int, last: int) -> Iterator[tuple[Ids, Ids]]:
    """Each image with its candidates from the ``first`` to before the ``last``, some pairs at a time."""
    count = np.minimum(lists.count, last) - first
    for rows in _blocks(count):
        image, at = _expanded(count[rows])
        yield images[rows][image], lists.rows[lists.start[rows][image] + first + at]


def _groups(hashes: Hashes, held_out: Ids, others: Ids, distance: int) -> Iterator[tuple[Ids, _Candidates]]:
    """Images, rows, with the held-out ones whose hashes differ from theirs in at most ``distance`` bits."""
    ours, theirs = _Groups(hashes, others), _Groups(hashes, held_out)
    for near in _near(ours.hashes, theirs.hashes, distance):
        # Row of a group of ours, of theirs; sorted by ours, then by how near they are.
        sizes = theirs.sizes[near[1]]
        number, at = _expanded(sizes)
        rows = theirs.rows[theirs.start[near[1]][number] + at]
        groups, first = np.unique(near[0], return_index=True)
        totals = np.add.reduceat(sizes, first)
        start = np.cumsum(totals) - totals
        which, member = _expanded(ours.sizes[groups])
        images = ours.rows[ours.start[groups][which] + member]
        yield images, _Candidates(rows, start[which], totals[which])


class _Groups:
    """Images by their hash."""

    def __init__(self, hashes: Hashes, rows: Ids) -> None:
        self.hashes, group = np.unique(hashes[rows], return_inverse=True)
        self.rows = rows[np.argsort(group, kind="stable")]
        """Ids of the images, group by group."""
        self.sizes = np.bincount(group, minlength=len(self.hashes))
        self.start = np.cumsum(self.sizes) - self.sizes


def _near(left: Hashes, right: Hashes, distance: int) -> Iterator[tuple[Ids, Ids]]:
    """Places of pairs of different hashes that differ in at most ``distance`` bits, each once; closest first of a left.

    Cut into ``distance + 1`` pieces, two such hashes agree in one piece at least: only pairs that do are looked at.
    """
    pieces = [_Piece(right, number, distance + 1) for number in range(distance + 1)]
    most = sum(piece.count(left) for piece in pieces)
    for block in _blocks(np.asarray(most)):
        found = [piece.pairs(left[block], pieces[:number]) for number, piece in enumerate(pieces)]
        row, column = (np.concatenate(each) for each in zip(*found, strict=True))
        bits = np.bitwise_count(left[block][row] ^ right[column])
        row, column, bits = (each[bits <= distance] for each in (row, column, bits))
        order = np.lexsort((column, bits, row))
        if len(order):
            yield row[order] + block.start, column[order]


class _Piece:
    """One piece of hashes, sorted by it."""

    def __init__(self, hashes: Hashes, number: int, pieces: int) -> None:
        low, high = HASH_BITS * number // pieces, HASH_BITS * (number + 1) // pieces
        self._low, self._mask = np.uint64(low), np.uint64((1 << (high - low)) - 1)
        self._all = hashes
        self._order = np.argsort(self(hashes), kind="stable")
        self._sorted = self(hashes)[self._order]

    def __call__(self, hashes: Hashes) -> Hashes:
        """This piece of some hashes."""
        return (hashes >> self._low) & self._mask

    def count(self, left: Hashes) -> Ids:
        """With how many hashes each of these agrees in this piece."""
        start, end = self._range(left)
        return end - start

    def pairs(self, left: Hashes, earlier: list["_Piece"]) -> tuple[Ids, Ids]:
        """Places of the pairs that agree in this piece, and in none of the ``earlier`` ones."""
        start, end = self._range(left)
        row, at = _expanded(end - start)
        column = self._order[start[row] + at]
        new = np.ones(len(row), dtype=np.bool_)
        for piece in earlier:
            new &= piece(left)[row] != piece(self._all)[column]
        return row[new], column[new]

    def _range(self, left: Hashes) -> tuple[Ids, Ids]:
        ours = self(left)
        return np.searchsorted(self._sorted, ours, "left"), np.searchsorted(self._sorted, ours, "right")


def _expanded(counts: Ids) -> tuple[Ids, Ids]:
    """(place in ``counts``, number from 0) of each of so many things: [2, 1] -> [0, 0, 1], [0, 1, 0]."""
    which = np.repeat(np.arange(len(counts)), counts)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    return which, np.arange(len(which)) - before


def _blocks(count: Ids) -> Iterator[slice]:
    """Consecutive rows that have about ``_PAIRS_AT_ONCE`` pairs together."""
    block = np.cumsum(count) // _PAIRS_AT_ONCE
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(count)]
    for start, stop in itertools.pairwise(edges):
        if count[start:stop].any():
            yield slice(start, stop)
