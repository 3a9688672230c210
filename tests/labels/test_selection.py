"""How deep a pseudo-label goes, and how often its image is shown. Golden numbers of DESIGN 10."""

import numpy as np
import pytest
from nstudent.config import PseudolabelConfig
from nstudent.labels.selection import balanced_share, deep_enough, kept_confidence, select

KEY = (0, "pseudolabel", 1)


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
def test_golden_balancing(confidence, threshold, copies, dtype):
    found = balanced_share(np.array(confidence, dtype), 4, 0.3, 4.0)

    assert found == pytest.approx((threshold, copies), abs=1e-9)


def test_order_does_not_matter():
    shuffled = np.array([0.9, 0.31, 0.985, 0.5, 0.99, 0.9, 0.97])

    assert balanced_share(shuffled, 4, 0.3, 4.0) == pytest.approx((0.9, 0.8))


def test_copies_are_capped():
    assert balanced_share(np.array([0.99]), 100, 0.3, 4.0)[1] == 4.0


def test_a_floor_above_the_grid_is_respected():
    assert balanced_share(np.array([0.999, 0.98, 0.9]), 3, 0.97, 4.0) == pytest.approx((0.97, 1.5))


# --- depth ------------------------------------------------------------------------------------------------------------


def test_a_doubtful_level_hides_what_is_below_it():
    confidence = np.array([[0.9, 0.9, 0.9], [0.9, 0.9, 0.5], [0.9, 0.5, 0.9], [0.5, 0.9, 0.9]], np.float32)

    assert deep_enough(confidence, 0.7).astype(int).tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_every_level_may_have_its_own_threshold():
    confidence = np.array([[0.75, 0.65, 0.55], [0.75, 0.55, 0.55], [0.65, 0.65, 0.55]], np.float32)

    assert deep_enough(confidence, (0.7, 0.6, 0.5)).astype(int).tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_the_threshold_itself_is_enough():
    assert deep_enough(np.array([[0.6, 0.6]], np.float32), 0.6).all()


def test_an_absent_level_is_never_kept():
    """Its confidence is 0, and so may the threshold be."""
    confidence = np.array([[0.9, 0.0, 0.0]], np.float32)

    assert deep_enough(confidence, 0.0).tolist() == [[True, False, False]]


def test_the_confidence_of_a_row_is_that_of_its_deepest_kept_level():
    confidence = np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.2], [0.9, 0.1, 0.2], [0.1, 0.1, 0.1]], np.float32)

    assert kept_confidence(confidence, deep_enough(confidence, 0.5)).tolist() == pytest.approx([0.7, 0.8, 0.9, 0])


# --- the selection ----------------------------------------------------------------------------------------------------


def selected(terminal, sure, key=KEY, keep=None, **options):
    confidence = np.repeat(np.asarray(sure, np.float32)[:, None], 2, axis=1)
    keep = deep_enough(confidence, 0.3) if keep is None else keep
    return select(np.asarray(terminal), confidence, keep, PseudolabelConfig(**options), key)


def test_without_balance_every_kept_image_is_shown_once():
    found = selected([0, 0, 1, 1], [0.9, 0.1, 0.4, 0.2], balance=False)

    assert found.copies.tolist() == [1, 0, 1, 0]


def test_copies_bring_every_class_to_the_same_size():
    """300, 100 and 50 images that are all sure: each class is to have the mean, 150."""
    terminal = np.repeat([0, 1, 2], [300, 100, 50])

    sums = np.array(
        [
            [selected(terminal, np.full(450, 0.99), key=(seed,)).copies[terminal == c].sum() for c in range(3)]
            for seed in range(40)
        ]
    )

    assert np.allclose(sums.mean(axis=0), 150, atol=4)
    assert (np.abs(sums - 150) < 45).all()


def test_fractional_copies_are_rounded_up_or_down_only():
    found = selected(np.zeros(200, int), np.full(200, 0.99), images_per_class=250)

    assert set(found.copies.tolist()) == {1, 2}
    assert found.copies.mean() == pytest.approx(1.25, abs=0.1)


def test_whole_copies_need_no_luck():
    found = selected(np.zeros(50, int), np.full(50, 0.99), images_per_class=100)

    assert found.copies.tolist() == [2] * 50


def test_copies_are_capped_in_the_selection():
    found = selected([0] * 90 + [1], [0.99] * 91, images_per_class=90, max_copies=3)

    assert found.copies[-1] == 3


def test_the_least_sure_of_a_large_class_are_left_out():
    sure = np.linspace(0.4, 0.999, 200)

    found = selected(np.zeros(200, int), sure, images_per_class=20)

    assert not found.copies[sure < 0.9].any()
    assert found.copies[sure > 0.95].any()


def test_images_below_the_floor_are_not_shown():
    confidence = np.array([0.35, 0.45, 0.99])

    found = selected([0, 0, 0], confidence, confidence_floor=0.4, images_per_class=10)

    assert (found.copies > 0).tolist() == [False, True, True]


def test_an_image_of_which_nothing_is_kept_is_not_shown():
    keep = np.array([[True, True], [False, False]])

    assert selected([0, 0], [0.99, 0.99], keep=keep, images_per_class=2).copies[1] == 0


def test_the_key_decides_the_rounding_and_nothing_else():
    terminal = np.repeat([0, 1], [70, 30])
    draw = lambda key: selected(terminal, np.full(100, 0.99), key=key).copies.tolist()  # noqa: E731

    assert draw((1,)) == draw((1,))
    assert draw((1,)) != draw((2,))


def test_nothing_kept_selects_nothing():
    found = selected([0, 1, 2], [0.1, 0.1, 0.2])

    assert found.copies.tolist() == [0, 0, 0]
    assert not found.keep.any()
