"""Squares kept as JPEG: what they look like, and that no damage to them goes unseen."""

import random
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nstudent.data.batches import Batches, Examples
from nstudent.data.dataset import PixelStore
from nstudent.data.packing.jpeg_shards import encode, joined
from nstudent.data.packing.reader import Decoded
from nstudent.data.packing.shards import Layout
from nstudent.errors import ArtifactError
from nstudent.machine import available_cores, decoding_threads
from nstudent.storage import hdf5
from pictures import encoded, picture
from PIL import Image
from sklearn.datasets import load_sample_images

SIDE = 48
ROWS = 40
LAYOUT = Layout(SIDE, ROWS, 0, "jpeg", jpeg_quality=95)


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    """Pieces of the two photos that scikit-learn brings along."""
    pieces = [
        photo[top : top + SIDE, left : left + SIDE]
        for photo in load_sample_images().images
        for top in range(0, 427 - SIDE, SIDE)
        for left in range(0, 640 - SIDE, SIDE)
    ]
    return np.stack(pieces[:: len(pieces) // 100][:100])


@pytest.fixture(scope="module")
def stores(photos: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PixelStore]:
    """The same images as pixels and as JPEG, three shards of each."""
    folder = tmp_path_factory.mktemp("shards")
    found = {}
    for kind, layout in (("pixels", Layout(SIDE, ROWS, 0, "pixels", None)), ("jpeg", LAYOUT)):
        paths = []
        for first in range(0, len(photos), ROWS):
            rows = photos[first : first + ROWS]
            images = [Decoded(row) if kind == "pixels" else Decoded(None, jpeg=encode(row, 95)) for row in rows]
            paths.append(folder / f"{kind}-{first:05d}.h5")
            paths[-1].write_bytes(layout.encoded(images))
        found[kind] = PixelStore(paths)
    return found


def decibels(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each image."""
    squares = (left.astype(np.float64) - right) ** 2
    return 10 * np.log10(255**2 / squares.mean(axis=(1, 2, 3)))


@pytest.mark.parametrize("kind", ["pixels", "jpeg"])
def test_images_can_be_put_into_memory_that_is_there(kind: str, stores: dict[str, PixelStore]) -> None:
    ids = np.array([90, 3, 41, 3])
    images = np.zeros((4, SIDE, SIDE, 3), np.uint8)
    stores[kind].read_into(ids, images)
    assert np.array_equal(images, stores[kind][ids])
    assert images.any(axis=(1, 2, 3)).all()


def test_photos_look_the_same_in_fewer_bytes(stores: dict[str, PixelStore], photos: np.ndarray) -> None:
    every = np.arange(len(photos))
    assert np.array_equal(stores["pixels"][every], photos)
    ratio = decibels(stores["jpeg"][every], photos)
    assert ratio.min() > 34
    assert ratio.mean() > 38
    sizes = {kind: sum(path.stat().st_size for path in store._shards) for kind, store in stores.items()}
    assert sizes["jpeg"] < sizes["pixels"] / 2


@pytest.mark.parametrize("count", [0, 1, 31, 32, 100, 256])
def test_images_stand_in_the_order_of_the_ids_however_many(stores: dict[str, PixelStore], count: int) -> None:
    """From 32 on several threads decode them."""
    ids = np.random.default_rng(count).integers(0, 100, count)
    one_by_one = [stores["jpeg"][ids[row : row + 1]][0] for row in range(count)]
    assert np.array_equal(stores["jpeg"][ids], np.array(one_by_one, np.uint8).reshape(count, SIDE, SIDE, 3))


def shown_nothing(rows: np.ndarray) -> tuple[np.ndarray, ...]:
    return (np.ones((len(rows), 2), np.float32),)


def loaded(store: PixelStore, workers: int) -> torch.Tensor:
    batches = Batches(store, [(Examples(np.arange(100), shown_nothing), 40)], None, (0, "jpeg"))
    return torch.cat([batch.images for batch in batches.load(0, 5, workers)])


def test_a_loader_process_reads_what_this_one_reads(stores: dict[str, PixelStore]) -> None:
    assert torch.equal(loaded(stores["jpeg"], 1), loaded(stores["jpeg"], 0))


def test_loader_processes_and_small_batches_start_no_threads() -> None:
    assert decoding_threads(31) == 1
    assert decoding_threads(256) == available_cores()
    with get_context("fork").Pool(1) as pool:
        assert pool.apply(decoding_threads, (256,)) == 1


def test_an_unreadable_image_has_no_bytes_and_is_black(tmp_path: Path) -> None:
    grey = np.full((SIDE, SIDE, 3), 99, np.uint8)
    (tmp_path / "a.h5").write_bytes(
        LAYOUT.encoded([Decoded(None, reason="gone"), Decoded(None, jpeg=encode(grey, 95))])
    )
    (tmp_path / "b.h5").write_bytes(LAYOUT.encoded([Decoded(None, reason="gone")] * 2))

    images = PixelStore([tmp_path / "a.h5"])[np.arange(2)]

    assert not images[0].any()
    assert (images[1] == 99).all()
    assert hdf5.mapped(tmp_path / "a.h5")["offset"][:2].tolist() == [0, 0]
    assert not PixelStore([tmp_path / "b.h5"])[np.arange(2)].any(), "a shard without a byte"


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shard(photos: np.ndarray, tmp_path: Path) -> tuple[Path, bytes, range]:
    """A shard in the place it has in a run, its bytes, and where in them the images lie."""
    path = tmp_path / "00-data" / "pixels-00000.h5"
    path.parent.mkdir()
    path.write_bytes(LAYOUT.encoded([Decoded(None, jpeg=encode(photo, 95)) for photo in photos[:ROWS]]))
    content = path.read_bytes()
    first = content.index(hdf5.mapped(path)["jpeg"].tobytes())
    return path, content, range(first, first + len(hdf5.mapped(path)["jpeg"]))


@pytest.mark.slow
def test_no_flipped_bit_is_shown_as_an_image(shard: tuple[Path, bytes, range]) -> None:
    """libjpeg alone decodes more than half of them, to something."""
    path, content, images = shard
    chance = random.Random(0)
    for _ in range(60):
        damaged = bytearray(content)
        damaged[chance.choice(images)] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"pixels-00000\.h5: image \d+ is damaged \(its checksum is wrong\)"):
            PixelStore([path])[np.arange(ROWS)]


def test_the_error_names_the_remedy_in_one_line_from_a_loader_process_too(shard: tuple[Path, bytes, range]) -> None:
    path, content, images = shard
    path.write_bytes(content[: images[100]] + bytes(4000) + content[images[100] + 4000 :])
    said = set()
    for workers in (0, 1):
        batches = Batches(PixelStore([path]), [(Examples(np.arange(1), shown_nothing), 1)], None, (0, "jpeg"))
        with pytest.raises(ArtifactError) as caught:
            list(batches.load(0, 1, workers))
        said.add(str(caught.value))
    remedy = f"nstudent verify {path.parent.parent} --repair makes it again"
    assert said == {f"{path}: image 0 is damaged (its checksum is wrong): {remedy}"}


# --- a stranger's shard -----------------------------------------------------------------------------------------------


def cmyk() -> bytes:
    return encoded(Image.fromarray(picture(SIDE, SIDE)).convert("CMYK"), "JPEG")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: encoded(picture(SIDE, SIDE + 1), "JPEG"), "49x48 pixels in place of 48x48"),
        (lambda: encoded(picture(2000, 2000), "JPEG"), "2000x2000 pixels"),
        (lambda: encoded(Image.fromarray(picture(SIDE, SIDE)).convert("L"), "JPEG"), "its colours are Gray"),
        (cmyk, "its colours are CMYK"),
        (lambda: encoded(picture(SIDE, SIDE), "PNG"), "is damaged"),
        (lambda: encoded(picture(SIDE, SIDE), "JPEG")[:-40], "is damaged"),
        (lambda: b"x", "is damaged"),
    ],
    ids=["another shape", "too large", "grey", "cmyk", "png", "cut short", "no image"],
)
def test_what_is_no_square_of_ours_is_refused_whatever_its_checksum(
    tmp_path: Path, content: Callable[[], bytes], said: str
) -> None:
    hdf5.write(tmp_path / "x.h5", joined([content()]), {"side": SIDE})
    with pytest.raises(ArtifactError, match=said):
        PixelStore([tmp_path / "x.h5"])[np.zeros(1, np.int64)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"offset": np.array([0, 9], np.int64)}, "offset points out of jpeg"),
        ({"offset": np.array([-3, 4], np.int64)}, "offset points out of jpeg"),
        ({"offset": np.array([0, 3, 2, 4], np.int64), "crc32": np.zeros(3, np.uint32)}, "offset points out of jpeg"),
        ({"offset": np.array([0, 2, 4], np.int64)}, "tell different numbers"),
        ({"offset": np.zeros(1, np.int64), "crc32": np.zeros(0, np.uint32)}, "tell different numbers"),
        ({"offset": np.array([0.0, 4.0])}, "'offset' is missing or odd"),
        ({"crc32": np.zeros((1, 1), np.uint32)}, "'crc32' is missing or odd"),
        ({"side": 0}, "does not say how large"),
        ({"side": 1 << 40}, "does not say how large"),
        ({"side": "48"}, "does not say how large"),
        ({"side": np.array([48, 48])}, "does not say how large"),
    ],
)
def test_numbers_that_lie_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    whole = joined([b"abcd"]) | {"side": SIDE} | change
    hdf5.write(tmp_path / "x.h5", {name: whole[name] for name in ("jpeg", "offset", "crc32")}, {"side": whole["side"]})
    with pytest.raises(ArtifactError, match=said):
        PixelStore([tmp_path / "x.h5"])[np.zeros(1, np.int64)]
