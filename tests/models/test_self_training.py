"""One round of self-training of a regression on unlabelled points."""

import numpy as np
import pytest
from nstudent.models.kernel_ridge import KernelRidge
from nstudent.models.logistic import Logistic
from nstudent.models.regression import Matrix, Points, Regression, choose, divided, solved
from nstudent.models.self_training import OfLabels, SelfTrained, said_held_out
from scipy.special import softmax

KEY = ("self training",)
BOTH: list[Regression] = [KernelRidge(KEY), Logistic()]


def moons(number: int, seed: int) -> tuple[Matrix, np.ndarray]:
    """Points on two half circles that reach into one another, and their classes, half of each."""
    random = np.random.default_rng(seed)
    label = np.arange(number) % 2
    angle = np.pi * random.random(number)
    x = np.where(label, 1 - np.cos(angle), np.cos(angle))
    y = np.where(label, 0.5 - np.sin(angle), np.sin(angle))
    return np.stack([x, y], axis=1) + 0.05 * random.normal(size=(number, 2)), label


def labelled(number: int, seed: int = 0) -> Points:
    features, label = moons(number, seed)
    return Points(features, np.eye(2)[label], np.arange(number))


@pytest.mark.parametrize("kind", BOTH, ids=["kernel ridge", "logistic"])
def test_it_is_fitted_to_the_labels_and_to_the_heap(kind: Regression) -> None:
    """On two half circles of which a few points are labelled, the heap shows their shape: no fit is worse for it."""
    features, label = moons(400, 100)
    before = after = 0.0
    for seed in range(5):
        points = labelled(16, seed)
        first = choose(kind, points, KEY)
        trained = SelfTrained.of(first, points, moons(300, 50 + seed)[0], KEY)
        right = [
            (choice.solve(points).scores(features).argmax(axis=1) == label).mean()
            for choice in (OfLabels(first), trained)
        ]
        before, after = before + right[0] / 5, after + right[1] / 5
    assert after > before - 0.02
    assert after > 0.8


def test_the_heap_has_labels_of_the_first_fit_at_the_frequencies_of_the_given_ones_and_a_third_of_the_weight() -> None:
    points, (heap, _) = labelled(20), moons(31, 5)
    # Most of the heap is of the first class.
    heap = np.concatenate([heap, moons(40, 6)[0][::2]])
    first = choose(KernelRidge(KEY), points, KEY)
    seen = {}

    class Watching(KernelRidge):
        def solve(self, features: Matrix, mass: Matrix, strength: float, weight: Matrix | None = None):  # type: ignore[no-untyped-def]  # noqa: ANN202
            if weight is not None:
                seen.update(features=features, mass=mass, weight=weight)
            return super().solve(features, mass, strength, weight)

    watched = choose(Watching(KEY), points, KEY)
    SelfTrained(watched, watched, heap).solve(points)
    assert np.array_equal(seen["features"], np.vstack([points.features, heap]))
    assert np.array_equal(seen["mass"][:20], points.possible)
    np.testing.assert_allclose(seen["weight"], [1.0] * 20 + [1 / 3] * len(heap))
    said = softmax(solved(KernelRidge(KEY), points, first.strength).scores(heap) * first.sharpness, axis=1)
    aligned = said * points.possible.mean(axis=0) / said.mean(axis=0)
    np.testing.assert_allclose(seen["mass"][20:], aligned / aligned.sum(axis=1, keepdims=True), atol=1e-9)
    assert seen["mass"][20:, 0].mean() < said[:, 0].mean(), "the class that it favours is held back"


def test_a_part_is_never_judged_by_a_fit_that_has_seen_its_labels() -> None:
    """Random labels cannot be told, however often a heap has been labelled after them."""
    random = np.random.default_rng(3)
    points = Points(random.normal(size=(60, 4)), np.eye(2)[random.integers(0, 2, 60)], np.arange(60))
    first = choose(KernelRidge(KEY), points, KEY)
    # The heap is the labelled images themselves: what a leak would look like.
    trained = SelfTrained.of(first, points, points.features, KEY)
    assert trained.chosen.likelihood < np.log(0.5) + 0.05


def test_it_says_what_the_labels_give_by_fits_to_the_other_parts_without_mirror_images() -> None:
    points = labelled(30)
    both = Points(
        np.vstack([points.features, points.features + 9]), np.tile(points.possible, (2, 1)), np.tile(points.image, 2)
    )
    choice = OfLabels(choose(KernelRidge(KEY), both, KEY))
    images, said = said_held_out(choice, both, KEY, every=False)
    assert np.array_equal(images, np.arange(30))
    some, part_of = divided(both, KEY)
    out = part_of == part_of[0]
    known = Points(some.features[~out], some.possible[~out], some.image[~out])
    wanted = softmax(choice.solve(known).scores(some.features[:1]) * choice.chosen.sharpness, axis=1)
    np.testing.assert_allclose(said[:1], wanted)


def test_every_image_can_be_asked_about_where_a_choice_is_made_on_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nstudent.models.regression._MOST_TO_CHOOSE", 20)
    points = labelled(30)
    choice = OfLabels(choose(KernelRidge(KEY), points, KEY))
    some, _ = said_held_out(choice, points, KEY, every=False)
    every, said = said_held_out(choice, points, KEY, every=True)
    assert len(some) == 20
    assert np.array_equal(every, np.arange(30))
    _, part_of = divided(points, KEY, every=True)
    out = part_of == part_of[7]
    known = Points(points.features[~out], points.possible[~out], points.image[~out])
    wanted = softmax(choice.solve(known).scores(points.features[7:8]) * choice.chosen.sharpness, axis=1)
    np.testing.assert_allclose(said[7:8], wanted)


def test_labels_that_leave_paths_open_stay_open_to_the_heap() -> None:
    points = labelled(20)
    possible = points.possible.copy()
    possible[:5] = 1.0
    partly = Points(points.features, possible, points.image)
    first = choose(KernelRidge(KEY), partly, KEY)
    trained = SelfTrained.of(first, partly, moons(40, 9)[0], KEY)
    said = trained.solve(partly).scores(points.features)
    assert (said.argmax(axis=1) == points.possible.argmax(axis=1)).mean() > 0.8
