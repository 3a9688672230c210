"""A batch is a pure function of its step: resuming, workers and order change nothing."""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
import torch
from nstudent.config.schema import NoiseConfig
from nstudent.data.batches import Batch, Batches, Examples, Stream
from nstudent.data.dataset import PixelStore
from nstudent.data.loading import Awaited
from nstudent.noise.build import Course, LoadedNoise
from nstudent.randomness import Key
from nstudent.storage import hdf5

NUM_IMAGES, ROWS_A_SHARD, SIDE = 50, 20, 8
NOISE = NoiseConfig(shift=0.2, zoom=0.2, rotate=20, flip=True, operations=2)
SILENT = NoiseConfig(shift=0, zoom=0, rotate=0)
KEY = (0, "student", 1)
# torch warns where there are more workers than cores; results must not depend on them all the same.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> PixelStore:
    """Fifty images in three shards; the first pixel of an image is its id."""
    folder = tmp_path_factory.mktemp("pixels")
    images = np.random.default_rng(0).integers(60, 256, (NUM_IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(NUM_IMAGES)
    paths = []
    for first in range(0, NUM_IMAGES, ROWS_A_SHARD):
        paths.append(folder / f"pixels-{first:05d}.h5")
        hdf5.write(paths[-1], {"pixels": images[first : first + ROWS_A_SHARD]}, {})
    return PixelStore(paths)


class RowTargets:
    """Two levels of targets that name their row, so that a mix-up shows."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        column = (rows + self.offset).astype(np.float32)[:, None]
        return column, np.repeat(column, 3, axis=1)


LABELLED = Examples(np.arange(0, 20), RowTargets(0))
HEAP = Examples(np.arange(20, 50), RowTargets(1000))


def batches(
    pixels: PixelStore,
    parts: Sequence[tuple[Examples, int]] = ((LABELLED, 4), (HEAP, 8)),
    noise: NoiseConfig = NOISE,
    key: Key = KEY,
    **options: Any,
) -> Batches:
    return Batches(pixels, parts, LoadedNoise(Course(noise, 1)), key, **options)


def as_bytes(batch: Batch) -> list[Any]:
    return [batch.images.numpy().tobytes(), *(level.numpy().tobytes() for level in batch.targets), batch.rows.tolist()]


def test_the_labelled_come_first_and_targets_belong_to_their_images(pixels: PixelStore) -> None:
    batch = batches(pixels, noise=SILENT)[3]

    ids = batch.images[:, 0, 0, 0].long()
    assert batch.images.shape == (12, SIDE, SIDE, 3)
    assert batch.num_labelled == 4
    assert torch.equal(ids[:4], batch.rows[:4])
    assert torch.equal(ids[4:], batch.rows[4:] + 20)
    assert batch.targets[0][:, 0].tolist() == [*batch.rows[:4].tolist(), *(batch.rows[4:] + 1000).tolist()]
    assert batch.targets[1].shape == (12, 3)


def test_a_batch_is_the_same_whenever_it_is_asked_for(pixels: PixelStore) -> None:
    forward, anew = batches(pixels), batches(pixels)
    expected = [as_bytes(forward[step]) for step in range(12)]

    assert [as_bytes(anew[step]) for step in reversed(range(12))] == expected[::-1]
    assert as_bytes(forward[5]) == expected[5]


def test_loading_from_a_step_is_the_tail_of_loading_from_the_start(pixels: PixelStore) -> None:
    whole = [as_bytes(batch) for batch in batches(pixels).load(0, 12, workers=0)]
    tail = [as_bytes(batch) for batch in batches(pixels).load(7, 12, workers=0)]

    assert len(whole) == 12
    assert tail == whole[7:]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(pixels: PixelStore, workers: int) -> None:
    """The regression test of FAULTS, finding 1: with workers, albumentations by itself repeats its noise."""
    alone = [as_bytes(batch) for batch in batches(pixels).load(0, 8, workers=0)]

    shared = [as_bytes(batch) for batch in batches(pixels).load(0, 8, workers=workers)]

    assert shared == alone


@pytest.mark.parametrize("workers", [0, 3])
def test_no_draw_of_an_image_repeats_its_noise(pixels: PixelStore, workers: int) -> None:
    """FAULTS, finding 1: one and the same image, shown 64 times over several passes, never looks the same."""
    one = Examples(np.array([5]), RowTargets(0), copies=np.array([4]))

    shown = [
        image.numpy().tobytes() for batch in batches(pixels, [(one, 8)]).load(0, 8, workers) for image in batch.images
    ]

    assert len(shown) == 64
    assert len(set(shown)) == 64


def test_parts_do_not_share_their_noise(pixels: PixelStore) -> None:
    same = Examples(np.array([5]), RowTargets(0))

    batch = batches(pixels, [(same, 4), (same, 4)])[0]

    assert len({image.numpy().tobytes() for image in batch.images}) == 8


def test_another_key_gives_other_batches(pixels: PixelStore) -> None:
    assert as_bytes(batches(pixels)[0]) != as_bytes(batches(pixels, key=(1, "student", 1))[0])


def test_a_pass_shows_every_row_once(pixels: PixelStore) -> None:
    source = batches(pixels, [(HEAP, 10)])

    passes = [sorted(np.concatenate([source[3 * p + s].rows for s in range(3)]).tolist()) for p in range(4)]
    orders = {tuple(np.concatenate([source[3 * p + s].rows for s in range(3)]).tolist()) for p in range(4)}

    assert passes == [list(range(30))] * 4
    assert len(orders) == 4, "each pass is shuffled anew"


def test_copies_are_shown_exactly_so_often(pixels: PixelStore) -> None:
    copies = np.array([0, 1, 2, 3] * 5)
    examples = Examples(LABELLED.ids, RowTargets(0), copies)
    source = batches(pixels, [(examples, 10)])

    for number in range(3):
        rows = np.concatenate([source[3 * number + step].rows for step in range(3)])
        assert np.array_equal(np.bincount(rows, minlength=20), copies)


def test_a_part_of_size_zero_is_left_out(pixels: PixelStore) -> None:
    nothing = Examples(np.array([], dtype=np.int64), RowTargets(0))

    batch = batches(pixels, [(LABELLED, 4), (nothing, 0)])[0]

    assert len(batch.images) == batch.num_labelled == 4


def test_a_stream_shorter_than_the_batch_wraps() -> None:
    stream = Stream(np.array([3, 7, 9]), 8, ("k",))

    rows, draws = zip(*(stream.at(step) for step in range(3)), strict=True)

    assert np.concatenate(draws).tolist() == list(range(24))
    thirds = np.concatenate(rows).reshape(8, 3)
    assert np.array_equal(np.sort(thirds, axis=1), [[3, 7, 9]] * 8)


def test_the_clean_images_come_along_where_asked_for(pixels: PixelStore) -> None:
    batch = batches(pixels, views={"clean": None})[2]

    assert torch.equal(batch.views["clean"], batches(pixels, noise=SILENT)[2].images)
    assert not torch.equal(batch.views["clean"], batch.images)
    assert torch.equal(batch.images, batches(pixels)[2].images)
    assert not batches(pixels)[2].views


def test_each_view_has_noise_of_its_own(pixels: PixelStore) -> None:
    noise = LoadedNoise(Course(NOISE, 1))
    batch = batches(pixels, views={"weak": noise, "other": noise})[2]

    drawn = {images.numpy().tobytes() for images in (batch.images, *batch.views.values())}
    assert len(drawn) == 3
    again = batches(pixels, views={"other": noise})[2]
    assert torch.equal(again.views["other"], batch.views["other"]), "whichever other views there are"


def test_noise_is_told_the_step_that_an_image_is_loaded_for(pixels: PixelStore) -> None:
    told = []

    def noise(image: np.ndarray, key: Key, step: int) -> np.ndarray:
        told.append(step)
        return image

    Batches(pixels, [(LABELLED, 4)], noise, KEY)[7]
    assert told == [7] * 4


def test_moving_a_batch_keeps_its_content(pixels: PixelStore) -> None:
    batch = batches(pixels, views={"clean": None})[0]

    moved = batch.to(torch.device("cpu"))

    assert as_bytes(moved) == as_bytes(batch)
    assert len(astuple(moved)) == len(astuple(batch))


def test_pixels_are_found_in_any_shard_and_order(pixels: PixelStore) -> None:
    ids = np.array([49, 0, 20, 19, 40, 39, 0])

    assert pixels[ids][:, 0, 0, 0].tolist() == ids.tolist()


def test_a_pickled_store_carries_paths_and_no_pixels(pixels: PixelStore) -> None:
    before = pixels[np.array([3, 30])]
    carried = pickle.dumps(pixels)

    assert len(carried) < 2000
    assert np.array_equal(pickle.loads(carried)[np.array([3, 30])], before)


def test_waiting_for_batches_is_told_from_working_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of ours: a start that does not count, then 1 s for each batch and 3 s of work on it."""
    clock = [0.0]
    monkeypatch.setattr("nstudent.data.loading.time.perf_counter", lambda: clock[0])

    def slow() -> Iterator[None]:
        for seconds in (100, 1, 1, 1):
            clock[0] += seconds
            yield None

    awaited = Awaited(slow())
    assert awaited.share == 0
    for _ in range(4):
        next(awaited)
        clock[0] += 3
    assert awaited.share == pytest.approx(3 / (3 + 4 * 3))
