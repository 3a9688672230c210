"""Folds: every image in one, classes in proportion, copies together, whatever the order of the files."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nstudent.data.curation.folds import draw_folds
from nstudent.errors import DataError

counts = st.integers(2, 7)


@st.composite
def images(draw: st.DrawFn, copies: int = 1) -> tuple[list[str], np.ndarray, list[bytes]]:
    """Names, labels and groups of some images, in no order; ``copies``: the most that a group has."""
    sizes = draw(st.lists(st.integers(1, copies), min_size=7, max_size=60))
    classes = draw(st.lists(st.integers(0, 4), min_size=len(sizes), max_size=len(sizes)))
    rows = [(group, label) for group, (size, label) in enumerate(zip(sizes, classes, strict=True)) for _ in range(size)]
    rows = draw(st.permutations(rows))
    labels = np.array([[label % 2, label] for _, label in rows], dtype=np.int32)
    names = [f"{number}.png" for number in draw(st.permutations(range(len(rows))))]
    return names, labels, [str(group).encode() for group, _ in rows]


def spread(numbers: list[int], count: int) -> int:
    """By how many images the largest and the smallest fold differ."""
    sizes = np.bincount(numbers, minlength=count)
    return int(sizes.max() - sizes.min())


@given(images(), counts)
def test_every_image_is_in_one_fold_and_folds_differ_by_one_image_in_all_and_in_each_class(
    found: tuple[list[str], np.ndarray, list[bytes]], count: int
) -> None:
    names, labels, groups = found
    folds = draw_folds(names, labels, groups, count, seed=0)
    assert folds.shape == (len(names),)
    assert set(folds.tolist()) == set(range(count))
    assert spread(folds.tolist(), count) <= 1
    for label in np.unique(labels, axis=0):
        assert spread(folds[(labels == label).all(axis=1)].tolist(), count) <= 1


@given(images(copies=4), counts)
def test_images_of_a_group_stay_together_and_are_all_that_folds_differ_by(
    found: tuple[list[str], np.ndarray, list[bytes]], count: int
) -> None:
    names, labels, groups = found
    folds = draw_folds(names, labels, groups, count, seed=0)
    assert folds.min() >= 0
    together = defaultdict(set)
    for group, fold in zip(groups, folds.tolist(), strict=True):
        together[group].add(fold)
    assert {len(seen) for seen in together.values()} == {1}
    for label in np.unique(labels, axis=0):
        rows = np.flatnonzero((labels == label).all(axis=1))
        largest = max(Counter(groups[row] for row in rows).values())
        assert spread(folds[rows].tolist(), count) <= largest


@given(images(copies=3), counts, st.randoms(use_true_random=False))
def test_the_order_of_the_files_plays_no_part(
    found: tuple[list[str], np.ndarray, list[bytes]], count: int, random: object
) -> None:
    names, labels, groups = found
    order = list(range(len(names)))
    random.shuffle(order)  # type: ignore[attr-defined]
    before = dict(zip(names, draw_folds(names, labels, groups, count, seed=3).tolist(), strict=True))
    mixed = [names[i] for i in order]
    after = draw_folds(mixed, labels[order], [groups[i] for i in order], count, seed=3)
    assert dict(zip(mixed, after.tolist(), strict=True)) == before


@given(images(copies=3), counts)
def test_the_numbers_of_the_classes_and_the_names_of_the_groups_play_no_part(
    found: tuple[list[str], np.ndarray, list[bytes]], count: int
) -> None:
    """A class that is found first has another index, and a digest of another kind is another string."""
    names, labels, groups = found
    folds = draw_folds(names, labels, groups, count, seed=0)
    assert np.array_equal(folds, draw_folds(names, 9 - labels, [b"x" + group for group in groups], count, seed=0))


def test_the_seed_decides() -> None:
    names, labels = [f"{i}.png" for i in range(40)], np.zeros((40, 1), dtype=np.int32)
    groups = [name.encode() for name in names]
    drawn = [draw_folds(names, labels, groups, 4, seed).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert len(set(drawn[0][:8])) > 1, "neighbours are not all in one fold"


def test_golden_folds_of_two_classes_and_a_pair_of_copies() -> None:
    names = [*"abcdefgh"]
    labels = np.array([[0]] * 5 + [[1]] * 3, dtype=np.int32)
    groups = [b"a", b"a", b"c", b"d", b"e", b"f", b"g", b"h"]
    folds = draw_folds(names, labels, groups, 2, seed=0)
    assert folds[0] == folds[1]
    assert sorted(np.bincount(folds[:5])) == [2, 3]
    assert sorted(np.bincount(folds)) == [4, 4], "what one class has too many of, the other makes up for"


def test_fewer_images_than_folds_are_refused() -> None:
    labels = np.zeros((3, 1), dtype=np.int32)
    with pytest.raises(DataError, match=r"data\.folds=3 wants at least 3 different labelled images: there are 2"):
        draw_folds(["a", "b", "c"], labels, [b"x", b"x", b"y"], 3, seed=0)


@pytest.mark.parametrize(
    ("seed", "expected"), [(0, [2, 2, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2]), (1, [1, 0, 2, 2, 0, 1, 1, 0, 2, 2, 0, 1])]
)
def test_the_folds_of_a_seed_stay_what_they_are(seed: int, expected: list[int]) -> None:
    """A run that is made again by another version, or on another machine, divides its images alike."""
    names = [f"{number}.png" for number in range(12)]
    labels = np.array([[number % 2] for number in range(12)], dtype=np.int32)
    assert draw_folds(names, labels, [name.encode() for name in names], 3, seed).tolist() == expected
