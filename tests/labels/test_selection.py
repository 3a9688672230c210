"""How deep a pseudo-label goes, and how often its image is shown. Golden numbers of DESIGN 10."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.config.schema import PseudolabelConfig
from nstudent.labels.selection import (
    Selection,
    balanced_shares,
    deep_enough,
    kept_confidence,
    reaching,
    select,
    threshold_grid,
)
from nstudent.randomness import Key, generator
from nstudent.storage.hdf5 import mapped

KEY = (0, "pseudolabel", 1)


def balanced_share(confidence: np.ndarray, wanted: int, floor: float, max_copies: float) -> tuple[float, float]:
    """(threshold, copies) of a class that is the only one."""
    grid = threshold_grid(floor)
    counts = reaching(np.zeros(len(confidence), np.int32), confidence, grid, 1)
    (threshold,), (copies,) = balanced_shares(counts[:, :-1], grid, wanted, max_copies)
    return threshold, copies


@pytest.mark.parametrize(
    ("confidence", "threshold", "copies"),
    [
        ([0.99, 0.985, 0.97, 0.9, 0.9, 0.5, 0.31], 0.90, 0.8),
        ([0.8, 0.4, 0.2], 0.30, 2.0),
        ([0.99, 0.98, 0.97, 0.96, 0.955], 0.95, 0.8),
        ([0.2, 0.1], 0.30, 4.0),  # nobody is sure enough: the copies of nobody
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_golden_balancing(confidence: list[float], threshold: float, copies: float, dtype: type[np.generic]) -> None:
    found = balanced_share(np.array(confidence, dtype), 4, 0.3, 4.0)

    assert found == pytest.approx((threshold, copies), abs=1e-9)


def test_order_does_not_matter() -> None:
    shuffled = np.array([0.9, 0.31, 0.985, 0.5, 0.99, 0.9, 0.97])

    assert balanced_share(shuffled, 4, 0.3, 4.0) == pytest.approx((0.9, 0.8))


def test_copies_are_capped() -> None:
    assert balanced_share(np.array([0.99]), 100, 0.3, 4.0)[1] == 4.0


def test_a_floor_above_the_grid_is_respected() -> None:
    assert balanced_share(np.array([0.999, 0.98, 0.9]), 3, 0.97, 4.0) == pytest.approx((0.97, 1.5))


# --- depth ------------------------------------------------------------------------------------------------------------


def test_a_doubtful_level_hides_what_is_below_it() -> None:
    confidence = np.array([[0.9, 0.9, 0.9], [0.9, 0.9, 0.5], [0.9, 0.5, 0.9], [0.5, 0.9, 0.9]], np.float32)

    assert deep_enough(confidence, 0.7).astype(int).tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_every_level_may_have_its_own_threshold() -> None:
    confidence = np.array([[0.75, 0.65, 0.55], [0.75, 0.55, 0.55], [0.65, 0.65, 0.55]], np.float32)

    assert deep_enough(confidence, (0.7, 0.6, 0.5)).astype(int).tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_the_threshold_itself_is_enough() -> None:
    assert deep_enough(np.array([[0.6, 0.6]], np.float32), 0.6).all()


def test_an_absent_level_is_never_kept() -> None:
    """Its confidence is 0, and so may the threshold be."""
    confidence = np.array([[0.9, 0.0, 0.0]], np.float32)

    assert deep_enough(confidence, 0.0).tolist() == [[True, False, False]]


def test_the_confidence_of_a_row_is_that_of_its_deepest_kept_level() -> None:
    confidence = np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.2], [0.9, 0.1, 0.2], [0.1, 0.1, 0.1]], np.float32)

    assert kept_confidence(confidence, deep_enough(confidence, 0.5)).tolist() == pytest.approx([0.7, 0.8, 0.9, 0])


# --- the selection ----------------------------------------------------------------------------------------------------


def selected(
    terminal: list[int] | np.ndarray,
    sure: list[float] | np.ndarray,
    key: Key = KEY,
    keep: np.ndarray | None = None,
    **options: Any,
) -> Selection:
    confidence = np.repeat(np.asarray(sure, np.float32)[:, None], 2, axis=1)
    keep = deep_enough(confidence, 0.3) if keep is None else keep
    sure = kept_confidence(confidence, keep)
    return select(np.asarray(terminal, np.int32), sure, keep, PseudolabelConfig(**options), key)


def test_without_balance_every_kept_image_is_shown_once() -> None:
    found = selected([0, 0, 1, 1], [0.9, 0.1, 0.4, 0.2], balance=False)

    assert found.copies.tolist() == [1, 0, 1, 0]


def test_copies_bring_every_class_to_the_same_size() -> None:
    """300, 100 and 50 images that are all sure: each class is to have the mean, 150."""
    terminal = np.repeat([0, 1, 2], [300, 100, 50])

    sums = np.array(
        [
            [selected(terminal, np.full(450, 0.99), key=(seed,)).copies[terminal == c].sum(dtype=int) for c in range(3)]
            for seed in range(40)
        ]
    )

    assert np.allclose(sums.mean(axis=0), 150, atol=4)
    assert (np.abs(sums - 150) < 45).all()


def test_fractional_copies_are_rounded_up_or_down_only() -> None:
    found = selected(np.zeros(200, int), np.full(200, 0.99), images_per_class=250)

    assert set(found.copies.tolist()) == {1, 2}
    assert found.copies.mean() == pytest.approx(1.25, abs=0.1)


def test_whole_copies_need_no_luck() -> None:
    found = selected(np.zeros(50, int), np.full(50, 0.99), images_per_class=100)

    assert found.copies.tolist() == [2] * 50


def test_copies_are_capped_in_the_selection() -> None:
    found = selected([0] * 90 + [1], [0.99] * 91, images_per_class=90, max_copies=3)

    assert found.copies[-1] == 3


def test_the_least_sure_of_a_large_class_are_left_out() -> None:
    sure = np.linspace(0.4, 0.999, 200)

    found = selected(np.zeros(200, int), sure, images_per_class=20)

    assert not found.copies[sure < 0.9].any()
    assert found.copies[sure > 0.95].any()


def test_images_below_the_floor_are_not_shown() -> None:
    confidence = np.array([0.35, 0.45, 0.99])

    found = selected([0, 0, 0], confidence, confidence_floor=0.4, images_per_class=10)

    assert (found.copies > 0).tolist() == [False, True, True]


def test_an_image_of_which_nothing_is_kept_is_not_shown() -> None:
    keep = np.array([[True, True], [False, False]])

    assert selected([0, 0], [0.99, 0.99], keep=keep, images_per_class=2).copies[1] == 0


def test_the_key_decides_the_rounding_and_nothing_else() -> None:
    terminal = np.repeat([0, 1], [70, 30])
    draw = lambda key: selected(terminal, np.full(100, 0.99), key=key).copies.tolist()  # noqa: E731

    assert draw((1,)) == draw((1,))
    assert draw((1,)) != draw((2,))


def test_nothing_kept_selects_nothing() -> None:
    found = selected([0, 1, 2], [0.1, 0.1, 0.2])

    assert found.copies.tolist() == [0, 0, 0]
    assert not found.keep.any()


# --- many rows and many classes ---------------------------------------------------------------------------------------


def class_by_class(
    terminal: np.ndarray, sure: np.ndarray, keep: np.ndarray, config: PseudolabelConfig, key: tuple[int, ...]
) -> np.ndarray:
    """What ``select`` is to give, written down one class after the other, each sorted."""
    eligible = keep.any(axis=1)
    groups = np.unique(terminal[eligible])
    wanted = config.images_per_class or max(1, round(int(eligible.sum()) / max(1, len(groups))))
    grid = np.append(np.arange(0.95, config.confidence_floor + 0.025, -0.05), config.confidence_floor)
    exact = np.zeros(len(terminal))
    for group in groups:
        rows = np.flatnonzero(eligible & (terminal == group))
        ordered = np.sort(sure[rows])
        counts = len(ordered) - np.searchsorted(ordered, grid - 1e-5)
        enough = np.flatnonzero(counts >= wanted)
        chosen = int(enough[0]) if len(enough) else len(grid) - 1
        copies = min(config.max_copies, wanted / max(1, int(counts[chosen])))
        exact[rows[sure[rows] >= float(grid[chosen]) - 1e-5]] = copies
    return np.floor(exact + generator(*key, "copies").random(len(exact))).astype(int)


@settings(max_examples=150, deadline=None, database=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(0, 400),
    classes=st.integers(1, 40),
    floor=st.sampled_from([0.0, 0.3, 0.31, 0.9, 0.97, 1.0]),
    wanted=st.sampled_from([None, 1, 7, 60]),
    max_copies=st.sampled_from([1.0, 2.5, 4.0, 300.0]),
    on_the_grid=st.booleans(),
)
def test_all_classes_at_once_is_each_class_by_itself(
    seed: int, rows: int, classes: int, floor: float, wanted: int | None, max_copies: float, on_the_grid: bool
) -> None:
    random = np.random.default_rng(seed)
    confidence = random.random((rows, 3)).astype(np.float32) ** np.float32(0.3)
    if on_the_grid:
        confidence = (np.round(confidence * 20) / 20).astype(np.float32)
    keep = deep_enough(confidence, 0.4)
    terminal = (random.random(rows) ** 2 * classes).astype(np.int32)
    options = {"images_per_class": wanted, "confidence_floor": floor, "max_copies": max_copies}
    config, sure = PseudolabelConfig(**options), kept_confidence(confidence, keep)

    found = select(terminal, sure, keep, config, (seed,))

    assert found.copies.tolist() == class_by_class(terminal, sure, keep, config, (seed,)).tolist()


def test_many_rows_are_walked_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    sure, terminal = random.random(1000), random.integers(0, 9, 1000)
    whole = selected(terminal, sure).copies

    monkeypatch.setattr("nstudent.labels.selection._ROWS_AT_ONCE", 7)

    assert np.array_equal(selected(terminal, sure).copies, whole)


@pytest.mark.parametrize(("max_copies", "dtype"), [(4, np.uint8), (254, np.uint8), (1000, np.int32)])
def test_copies_are_stored_in_the_smallest_type_that_holds_them(
    tmp_path: Path, max_copies: int, dtype: type[np.generic]
) -> None:
    made = selected([0] * 2000 + [1], [0.99] * 2001, images_per_class=2000, max_copies=max_copies)
    made.save(tmp_path)

    found = mapped(tmp_path / "selection.h5")

    assert found["copies"].dtype == dtype
    assert found["copies"][-1] == max_copies
    assert found["keep"].dtype == np.uint8
