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
from nstudent.taxonomy.tree import Taxonomy
from trees import outputs_of

KEY = (0, "pseudolabel", 1)
FLAT = outputs_of(1, 3).taxonomy
"""One coarse class with three fine ones: fine class and terminal have the same number."""
BALANCED = PseudolabelConfig(balance=True, threshold=0.6)


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
    return select(
        np.asarray(terminal, np.int32),
        sure,
        keep,
        FLAT,
        PseudolabelConfig(**{"balance": True, "threshold": 0.3} | options),
        key,
    )


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

    found = selected([0, 0, 0], confidence, threshold=0.0, confidence_floor=0.4, images_per_class=10)

    assert (found.copies > 0).tolist() == [False, True, True]


def test_a_threshold_is_the_floor_where_it_is_lower() -> None:
    """An image of .29 would be shown with the class above: at .35 it cannot be left out."""
    found = selected([0, 0, 0], np.array([0.35, 0.45, 0.99]), confidence_floor=0.4, images_per_class=10)

    assert (found.copies > 0).all()


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


def shares(
    members: dict[tuple[int, ...], list[float]], config: PseudolabelConfig, node: tuple[int, ...], *more: float
) -> tuple[float, float]:
    """(threshold, copies) of a node, from the confidence of its images and of some more that join them."""
    depth_mates = {path: [*found, *(more if path == node else ())] for path, found in members.items()}
    depth_mates.setdefault(node, [*more])
    sizes = [len(found) for path, found in depth_mates.items() if len(path) == len(node) and found]
    wanted = config.images_per_class or max(1, round(sum(sizes) / max(1, len(sizes))))
    floor = min(config.confidence_floor, float(np.max(config.threshold)))
    grid = np.append(np.arange(0.95, floor + 0.025, -0.05), floor)
    counts = [sum(sure >= least - 1e-5 for sure in depth_mates[node]) for least in grid]
    chosen = next((i for i, count in enumerate(counts) if count >= wanted), len(grid) - 1)
    return float(grid[chosen]), min(config.max_copies, wanted / max(1, counts[chosen]))


def node_by_node(
    terminal: np.ndarray, sure: np.ndarray, keep: np.ndarray, tree: Taxonomy, config: PseudolabelConfig, key: Key
) -> np.ndarray:
    """What ``select`` is to give, written down one image after the other."""
    members: dict[tuple[int, ...], list[float]] = {}
    nodes = [tree.terminals[t][:depth] for t, depth in zip(terminal, keep.sum(axis=1), strict=True)]
    for node, confidence in zip(nodes, sure, strict=True):
        if node:
            members.setdefault(node, []).append(float(confidence))
    exact = np.zeros(len(terminal))
    entry = float(np.max(config.threshold))
    for row, node in enumerate(nodes):
        if not node:
            continue
        threshold, copies = shares(members, config, node)
        exact[row] = copies if sure[row] >= np.float32(threshold - 1e-5) else 0.0
        path = tree.terminals[terminal[row]]
        for depth in range(len(node) + 1, sum(c >= 0 for c in path) + 1):
            threshold, copies = shares(members, config, path[:depth], entry)
            exact[row] = min(exact[row], copies if entry >= threshold - 1e-5 else 0.0)
    return np.floor(exact + generator(*key, "copies").random(len(exact))).astype(int)


# Terminals: three of depth 3, one of depth 2, one of depth 1.
MIXED = Taxonomy.from_labels(
    [("A", "k", "a"), ("A", "k", "b"), ("A", "l", "c"), ("A", "m", "-"), ("B", "-", "-")], ("coarse", "mid", "fine")
)
SITUATIONS = {
    "seed": st.integers(0, 10_000),
    "rows": st.integers(1, 120),
    "floor": st.sampled_from([0.0, 0.3, 0.31, 0.6]),
    "threshold": st.sampled_from([0.3, 0.6, 0.62, 0.9]),
    "wanted": st.sampled_from([None, 1, 7, 60]),
    "max_copies": st.sampled_from([1.0, 2.5, 4.0, 300.0]),
    "on_the_grid": st.booleans(),
}


def situation(
    seed: int,
    rows: int,
    floor: float,
    threshold: float,
    wanted: int | None,
    max_copies: float,
    on_the_grid: bool,
) -> tuple[np.ndarray, np.ndarray, PseudolabelConfig]:
    """Terminals of ``MIXED``, confidence (rows, 3) that falls along the path, and how both are to be balanced."""
    random = np.random.default_rng(seed)
    terminal = (random.random(rows) ** 2 * len(MIXED.terminals)).astype(np.int32)
    confidence = np.cumprod(random.random((rows, 3)).astype(np.float32) ** np.float32(0.2), axis=1)
    if on_the_grid:
        confidence = (np.round(confidence * 20) / 20).astype(np.float32)
    confidence[MIXED.terminal_rows[terminal] < 0] = 0.0
    options = {"images_per_class": wanted, "confidence_floor": floor, "max_copies": max_copies, "threshold": threshold}
    return terminal, confidence, PseudolabelConfig(balance=True, **options)


def copies_of(terminal: np.ndarray, confidence: np.ndarray, config: PseudolabelConfig, key: Key = KEY) -> np.ndarray:
    keep = deep_enough(confidence, config.threshold)
    return select(terminal, kept_confidence(confidence, keep), keep, MIXED, config, key).copies.astype(int)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, database=None)
@given(**SITUATIONS)
def test_all_nodes_at_once_is_each_image_by_itself(**drawn: Any) -> None:
    terminal, confidence, config = situation(**drawn)
    keep = deep_enough(confidence, config.threshold)
    sure = kept_confidence(confidence, keep)

    expected = node_by_node(terminal, sure, keep, MIXED, config, KEY)

    assert copies_of(terminal, confidence, config).tolist() == expected.tolist()


@pytest.mark.slow
@settings(max_examples=300, deadline=None, database=None)
@given(**SITUATIONS, chosen=st.integers(0, 1000), raised=st.floats(0, 1))
def test_the_copies_of_an_image_never_fall_as_its_fine_confidence_rises(
    chosen: int, raised: float, **drawn: Any
) -> None:
    terminal, confidence, config = situation(**drawn)
    row = chosen % len(terminal)
    level = int((MIXED.terminal_rows[terminal[row]] >= 0).sum()) - 1
    surer = confidence.copy()
    surer[row, level] += np.float32(raised) * (1 - surer[row, level])

    before, after = (copies_of(terminal, each, config)[row] for each in (confidence, surer))

    assert after >= before


def test_a_doubtful_image_never_stands_in_for_a_sure_one() -> None:
    """Class 0: 60 images are sure down to the fine level at .75, and the fine level of 60 others is doubted."""
    tree = outputs_of(1, 2).taxonomy
    terminal = np.repeat([0, 0, 1], [60, 60, 60]).astype(np.int32)
    fine = np.repeat([0.75, 0.4, 0.99], 60)
    confidence = np.stack([np.full(180, 0.97), fine], axis=1).astype(np.float32)
    keep = deep_enough(confidence, 0.6)

    copies = select(terminal, kept_confidence(confidence, keep), keep, tree, BALANCED, KEY).copies

    assert (copies[:60] == 1).all()
    assert (copies[120:] == 1).all()


def test_each_depth_has_an_aim_of_its_own() -> None:
    """200 images that are cut short do not raise what a fine class is to have: the mean of 10 and 30."""
    tree = outputs_of(1, 2).taxonomy
    terminal = np.repeat([0, 1, 0], [10, 30, 200]).astype(np.int32)
    confidence = np.stack([np.full(240, 0.97), np.repeat([0.99, 0.99, 0.2], [10, 30, 200])], axis=1).astype(np.float32)
    keep = deep_enough(confidence, 0.6)

    copies = select(terminal, kept_confidence(confidence, keep), keep, tree, BALANCED, KEY).copies

    assert (copies[:10] == 2).all()
    assert copies[10:40].sum(dtype=int) == pytest.approx(20, abs=8)


def test_images_of_which_nothing_is_kept_raise_no_aim() -> None:
    """20 images of the one coarse class are what it is to have, whatever the 100 others are."""
    tree = outputs_of(1, 2).taxonomy
    terminal = np.repeat([0, 0, 0, 1], [20, 100, 2, 58]).astype(np.int32)
    coarse = np.repeat([0.97, 0.1, 0.97], [20, 100, 60])
    confidence = np.stack([coarse, np.repeat([0.2, 0.1, 0.99], [20, 100, 60])], axis=1).astype(np.float32)
    keep = deep_enough(confidence, 0.6)

    copies = select(terminal, kept_confidence(confidence, keep), keep, tree, BALANCED, KEY).copies

    assert (copies[:20] == 1).all()
    assert not copies[20:120].any()


def test_an_image_is_not_shown_for_its_coarse_class_if_its_fine_class_has_more_than_enough() -> None:
    tree = outputs_of(1, 2).taxonomy
    terminal = np.repeat([0, 0, 1], [90, 30, 10]).astype(np.int32)
    fine = np.repeat([0.99, 0.2, 0.99], [90, 30, 10])
    confidence = np.stack([np.full(130, 0.97), fine], axis=1).astype(np.float32)
    keep = deep_enough(confidence, 0.6)
    config = BALANCED.model_copy(update={"images_per_class": 20})

    copies = select(terminal, kept_confidence(confidence, keep), keep, tree, config, KEY).copies

    assert not copies[90:120].any(), "an image that is just sure enough of the fine class would not be shown either"
    assert (copies[120:] == 2).all()


def test_many_rows_are_walked_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    sure, terminal = random.random(1000), random.integers(0, 3, 1000)
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
