"""Copies found among images that look alike, and honest images left alone."""

import numpy as np
import pytest
from nstudent.config.schema import DataConfig
from nstudent.data.curation import near_duplicates as module
from nstudent.data.curation.near_duplicates import NearDuplicate, near_duplicates, perceptual_hash
from nstudent.data.curation.split import TEST, TRAIN, UNLABELLED, VALIDATION
from nstudent.data.decode import square
from nstudent.data.sources import open_source

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
    return near_duplicates(images, np.asarray(split, np.int8), np.arange(len(images)), distance)


def test_the_copy_and_its_original_are_named() -> None:
    images = photos(60)
    copied = np.concatenate([images, disturbed(images[[3, 40]], 3)])

    pairs = found(copied, [TRAIN] * 30 + [TEST] * 30 + [TEST, TRAIN])

    assert [(pair.image, pair.of) for pair in pairs] == [(3, 60), (61, 40)]


def test_the_closest_of_several_originals_is_named() -> None:
    image = photos(1)

    pairs = found(np.concatenate([disturbed(image, 8), image, disturbed(image, 1), image]), [2, 1, 2, 0])

    assert {pair.image: pair.of for pair in pairs} == {1: 2, 3: 1}


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
    monkeypatch.setattr(module, "_IMAGES_AT_ONCE", 3)

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
    assert near_duplicates(photos(1), np.zeros(1, np.int8), np.arange(0), 4) == []
