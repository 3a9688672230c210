import numpy as np
import pytest
from nstudent.labels.wrong_labels import WrongLabels


def voice(images: int, classes: int, seed: int, sharp: float) -> tuple[np.ndarray, np.ndarray]:
    """Distributions, (images, classes), and for each image a class that is drawn from its distribution, (images,)."""
    random = np.random.default_rng(seed)
    logits = sharp * random.normal(size=(images, classes))
    said = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = (said.cumsum(axis=1) > random.random((images, 1))).argmax(axis=1)
    return said.astype(np.float32), true.astype(np.int32)


def spoilt(true: np.ndarray, share: float, classes: int, seed: int) -> np.ndarray:
    """The labels with a share of them replaced by others, drawn evenly."""
    random = np.random.default_rng(seed)
    other = (true + random.integers(1, classes, len(true))) % classes
    return np.where(random.random(len(true)) < share, other, true).astype(np.int32)


def test_golden_two_classes() -> None:
    """Of 20 images of each class the two surest are anchors; one of four is contradicted: 2 of 6 by Laplace."""
    said = np.array([[0.6, 0.4]] * 18 + [[0.9, 0.1]] * 2 + [[0.4, 0.6]] * 18 + [[0.1, 0.9]] * 2, np.float32)
    given = np.array([0] * 19 + [1] + [1] * 20, np.int32)

    found = WrongLabels.fit(said, given)

    np.testing.assert_allclose(found.given_of_true, [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])
    # Of the last image of the first class: 2/3 x .1 / (2/3 x .1 + 1/3 x .9).
    assert found.right(said, given)[19] == pytest.approx(0.2 / 1.1)
    assert found.right(said, given)[0] == pytest.approx(1.2 / 1.6)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.4])
def test_the_share_of_wrong_labels_is_found(share: float) -> None:
    said, true = voice(6_000, 6, seed=1, sharp=5.0)

    found = WrongLabels.fit(said, spoilt(true, share, 6, seed=2))

    assert 1 - np.diag(found.given_of_true) == pytest.approx([share] * 6, abs=0.04)


def test_what_it_says_to_be_right_is_right_so_often() -> None:
    said, true = voice(20_000, 5, seed=3, sharp=2.0)
    given = spoilt(true, 0.25, 5, seed=4)

    right = WrongLabels.fit(said, given).right(said, given)

    for low, high in ((0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 0.95), (0.95, 1.0)):
        among = (right >= low) & (right < high)
        assert (given == true)[among].mean() == pytest.approx(right[among].mean(), abs=0.06)


def test_a_weak_voice_says_little_against_labels_that_are_right() -> None:
    """The most probable class is the right one for 4 of 10 images, and nearly all labels stand all the same."""
    said, true = voice(5_000, 10, seed=5, sharp=1.5)
    assert (said.argmax(axis=1) == true).mean() < 0.5

    right = WrongLabels.fit(said, true).right(said, true)

    assert (right >= 0.5).mean() > 0.9
    assert (right >= 0.5).mean() > (said[np.arange(5_000), true] >= 0.5).mean() + 0.5


def test_labels_are_taken_for_what_they_are_confused_with() -> None:
    """Cats are called dogs, and never cars: a dog's label on what looks like a car is an odd one all the same."""
    said, true = voice(9_000, 3, seed=6, sharp=4.0)
    given = np.where((true == 0) & (np.random.default_rng(7).random(9_000) < 0.5), 1, true).astype(np.int32)

    others = WrongLabels.fit(said, given).given_of_true

    assert others[0, 1] > 1.5 * others[0, 2]


def test_many_images_are_judged_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said, true = voice(50, 4, seed=8, sharp=2.0)
    at_once = WrongLabels.fit(said, true)
    monkeypatch.setattr("nstudent.labels.evidence._CELLS_AT_ONCE", 12)

    in_parts = WrongLabels.fit(said, true)

    np.testing.assert_allclose(in_parts.given_of_true, at_once.given_of_true)
    np.testing.assert_allclose(in_parts.right(said, true), at_once.right(said, true))


def test_one_class_is_always_right() -> None:
    said, given = np.ones((5, 1), np.float32), np.zeros(5, np.int32)

    assert WrongLabels.fit(said, given).right(said, given).tolist() == [1.0] * 5


def test_no_image_is_no_error() -> None:
    nothing = np.zeros((0, 3), np.float32), np.zeros(0, np.int32)

    assert WrongLabels.fit(*nothing).right(*nothing).shape == (0,)
