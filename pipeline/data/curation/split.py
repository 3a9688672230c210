"""Who is trained on, who is chosen by, who is looked at once: drawn from a seed, class by class, and written down."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from nstudent.config.schema import DataConfig
from nstudent.data.sources.source import SPLITS, Split
from nstudent.errors import DataError
from nstudent.randomness import generator
from nstudent.taxonomy.tree import UNKNOWN, LabelArray

TRAIN, VALIDATION, TEST, UNLABELLED = (SPLITS.index(name) for name in ("train", "validation", "test", "unlabelled"))
Indices = npt.NDArray[np.int64]


def draw_splits(
    labels: LabelArray, given: Sequence[Split | None], config: DataConfig, seed: int
) -> npt.NDArray[np.int8]:
    """The split of every image.

    A split that the source gives is kept. Validation and test are drawn from the rest where the source has none;
    training images beyond ``data.labelled`` join the unlabelled heap.

    Args:
        labels: (images, levels).
        given: Split per image, ``None`` where the source leaves it open.
        config: Gives the numbers or shares of validation, test, labelled and unlabelled images.
        seed: Of the run; equal seeds draw equal splits.

    Raises:
        DataError: An image of validation or test has no label, a split wants more images than are left, or one that
            is needed is empty.
    """
    split = np.array([TRAIN if name is None else SPLITS.index(name) for name in given], dtype=np.int8)
    nameless = (labels == UNKNOWN).all(axis=1)
    split[nameless & (split == TRAIN)] = UNLABELLED
    if (nameless & np.isin(split, (VALIDATION, TEST))).any():
        raise DataError("a validation or test image has no label at any level: label it, or make it unlabelled")
    open_images = int((split == TRAIN).sum())
    for part, wanted in ((TEST, config.test), (VALIDATION, config.validation)):
        if is_drawn(part, given):
            # Both shares are of all labelled images, whichever is drawn first.
            count = _count(wanted, open_images)
            _move(split, labels, TRAIN, part, count, generator(seed, "split", part), leave_one=True)
    amount = config.labelled_amount
    if amount is not None:
        pool = int((split == TRAIN).sum())
        count = min(pool, _count(amount, pool))
        _move(
            split,
            labels,
            TRAIN,
            UNLABELLED,
            pool - count,
            generator(seed, "split", "labelled"),
            leave_one=True,
        )
    _check(split)
    return split


def is_drawn(part: int, given: Sequence[Split | None]) -> bool:
    """Whether ``draw_splits`` draws validation or test (``part``) itself: the source gives no image of it."""
    return SPLITS[part] not in given


def thin_heap(split: npt.NDArray[np.int8], amount: float | None, seed: int) -> Indices:
    """Ids of the unlabelled images that ``data.unlabelled`` leaves out, drawn without looking at any.

    ``split`` is (images,).
    """
    heap = np.flatnonzero(split == UNLABELLED)
    if amount is None:
        return heap[:0]
    order = generator(seed, "split", "heap").permutation(heap)
    return np.sort(order[_count(amount, len(heap)) :])


def flip_labels(labels: LabelArray, terminals: LabelArray, share: float, seed: int) -> LabelArray:
    """Replace ``share`` of the labels by another terminal label, evenly drawn: label noise for studies.

    A label that every other one agrees with, since all that is known of it is a class above them, stays as it is.

    ``labels`` are (images, levels), ``terminals`` all terminal labels, (terminals, levels)."""
    noisy = labels.copy()
    random = generator(seed, "label noise")
    # Another label contradicts what is known of this one: a level nobody named could be anything.
    different, of_row = np.unique(labels, axis=0, return_inverse=True)
    others = [np.flatnonzero(((terminals != row) & (row != UNKNOWN)).any(axis=1)) for row in different]
    can_be_wrong = np.array([len(each) > 0 for each in others])[of_row.reshape(-1)]
    order = random.permutation(len(labels))
    chosen = order[can_be_wrong[order]][: round(share * int(can_be_wrong.sum()))]
    for row in np.sort(chosen):
        noisy[row] = terminals[random.choice(others[of_row.reshape(-1)[row]])]
    return noisy


def _count(amount: float, total: int) -> int:
    return round(amount * total) if amount < 1 else round(amount)


def _move(
    split: npt.NDArray[np.int8],
    labels: LabelArray,
    source: int,
    target: int,
    count: int,
    random: np.random.Generator,
    *,
    leave_one: bool,
) -> None:
    """Move ``count`` images from one split to another, in proportion to the classes' sizes."""
    pool = np.flatnonzero(split == source)
    if count > len(pool):
        raise DataError(
            f"the {SPLITS[target]} split wants {count} images, only {len(pool)} are left: lower data.{SPLITS[target]}"
        )
    _, group = np.unique(labels[pool], axis=0, return_inverse=True)
    group = group.reshape(-1)
    sizes = np.bincount(group)
    for c, quota in enumerate(_quotas(sizes, count, leave_one)):
        members = random.permutation(pool[group == c])
        split[members[:quota]] = target


def _quotas(sizes: Indices, count: int, leave_one: bool) -> Indices:
    """Share ``count`` among groups in proportion to their sizes, by largest remainders; one image stays if it can."""
    room = sizes - 1 if leave_one and count <= int((sizes - 1).sum()) else sizes
    exact = room * (count / max(1, room.sum()))
    quotas: Indices = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - quotas), kind="stable")
    for c in order:
        if quotas.sum() == count:
            break
        quotas[c] += int(quotas[c] < room[c])
    return quotas


def _check(split: npt.NDArray[np.int8]) -> None:
    for part, name in ((TRAIN, "labelled"), (VALIDATION, "validation"), (TEST, "test")):
        if not (split == part).any():
            raise DataError(f"there is no {name} image: label more images, or set data.{name} higher")
