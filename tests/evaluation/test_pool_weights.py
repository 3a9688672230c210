"""The shares of classifiers in a pool."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nstudent.evaluation.pool_weights import POOL_WEIGHTS, fit_pool_weights, select_pool
from nstudent.taxonomy.tree import UNKNOWN, LabelArray
from trees import outputs_of

FIVE = outputs_of(5)
Levels = list[np.ndarray]


def mixture(shares: list[float], count: int = 5000) -> tuple[list[Levels], LabelArray]:
    """Classifiers that say unlike things of an image, and labels that are drawn from one of them each."""
    random = np.random.default_rng(0)
    said = [random.dirichlet(np.full(5, 0.3), count).astype(np.float32) for _ in shares]
    who = random.choice(len(shares), count, p=shares)
    labels = np.array([random.choice(5, p=said[k][i] / said[k][i].sum()) for i, k in enumerate(who)], np.int32)
    return [[level] for level in said], labels[:, None]


def test_the_shares_that_classifiers_have_in_the_truth_are_found() -> None:
    raws, labels = mixture([0.7, 0.2, 0.1])

    found = fit_pool_weights(raws, labels, FIVE)

    assert found == pytest.approx((0.7, 0.2, 0.1), abs=0.03)
    assert sum(found) == pytest.approx(1, abs=1e-5)


def test_a_classifier_that_adds_nothing_is_left_out_and_the_others_share_its_weight() -> None:
    raws, labels = mixture([0.75, 0.25])
    useless = [np.full((5000, 5), 0.2, np.float32)]

    found = fit_pool_weights([*raws, useless], labels, FIVE)

    assert found[2] == 0.0
    assert found[:2] == pytest.approx(fit_pool_weights(raws, labels, FIVE), abs=1e-3)


def test_a_small_share_is_left_out() -> None:
    raws, labels = mixture([0.99, 0.01])

    assert fit_pool_weights(raws, labels, FIVE) == (1.0, 0.0)


def test_with_few_images_neither_of_two_that_are_almost_equal_has_all_the_weight() -> None:
    """Each image is a little more likely by the first: the likelihood alone would leave the second one out."""
    first, second = np.full((100, 5), 0.1, np.float32), np.full((100, 5), 0.11, np.float32)
    first[:, 0], second[:, 0] = 0.6, 0.56
    labels = np.zeros((100, 1), np.int32)

    found = fit_pool_weights([[first], [second]], labels, FIVE)
    # The equation whose solution the weights are: the derivative of likelihood and prior is the same for both.
    w = found[0]
    assert 100 * (0.6 - 0.56) / (0.6 * w + 0.56 * (1 - w)) == pytest.approx(5 / (1 - w) - 5 / w, abs=1e-2)
    assert 0.6 < w < 0.8


def test_a_classifier_that_knows_nothing_is_left_out_on_few_images_too() -> None:
    right = np.full((180, 5), 0.02, np.float32)
    right[:, 0] = 0.92
    labels = np.zeros((180, 1), np.int32)

    assert fit_pool_weights([[right], [np.full((180, 5), 0.2, np.float32)]], labels, FIVE) == (1.0, 0.0)


def test_equal_classifiers_share_alike() -> None:
    raws, labels = mixture([1.0], count=100)

    assert fit_pool_weights([*raws, *raws], labels, FIVE) == pytest.approx((0.5, 0.5))


def test_every_image_counts_the_same_however_many_levels_of_it_are_known() -> None:
    """One classifier is right of images with three known levels, another of those with one: they share alike."""
    outputs = outputs_of(2, 2, 2)
    labels = np.zeros((100, 3), np.int32)
    labels[50:, 1:] = UNKNOWN
    sure, wrong = np.tile(np.float32([0.9, 0.1]), (50, 1)), np.tile(np.float32([0.1, 0.9]), (50, 1))
    first, second = np.concatenate([sure, wrong]), np.concatenate([wrong, sure])

    assert fit_pool_weights([[first] * 3, [second] * 3], labels, outputs) == pytest.approx((0.5, 0.5), abs=1e-4)


def of_two_kinds(*pairs: tuple[float, float, int]) -> tuple[list[Levels], LabelArray]:
    """Two classifiers that give the right one of two classes these probabilities, of so many images each."""
    columns = np.array([pair[:2] for pair in pairs for _ in range(pair[2])], np.float32).T
    return [[np.stack([column, 1 - column], axis=1)] for column in columns], np.zeros((columns.shape[1], 1), np.int32)


def test_a_golden_greedy_selection() -> None:
    """Of ten images the first is right of six, at .9, and at .1 wrong of four; the second never knows.

    Log-likelihoods: -9.84 and 10 log .5 = -6.93 alone, so that the second comes first. With the first beside it .7^6 x
    .3^4 is less (-6.96) than the second twice; then the first makes it -6.75 (a third), and the second once more
    6 log .6 + 4 log .4 = -6.73 (a quarter), which is where the derivative of the likelihood is 0: no bag is likelier.
    """
    raws, labels = of_two_kinds((0.9, 0.5, 6), (0.1, 0.5, 4))
    assert select_pool(raws, labels, outputs_of(2)) == (0.25, 0.75)
    assert select_pool(raws[::-1], labels, outputs_of(2)) == (0.75, 0.25)


def test_golden_the_likeliest_bag_counts_and_not_the_last_one() -> None:
    """Most likely is a share of (2 x .98 - .02) / (3 x .96) = .674: of bags of up to 20 two thirds, at a size of 3."""
    raws, labels = of_two_kinds((0.98, 0.02, 8), (0.02, 0.98, 4))
    assert select_pool(raws, labels, outputs_of(2)) == pytest.approx((2 / 3, 1 / 3), abs=1e-6)


def test_a_greedy_selection_leaves_out_what_adds_nothing_and_takes_the_first_of_equals() -> None:
    raws, labels = of_two_kinds((0.9, 0.8, 12))
    assert select_pool(raws, labels, outputs_of(2)) == (1.0, 0.0)
    assert select_pool([raws[1], raws[0], raws[0]], labels, outputs_of(2)) == (0.0, 1.0, 0.0)


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(10, 40))
def test_a_greedy_pool_is_at_least_as_likely_as_its_best_part(seed: int, number: int, images: int) -> None:
    random = np.random.default_rng(seed)
    raws = [[random.dirichlet(np.full(5, 0.5), images).astype(np.float32)] for _ in range(number)]
    labels = random.integers(0, 5, (images, 1)).astype(np.int32)
    weights = select_pool(raws, labels, FIVE)
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    right = np.array([raw[0][np.arange(images), labels[:, 0]] for raw in raws], np.float64)
    likelihood = np.log(np.maximum(np.array(weights) @ right, 1e-12)).sum()
    assert likelihood >= np.log(np.maximum(right, 1e-12)).sum(axis=1).max() - 1e-3


@pytest.mark.parametrize("name", sorted(POOL_WEIGHTS))
def test_by_every_rule_a_level_that_is_unknown_says_nothing_and_a_handful_gives_equal_weights(name: str) -> None:
    raws, labels = of_two_kinds((0.9, 0.2, 12))
    two = [[raw[0], raw[0][::-1, ::-1].copy()] for raw in raws]
    unknown = np.concatenate([labels, np.full_like(labels, UNKNOWN)], axis=1)
    rule = POOL_WEIGHTS[name]
    assert rule(two, unknown, outputs_of(2, 2)) == rule(raws, labels, outputs_of(2))
    few, labels = of_two_kinds((0.9, 0.2, 9))
    assert rule(few, labels, outputs_of(2)) == (0.5, 0.5)
