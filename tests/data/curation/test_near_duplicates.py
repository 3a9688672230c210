"""Copies found among images that look alike, and honest images left alone."""

from pathlib import Path

import numpy as np
import pytest
from nstudent.config.schema import DataConfig
from nstudent.data.curation import near_duplicates as module
from nstudent.data.curation import thumbnails
from nstudent.data.curation.near_duplicates import NearDuplicate, near_duplicates
from nstudent.data.curation.split import TEST, TRAIN, UNLABELLED, VALIDATION
from nstudent.data.curation.thumbnails import Thumbnails, measured, perceptual_hash
from nstudent.data.decode import square
from nstudent.data.sources import open_source
from nstudent.errors import StoppedError
from nstudent.progress import Silence
from nstudent.storage.sealed import SealedFiles

SIDE = 32


def photos(num: int, seed: int = 0) -> np.ndarray:
    """Coarse patches of colour under finer ones."""
    random = np.random.default_rng(seed)
    coarse = np.kron(random.integers(0, 200, (num, 4, 4, 3)), np.ones((1, 8, 8, 1)))
    return (coarse + np.kron(random.integers(0, 55, (num, 16, 16, 3)), np.ones((1, 2, 2, 1)))).astype(np.uint8)


def disturbed(images: np.ndarray, strength: int | np.ndarray, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, images.shape) * np.asarray(strength).reshape(-1, 1, 1, 1)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def found(images: np.ndarray, split: list[int] | np.ndarray, distance: int = 4) -> list[NearDuplicate]:
    looks = Thumbnails([measured(images)])
    return near_duplicates(looks, np.asarray(split, np.int8), np.arange(len(images)), distance, Silence())


def test_the_copy_and_its_original_are_named() -> None:
    images = photos(60)
    copied = np.concatenate([images, disturbed(images[[3, 40]], 3)])

    pairs = found(copied, [TRAIN] * 30 + [TEST] * 30 + [TEST, TRAIN])

    assert [(pair.image, pair.of) for pair in pairs] == [(3, 60), (61, 40)]


def test_the_closest_of_several_originals_is_named() -> None:
    image = photos(1)

    pairs = found(np.concatenate([disturbed(image, 8), image, disturbed(image, 1), image]), [2, 1, 2, 0])

    assert {pair.image: pair.of for pair in pairs} == {1: 2, 3: 1}


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_of_originals_that_are_equally_close_the_first_is_named(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever are compared first."""
    monkeypatch.setattr(module, "_DIFFERENCES_AT_ONCE", at_once)
    image = photos(1)
    pairs = found(np.concatenate([image] * 6), [VALIDATION, TEST, TEST, TEST, TRAIN, TEST])
    assert {pair.image: pair.of for pair in pairs} == {0: 1, 4: 0}


def test_a_smaller_distance_finds_those_that_are_within_it() -> None:
    """The pieces that candidates share are cut anew for every distance: none may be lost."""
    images = photos(80)
    copied = np.concatenate([images, disturbed(images, np.linspace(0, 25, 80))])
    split = [TEST] * 80 + [UNLABELLED] * 80
    widest = found(copied, split, 16)
    hashes = perceptual_hash(copied)

    assert len({pair.distance for pair in widest}) > 2, "the copies are too tame to show anything"
    assert all(pair.distance == np.bitwise_count(hashes[pair.image] ^ hashes[pair.of]) for pair in widest)
    for distance in range(16):
        assert found(copied, split, distance) == [pair for pair in widest if pair.distance <= distance]


def test_the_size_of_the_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = photos(40)
    copied = np.concatenate([images, disturbed(images, 5)])
    split = [VALIDATION] * 40 + [TRAIN] * 40
    expected = found(copied, split)

    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 1)
    monkeypatch.setattr(module, "_DIFFERENCES_AT_ONCE", 3)

    assert len(expected) > 30
    assert found(copied, split) == expected


def test_images_that_show_nothing_are_no_copies() -> None:
    assert (
        found(np.stack([np.full((SIDE, SIDE, 3), grey, np.uint8) for grey in (10, 10, 200, 201)]), [0, 2, 3, 1]) == []
    )


def test_the_same_shape_in_another_colour_is_another_picture() -> None:
    """Products come in red and in blue, and a perceptual hash is blind to that."""
    shape = np.full((SIDE, SIDE, 3), 255, np.uint8)
    red, blue = shape.copy(), shape.copy()
    red[8:24, 8:24], blue[8:24, 8:24] = (200, 60, 60), (60, 97, 200)  # as bright as each other
    assert np.bitwise_count(perceptual_hash(red[None]) ^ perceptual_hash(blue[None]))[0] <= 8

    assert found(np.stack([red, blue]), [TRAIN, TEST], distance=8) == []
    assert len(found(np.stack([red, red]), [TRAIN, TEST])) == 1


def test_two_photos_of_one_thing_are_two_photos() -> None:
    """The same product, a few pixels further on another shelf."""
    product = photos(1, seed=5)[0][4:28, 4:28]
    first, second = photos(2, seed=6)
    first[4:28, 4:28] = product
    second[2:26, 6:30] = product

    assert found(np.stack([first, second]), [TRAIN, TEST], distance=16) == []


@pytest.mark.slow
@pytest.mark.parametrize("side", [8, 32])
def test_honest_digits_are_left_alone(side: int) -> None:
    """1,797 digits of 8 x 8 pixels are as alike as images of different things can be."""
    source = open_source(DataConfig())
    images = np.stack([square(source.read(i), side) for i in range(len(source.catalogue().records))])

    assert found(images, np.arange(len(images)) % 4) == []


@pytest.mark.parametrize("part", [TRAIN, TEST, UNLABELLED])
def test_one_split_alone_has_no_leak(part: int) -> None:
    assert found(np.concatenate([photos(3)] * 2), [part] * 6) == []


def test_no_image_at_all() -> None:
    assert found(photos(1)[:0], []) == []
    assert near_duplicates(Thumbnails([]), np.zeros(0, np.int8), np.arange(0), 4, Silence()) == []


def still_camera(frames: int, seed: int = 3) -> np.ndarray:
    """Frames of one scene, each with noise of its own: their hashes are alike, and so are they."""
    return disturbed(np.repeat(photos(1, seed), frames, axis=0), 3, seed)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of pairs whose thumbnails are compared."""
    pairs: list[int] = []
    differences = Thumbnails.differences

    def counted(looks: Thumbnails, left: np.ndarray, right: np.ndarray, name: str) -> np.ndarray:
        pairs.append(len(left) if name == "colour" else 0)
        return differences(looks, left, right, name)

    monkeypatch.setattr(Thumbnails, "differences", counted)
    return pairs


@pytest.mark.parametrize("frames", [200, 800, 3200])
def test_the_frames_of_a_still_camera_are_compared_a_few_times_each(frames: int, compared: list[int]) -> None:
    split = [TEST] * (frames // 2) + [TRAIN] * (frames // 2)
    assert len(found(still_camera(frames), split)) == frames // 2
    assert sum(compared) <= 10 * frames


def test_images_whose_hashes_alone_agree_are_compared_with_a_bounded_number(
    compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No copy among them: each is compared until it has met so many."""
    monkeypatch.setattr(module, "_MOST_CANDIDATES", 100)
    looks = Thumbnails([measured(photos(900))])
    looks.hashes[:] = 7
    said: list[str] = []

    class Heard(Silence):
        def say(self, text: str) -> None:
            said.append(text)

    split = np.array([TEST] * 300 + [UNLABELLED] * 600, np.int8)
    assert near_duplicates(looks, split, np.arange(900), 4, Heard()) == []
    assert sum(compared) == 600 * 100
    assert said == [
        "  600 images look like more than 100 held-out ones by their hash, and were compared with so many of them"
    ]


@pytest.mark.parametrize("held_out", [10, 200])
def test_what_is_found_is_what_comparing_every_pair_finds(held_out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of images with more candidates than are compared at once: only which copy is named may differ."""
    monkeypatch.setattr(module, "_ALL_AT_ONCE", 20)
    scenes = photos(5, seed=9)
    random = np.random.default_rng(4)
    images = disturbed(scenes[random.integers(0, 5, 600)], random.uniform(0, 20, 600))
    split = np.array([TEST] * held_out + [VALIDATION] * held_out + [TRAIN] * (600 - 2 * held_out), np.int8)
    looks = Thumbnails([measured(images)])
    close = {}
    for image in range(held_out, 600):
        others = np.flatnonzero((split[:image] == TEST) | ((split[:image] == VALIDATION) & (split[image] == TRAIN)))
        others = others[np.bitwise_count(looks.hashes[others] ^ looks.hashes[image]) <= 8]
        every = np.full(len(others), image)
        difference = np.maximum(*(looks.differences(others, every, name) for name in ("grey", "colour")))
        same = difference <= 0.12
        close[image] = dict(zip(others[same].tolist(), difference[same].round(3).tolist(), strict=True))

    pairs = near_duplicates(looks, split, np.arange(600), 8, Silence())

    assert 50 < len(pairs) < 590
    assert {pair.image for pair in pairs} == {image for image, near in close.items() if near}
    for pair in pairs:
        assert close[pair.image][pair.of] == pair.difference
        if held_out == 10:
            assert (pair.difference, pair.of) == min((d, other) for other, d in close[pair.image].items())


def test_thumbnails_in_several_files_are_those_of_one() -> None:
    images = photos(30)
    one, many = Thumbnails([measured(images)]), Thumbnails([measured(images[at : at + 7]) for at in range(0, 30, 7)])
    left, right = np.arange(30), np.arange(30)[::-1].copy()
    assert (one.hashes == many.hashes).all()
    for name in ("grey", "colour"):
        assert (one.differences(left, right, name) == many.differences(left, right, name)).all()


def test_a_difference_is_what_the_correlation_leaves() -> None:
    looks = Thumbnails([measured(photos(40))])
    grey = measured(photos(40))["grey"].astype(np.float64)
    left, right = np.arange(20), np.arange(20, 40)
    expected = [np.sqrt(1 - max(np.corrcoef(grey[a], grey[b])[0, 1], 0) ** 2) for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(looks.differences(left, right, "grey"), expected, atol=1e-12)


def test_thumbnails_are_made_once_however_often_the_step_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "_ROWS_OF_A_FILE", 10)
    monkeypatch.setattr(thumbnails, "_IMAGES_AT_ONCE", 5)
    looked: list[int] = []

    class Looked:
        def __init__(self, images: np.ndarray) -> None:
            self.images = images

        def __getitem__(self, ids: np.ndarray) -> np.ndarray:
            looked.extend(ids.tolist())
            return self.images[ids]

    class Stopping(Silence):
        left = 7

        def advance(self, amount: int, **shown: float) -> None:
            self.left -= 1
            if self.left < 0:
                raise StoppedError("somebody wants the machine")

    images = Looked(photos(45))
    with pytest.raises(StoppedError):
        Thumbnails.make(images, np.arange(45), SealedFiles(tmp_path), Stopping())
    first = len(looked)
    made = Thumbnails.make(images, np.arange(45), SealedFiles(tmp_path), Silence())
    assert len(looked) - first == 45 - 30
    assert (made.hashes == perceptual_hash(images.images)).all()
