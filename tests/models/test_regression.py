"""Regressions from features to paths: against formulas by hand, and how their strength is chosen."""

import numpy as np
import pytest
from nstudent.models import kernel_ridge, logistic, regression
from nstudent.models.kernel_ridge import KernelRidge, most_anchors
from nstudent.models.logistic import Logistic
from nstudent.models.regression import Chosen, Matrix, Points, Regression, choose, mirrored
from scipy.special import log_softmax

KEY = ("a test",)
BOTH: list[Regression] = [KernelRidge(KEY), Logistic()]


def clusters(images: int, paths: int = 3, spread: float = 0.3, features: int = 5, seed: int = 0) -> Points:
    """Images around the means of their classes."""
    random = np.random.default_rng(seed)
    label = np.arange(images) % paths
    means = random.normal(size=(paths, features))
    found = means[label] + spread * random.normal(size=(images, features))
    return Points(found, np.eye(paths)[label], np.arange(images))


def test_kernel_ridge_regression_solves_its_equation() -> None:
    points = clusters(40)
    solution = KernelRidge(KEY).solve(points.features, points.possible, 0.1)
    squared = ((points.features[:, None] - points.features[None]) ** 2).sum(axis=2)
    pairs = squared[np.triu_indices(40, 1)]
    assert solution.scale == pytest.approx(1 / np.median(pairs))
    kernel = np.exp(-squared / np.median(pairs))
    wanted = np.linalg.solve(kernel + 0.1 * np.eye(40), points.possible - 1 / 3)
    np.testing.assert_allclose(solution.weights, wanted, atol=1e-8)
    np.testing.assert_allclose(solution.scores(points.features), kernel @ wanted, atol=1e-8)


def test_with_as_many_landmarks_as_points_nystroms_solution_is_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    points, others = clusters(60), clusters(30, seed=1)
    exact = KernelRidge(KEY).solve(points.features, points.possible, 0.1)
    monkeypatch.setattr(kernel_ridge, "_MOST_POINTS", 59)
    monkeypatch.setattr(kernel_ridge, "_LANDMARKS", 60)
    near = KernelRidge(KEY).solve(points.features, points.possible, 0.1)
    np.testing.assert_allclose(near.scores(others.features), exact.scores(others.features), atol=1e-6)


def test_with_few_landmarks_the_answers_are_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    points, others = clusters(400), clusters(100, seed=0)
    exact = KernelRidge(KEY).solve(points.features, points.possible, 0.1).scores(others.features)
    monkeypatch.setattr(kernel_ridge, "_MOST_POINTS", 399)
    monkeypatch.setattr(kernel_ridge, "_LANDMARKS", 40)
    near = KernelRidge(KEY).solve(points.features, points.possible, 0.1)
    assert near.anchors is not None
    assert len(near.anchors) == 40 == most_anchors(400)
    assert (near.scores(others.features).argmax(axis=1) == exact.argmax(axis=1)).mean() > 0.97


def test_fits_to_parts_of_many_points_share_their_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they say is what a fit with landmarks of its own says of all points."""
    monkeypatch.setattr(kernel_ridge, "_MOST_POINTS", 90)
    monkeypatch.setattr(kernel_ridge, "_LANDMARKS", 30)
    points = clusters(100)
    shared = KernelRidge(KEY).prepared(points.features)
    alone = KernelRidge(KEY).solve(points.features, points.possible, 0.1)
    whole = shared.solve(points.features, points.possible, 0.1)
    assert np.array_equal(whole.weights, alone.weights)
    part = shared.solve(points.features[:60], points.possible[:60], 0.1)
    assert whole.anchors is not None
    assert whole.anchors is part.anchors
    assert part.scale == whole.scale
    # The weights are those of the part: as if the kernel of its points were what the landmarks make of it.
    near = np.exp(-whole.scale * ((points.features[:60, None] - whole.anchors[None]) ** 2).sum(axis=2))
    inner = np.exp(-whole.scale * ((whole.anchors[:, None] - whole.anchors[None]) ** 2).sum(axis=2))
    kernel = near @ np.linalg.pinv(inner, rcond=1e-10) @ near.T
    wanted = kernel @ np.linalg.solve(kernel + 0.1 * np.eye(60), points.possible[:60] - 1 / 3)
    np.testing.assert_allclose(part.scores(points.features[:60]), wanted, atol=1e-5)


def test_few_points_have_no_landmarks_to_share() -> None:
    few = KernelRidge(KEY)
    assert few.prepared(clusters(40).features) is few


def test_no_regression_has_more_anchors_than_its_cost_was_said_to_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images without their mirror images can be few enough for all to be anchors, where both are too many."""
    monkeypatch.setattr(kernel_ridge, "_MOST_POINTS", 50)
    monkeypatch.setattr(kernel_ridge, "_LANDMARKS", 20)
    for images, heap in ((10, 0), (20, 10), (30, 0), (30, 15), (30, 25), (60, 0)):
        plain = clusters(images)
        found = []
        for points in (plain, mirrored(plain, plain.features + 0.01)):
            some = np.vstack([points.features, clusters(heap, seed=1).features]) if heap else points.features
            solution = KernelRidge(KEY).solve(some, np.eye(3)[np.arange(len(some)) % 3], 0.1)
            assert solution.anchors is not None
            found.append(len(solution.anchors))
        assert most_anchors(images, heap) == max(found)


@pytest.mark.parametrize("paths", [2, 3])
def test_logistic_regression_has_the_gradient_zero(paths: int) -> None:
    points = clusters(90, paths, spread=1.0)
    solution = Logistic().solve(points.features, points.possible, 0.1)
    mean, deviation = points.features.mean(axis=0), points.features.std(axis=0)
    likely = np.exp(log_softmax(solution.scores(points.features), axis=1))
    # Of C * loss + |w|^2 / 2, in the coordinates in which the penalty counts.
    weights = solution.weights * deviation[:, None]
    if paths == 2:
        weights = weights * 2  # Two classes have one vector of weights, which is penalised once.
        gradient = 0.1 * ((points.features - mean) / deviation).T @ (likely - points.possible) + weights / 1
    else:
        gradient = 0.1 * ((points.features - mean) / deviation).T @ (likely - points.possible) + weights
    np.testing.assert_allclose(gradient, 0, atol=5e-3)


def test_more_features_than_images_change_nothing_but_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    points, others = clusters(30, features=50, spread=1.0), clusters(30, features=50, spread=1.0, seed=0)
    quick = Logistic().solve(points.features, points.possible, 0.1).scores(others.features)
    monkeypatch.setattr(logistic, "_within_their_span", lambda features: (features, np.eye(features.shape[1])))
    np.testing.assert_allclose(
        Logistic().solve(points.features, points.possible, 0.1).scores(others.features), quick, atol=2e-3
    )


def test_a_path_that_no_image_has_shown_is_never_said() -> None:
    points = clusters(30)
    wider = np.hstack([points.possible, np.zeros((30, 1))])
    likely = np.exp(log_softmax(Logistic().solve(points.features, wider, 0.1).scores(points.features), axis=1))
    assert likely[:, 3].max() < 1e-9
    only = np.tile([0.0, 1.0], (30, 1))
    assert (Logistic().solve(points.features, only, 0.1).scores(points.features).argmax(axis=1) == 1).all()


@pytest.mark.parametrize("kind", BOTH, ids=lambda kind: kind.name)
def test_soft_labels_count_by_their_mass(kind: Regression) -> None:
    """Two images in one place, one of each class, are one image that is half of each."""
    features = np.array([[0.0], [0.0], [4.0], [4.0], [9.0], [9.0]])
    apart = kind.solve(features, np.array([[1, 0], [0, 1], [1, 0], [1, 0], [0, 1], [0, 1]], dtype=float), 0.1)
    shared = kind.solve(features, np.array([[0.5, 0.5]] * 2 + [[1, 0]] * 2 + [[0, 1]] * 2), 0.1)
    np.testing.assert_allclose(apart.scores(features), shared.scores(features), atol=1e-3)


@pytest.mark.parametrize("kind", BOTH, ids=lambda kind: kind.name)
def test_an_image_is_not_judged_by_its_own_mirror_image(kind: Regression) -> None:
    """Labels that have nothing to do with the images cannot be foretold, although the mirror image is the same."""
    random = np.random.default_rng(0)
    points = Points(random.normal(size=(60, 30)), np.eye(2)[random.permutation(60) % 2], np.arange(60))
    chosen = choose(kind, mirrored(points, points.features), KEY)
    assert chosen.likelihood < np.log(0.5) + 0.03


def test_another_refutes_it_only_by_more_than_chance_explains() -> None:
    random = np.random.default_rng(0)

    def likelier(by: float, images: int) -> bool:
        gaps = random.normal(by, 1.0, images)
        gaps += by - gaps.mean()
        gone = Chosen(KernelRidge(KEY), 0.1, 1.0, np.zeros(images))
        return gone.is_refuted_by(Chosen(KernelRidge(KEY), 0.1, 1.0, gaps))

    # The standard error is about a tenth with 100 images.
    assert [likelier(by, 100) for by in (-0.5, 0.0, 0.07, 0.13)] == [False, False, False, True]
    assert likelier(0.07, 400)
    assert not likelier(5.0, 1)


@pytest.mark.parametrize("kind", BOTH, ids=lambda kind: kind.name)
def test_it_is_held_back_more_where_labels_are_doubtful(kind: Regression) -> None:
    clear, doubtful = clusters(120, spread=0.1), clusters(120, spread=0.1)
    swapped = doubtful.possible[np.random.default_rng(1).permutation(120)]
    rows = np.arange(120) % 2 == 0
    noisy = Points(doubtful.features, np.where(rows[:, None], swapped, doubtful.possible), doubtful.image)
    first, second = choose(kind, clear, KEY), choose(kind, noisy, KEY)
    assert first.likelihood > second.likelihood
    assert first.sharpness > second.sharpness


def test_what_is_chosen_is_as_sure_as_it_is_right() -> None:
    points, others = clusters(300, spread=1.2), clusters(2000, spread=1.2)
    solution = choose(KernelRidge(KEY), points, KEY).fitted(points)
    likely = np.exp(log_softmax(solution.scores(others.features), axis=1))
    right = (likely.argmax(axis=1) == others.possible.argmax(axis=1)).mean()
    assert 0.5 < right < 0.95
    assert likely.max(axis=1).mean() == pytest.approx(right, abs=0.06)


def test_a_label_that_leaves_paths_open_takes_the_one_that_is_near() -> None:
    points = clusters(60, spread=0.1)
    open_: Matrix = points.possible.copy()
    # Of a third of the images no more is known than that they are of the first class or of the second.
    rows = np.flatnonzero((np.arange(60) % 9 < 3) & (points.possible[:, 2] == 0))
    open_[rows] = [1, 1, 0]
    partly = Points(points.features, open_, points.image)
    said = choose(KernelRidge(KEY), partly, KEY).fitted(partly).scores(points.features)
    assert (said.argmax(axis=1) == points.possible.argmax(axis=1)).all()
    likely = np.exp(log_softmax(said, axis=1))
    assert likely[rows].max(axis=1).min() > 0.8


def test_images_without_any_complete_label_can_be_learnt_from() -> None:
    points = clusters(40)
    partly = Points(points.features, np.maximum(points.possible, [[1, 0, 0]]), points.image)
    said = choose(KernelRidge(KEY), partly, KEY).fitted(partly).scores(points.features)
    assert np.isfinite(said).all()


def test_many_images_are_chosen_on_by_some_and_fitted_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "_MOST_TO_CHOOSE", 20)
    points = clusters(100)
    sizes: list[int] = []

    class Counting(KernelRidge):
        def solve(
            self, features: Matrix, mass: Matrix, strength: float, weight: Matrix | None = None
        ) -> regression.Solution:
            sizes.append(len(features))
            return super().solve(features, mass, strength)

    chosen = choose(Counting(KEY), points, KEY)
    assert set(sizes) == {16}
    solution = chosen.fitted(points)
    assert solution.anchors is not None
    assert len(solution.anchors) == 100


def test_parts_have_as_many_of_every_label() -> None:
    points = mirrored(clusters(30), clusters(30).features)
    part = regression._parts(points, np.random.default_rng(0))
    np.testing.assert_array_equal(part[:30], part[30:])
    for number in range(5):
        assert points.possible[part == number].sum(axis=0).tolist() == [4.0, 4.0, 4.0]
