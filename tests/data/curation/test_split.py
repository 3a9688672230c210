"""Who is trained on, chosen by and looked at: sizes, proportions and seeds."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.config.schema import DataConfig
from nstudent.data.curation.split import TEST, TRAIN, UNLABELLED, VALIDATION, draw_splits, flip_labels, thin_heap
from nstudent.errors import DataError
from nstudent.taxonomy.tree import UNKNOWN

TERMINALS = np.array([[0, 0, 0], [0, 0, 1], [0, 1, -1], [1, -1, -1]], dtype=np.int32)


def labels_of(sizes: list[int]) -> np.ndarray:
    """So many images of each terminal label, mixed."""
    rows = np.repeat(TERMINALS[: len(sizes)], sizes, axis=0)
    return rows[np.random.default_rng(0).permutation(len(rows))]


def draw(labels: np.ndarray, seed: int = 0, given: list[str | None] | None = None, **options: Any) -> np.ndarray:
    return draw_splits(labels, given or [None] * len(labels), DataConfig(**options), seed)


def count(split: np.ndarray) -> list[int]:
    return [int((split == part).sum()) for part in (TRAIN, VALIDATION, TEST, UNLABELLED)]


def count_by_class(labels: np.ndarray, chosen: np.ndarray | slice) -> list[int]:
    return [int((labels[chosen] == row).all(axis=1).sum()) for row in TERMINALS]


def test_shares_are_of_all_labelled_images() -> None:
    split = draw(labels_of([400, 300, 200, 100]), validation=0.1, test=0.2, labelled=100)

    assert count(split) == [100, 100, 200, 600]


def test_amounts_from_one_on_are_numbers_of_images() -> None:
    split = draw(labels_of([40, 30, 20, 10]), validation=7, test=13, labelled=None)

    assert count(split) == [80, 7, 13, 0]


def test_labelled_below_one_is_a_share_of_what_is_left() -> None:
    split = draw(labels_of([40, 30, 20, 10]), validation=10, test=10, labelled=0.25)

    assert count(split) == [20, 10, 10, 60]


@pytest.mark.parametrize("part", [TRAIN, VALIDATION, TEST, UNLABELLED])
def test_every_split_has_the_classes_in_proportion(part: int) -> None:
    labels = labels_of([400, 300, 200, 100])

    split = draw(labels, validation=0.1, test=0.2, labelled=0.5)

    shares = np.array(count_by_class(labels, split == part)) / (split == part).sum()
    assert np.allclose(shares, [0.4, 0.3, 0.2, 0.1], atol=0.02)


def test_the_seed_decides_and_nothing_else() -> None:
    labels = labels_of([40, 30, 20, 10])

    assert np.array_equal(draw(labels, seed=3), draw(labels, seed=3))
    assert not np.array_equal(draw(labels, seed=3), draw(labels, seed=4))


def test_an_only_image_of_its_class_stays_in_train() -> None:
    labels = labels_of([60, 38, 1, 1])

    for seed in range(5):
        split = draw(labels, seed=seed, validation=0.2, test=0.2, labelled=10)
        assert count_by_class(labels, split == TRAIN)[2:] == [1, 1]


def test_the_splits_of_the_source_are_kept() -> None:
    labels = labels_of([20, 20])
    given = ["test"] * 5 + ["validation"] * 5 + ["unlabelled"] * 5 + ["train"] * 25

    split = draw(labels, given=given, labelled=None)

    assert split.tolist() == [TEST] * 5 + [VALIDATION] * 5 + [UNLABELLED] * 5 + [TRAIN] * 25


def test_only_what_the_source_lacks_is_drawn() -> None:
    labels = labels_of([50, 50])
    given = ["test"] * 20 + ["train"] * 80

    split = draw(labels, given=given, validation=0.25, labelled=30)

    assert np.array_equal(split == TEST, np.arange(100) < 20)
    assert count(split) == [30, 20, 20, 30]


def test_images_without_a_label_join_the_heap() -> None:
    labels = labels_of([20, 20])
    labels[:7] = -2

    split = draw(labels, labelled=None, validation=5, test=5)

    assert (split[:7] == UNLABELLED).all()
    assert count(split) == [23, 5, 5, 7]


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_held_out_image_without_a_label_is_refused(part: str) -> None:
    labels = labels_of([20])
    labels[0] = -2

    with pytest.raises(DataError, match="no label"):
        draw(labels, given=[part] + [None] * 19, labelled=None)


def test_more_than_there_is_names_the_key() -> None:
    with pytest.raises(DataError, match=r"data\.test"):
        draw(labels_of([10]), test=11, labelled=None)


def test_an_empty_validation_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.validation"):
        draw(labels_of([10]), validation=0.01, test=2, labelled=None)


@settings(max_examples=60, deadline=None, database=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    validation=st.integers(1, 8),
    test=st.integers(1, 8),
    labelled=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_any_division_is_complete_and_of_the_sizes_asked_for(
    sizes: list[int], validation: int, test: int, labelled: int, seed: int
) -> None:
    labels = labels_of(sizes)
    total = sum(sizes)
    if total <= validation + test:
        with pytest.raises(DataError):
            draw(labels, seed=seed, validation=validation, test=test, labelled=labelled)
        return

    split = draw(labels, seed=seed, validation=validation, test=test, labelled=labelled)

    left = total - validation - test
    assert count(split) == [min(labelled, left), validation, test, max(0, left - labelled)]


def test_a_label_that_nothing_contradicts_is_not_flipped() -> None:
    """All labels lie below one coarse class, and of some nobody knows more than that."""
    terminals = np.array([[0, 0], [0, 1]], dtype=np.int32)
    labels = np.array([[0, 0], [0, 1], [0, UNKNOWN], [0, 0], [0, UNKNOWN], [UNKNOWN, UNKNOWN]], dtype=np.int32)
    for seed in range(5):
        noisy = flip_labels(labels, terminals, 1.0, seed)
        assert (noisy[[2, 4, 5]] == labels[[2, 4, 5]]).all()
        assert (noisy[[0, 1, 3], 1] == 1 - labels[[0, 1, 3], 1]).all()


# --- the heap ---------------------------------------------------------------------------------------------------------

HEAP = np.array([TRAIN, UNLABELLED, UNLABELLED, TEST] * 50, dtype=np.int8)


@pytest.mark.parametrize(("amount", "kept"), [(None, 100), (30, 30), (0.25, 25), (1000, 100)])
def test_the_heap_is_thinned_to_the_amount(amount: float | None, kept: int) -> None:
    left_out = thin_heap(HEAP, amount, seed=0)

    assert len(left_out) == len(set(left_out.tolist())) == 100 - kept
    assert (HEAP[left_out] == UNLABELLED).all()


def test_a_larger_heap_holds_the_smaller_one() -> None:
    small, large = (set(thin_heap(HEAP, amount, seed=0).tolist()) for amount in (20, 60))

    assert large < small


def test_thinning_is_seeded() -> None:
    assert np.array_equal(thin_heap(HEAP, 30, seed=1), thin_heap(HEAP, 30, seed=1))
    assert not np.array_equal(thin_heap(HEAP, 30, seed=1), thin_heap(HEAP, 30, seed=2))


# --- label noise ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 1.0])
def test_exactly_the_share_is_flipped_and_never_to_itself(share: float) -> None:
    labels = labels_of([40, 30, 20, 10])

    noisy = flip_labels(labels, TERMINALS, share, seed=0)

    assert (noisy != labels).any(axis=1).sum() == round(100 * share)
    assert {tuple(row) for row in noisy.tolist()} <= {tuple(row) for row in TERMINALS.tolist()}


def test_flipped_labels_are_spread_over_the_other_classes() -> None:
    noisy = flip_labels(np.repeat(TERMINALS[:1], 300, axis=0), TERMINALS, 1.0, seed=0)

    assert count_by_class(noisy, slice(None))[0] == 0
    assert min(count_by_class(noisy, slice(None))[1:]) > 70


def test_label_noise_is_seeded_and_leaves_the_truth_alone() -> None:
    labels = labels_of([40, 30])
    before = labels.copy()

    first, again, other = (flip_labels(labels, TERMINALS, 0.3, seed=seed) for seed in (1, 1, 2))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(labels, before)


def test_a_flipped_label_contradicts_what_was_known() -> None:
    """Where only the coarse class is known, another label under the same one would not be wrong."""
    terminals = np.array([[0, 0], [0, 1], [1, 2]], dtype=np.int32)
    labels = np.array([[0, -2]] * 20, dtype=np.int32)

    assert np.array_equal(flip_labels(labels, terminals, 1.0, seed=0), np.array([[1, 2]] * 20))
