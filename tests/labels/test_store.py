"""The store as this program maps it, and as somebody with only h5py reads it."""

import h5py
import numpy as np
import pytest
from nstudent.labels import store
from nstudent.storage import read_json
from nstudent.taxonomy import Taxonomy

LEVELS = ("coarse", "fine")
TREE = Taxonomy.from_labels([("A", "a"), ("A", "b"), ("B", "-")], LEVELS)
SIZES = (4, 4, 3)
TOTAL = sum(SIZES)


def content():
    random = np.random.default_rng(0)
    return {
        "images": np.arange(TOTAL, dtype=np.int64) * 3 + 5,
        "probabilities": [random.dirichlet(np.ones(n), TOTAL).astype(np.float32) for n in (2, 2)],
        "paths": np.array([[0, 0], [0, 1], [1, -1]] * 4, dtype=np.int32)[:TOTAL],
        "confidence": random.random((TOTAL, 2)).astype(np.float32),
    }


@pytest.fixture
def folder(tmp_path):
    """Three shards, made in another order than that of their rows."""
    made = content()
    starts = np.cumsum([0, *SIZES])
    for shard in (2, 0, 1):
        first, last = int(starts[shard]), int(starts[shard + 1])
        store.write_shard(
            store.shard_path(tmp_path, first, last),
            made["images"][first:last],
            [level[first:last] for level in made["probabilities"]],
            made["paths"][first:last],
            made["confidence"][first:last],
            LEVELS,
        )
    store.finish(tmp_path, TREE, [1.5, 0.8], "teacher-id")
    return tmp_path


def opened(folder):
    return store.LabelStore(store.shards(folder), LEVELS)


def test_shards_are_found_in_the_order_of_their_rows(folder):
    assert [path.name for path in store.shards(folder)] == [
        "labels-000000000-000000004.h5",
        "labels-000000004-000000008.h5",
        "labels-000000008-000000011.h5",
    ]


def test_what_was_written_is_read(folder):
    found, made = opened(folder), content()

    assert len(found) == TOTAL
    assert np.array_equal(found.images, made["images"])
    assert np.array_equal(found.paths, made["paths"])
    assert np.array_equal(found.confidence, made["confidence"])


@pytest.mark.parametrize("rows", [[10, 0, 4, 3, 8, 7, 0], [5], [], list(range(TOTAL))])
def test_any_rows_are_found_in_any_shard(folder, rows):
    rows = np.array(rows, dtype=np.int64)

    for level, made in zip(opened(folder).probabilities, content()["probabilities"], strict=True):
        assert len(level) == TOTAL
        assert np.array_equal(level[rows], made[rows].astype(np.float16))


def test_rounding_to_half_precision_is_small(folder):
    """Half precision has 11 significant bits: at most 2^-12 of a probability near one."""
    for level, made in zip(opened(folder).probabilities, content()["probabilities"], strict=True):
        stored = level[np.arange(TOTAL)]
        assert stored.dtype == np.float16
        assert np.abs(stored.astype(np.float32) - made).max() <= 2**-12


def test_levels_that_are_not_kept_are_unknown(folder):
    keep = np.ones((TOTAL, 2), bool)
    keep[0, 1] = keep[1] = False

    labels = opened(folder).kept_labels(keep)

    assert labels[:3].tolist() == [[0, -2], [-2, -2], [1, -1]]
    assert labels.dtype == np.int32


def test_plain_h5py_reads_a_shard(folder):
    with h5py.File(store.shards(folder)[1]) as file:
        assert file["image"][:].tolist() == [17, 20, 23, 26]
        assert file["path"].shape == file["confidence"].shape == (4, 2)
        assert file["probability/fine"].dtype == np.float16
        assert (file.attrs["schema"], list(file.attrs["levels"])) == (1, list(LEVELS))


@pytest.mark.parametrize("moved", [False, True])
def test_plain_h5py_reads_all_shards_as_one_file(folder, tmp_path_factory, moved):
    if moved:
        folder = folder.rename(tmp_path_factory.mktemp("elsewhere") / "moved")
    made = content()

    with h5py.File(folder / "labels.h5") as file:
        assert np.array_equal(file["image"][:], made["images"])
        assert np.array_equal(file["path"][:], made["paths"])
        assert np.array_equal(file["confidence"][:], made["confidence"])
        assert np.array_equal(file["probability/fine"][:], made["probabilities"][1].astype(np.float16))
        assert list(file.attrs["levels"]) == list(LEVELS)


def test_the_description_says_where_the_labels_come_from(folder):
    description = read_json(folder / "labels.json")

    assert (description["schema"], description["labeller"]) == (1, "teacher-id")
    assert description["temperatures"] == [1.5, 0.8]
    assert Taxonomy.from_json(description["taxonomy"]) == TREE


def test_equal_labels_give_equal_bytes(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("again")
    made = content()
    path = store.shard_path(other, 0, 4)
    store.write_shard(
        path,
        made["images"][:4],
        [level[:4] for level in made["probabilities"]],
        made["paths"][:4],
        made["confidence"][:4],
        LEVELS,
    )

    assert path.read_bytes() == (folder / path.name).read_bytes()
