"""The store as this program maps it, and as somebody with only h5py reads it."""

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from nstudent.errors import ArtifactError
from nstudent.labels import store
from nstudent.labels.path_posterior import Calibration
from nstudent.labels.selection import deep_enough, kept_confidence
from nstudent.labels.store import LabelStore
from nstudent.storage.files import read_json
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from trees import outputs_of

LEVELS = ("coarse", "fine")
TREE = Taxonomy.from_labels([("A", "a"), ("A", "b"), ("B", "-")], LEVELS)
SIZES = (4, 4, 3)
TOTAL = sum(SIZES)


def content() -> dict[str, Any]:
    random = np.random.default_rng(0)
    paths = np.array([[0, 0], [0, 1], [1, -1]] * 4, dtype=np.int32)[:TOTAL]
    return {
        "images": np.arange(TOTAL, dtype=np.int64) * 3 + 5,
        "probabilities": [random.dirichlet(np.ones(n), TOTAL).astype(np.float32) for n in (2, 2)],
        "paths": paths,
        "confidence": np.where(paths >= 0, random.random((TOTAL, 2)), 0).astype(np.float32),
    }


def write_shard(folder: Path, first: int, last: int, top_k: int | None = None, batch: int = 3) -> Path:
    """Rows ``first`` to ``last - 1``, put in a few at a time."""
    made = content()
    layout = store.Layout.of(Outputs(TREE), top_k)
    shard = store.Shard(made["images"][first:last], layout)
    for at in range(first, last, batch):
        rows = slice(at, min(at + batch, last))
        levels = [torch.from_numpy(level[rows]) for level in made["probabilities"]]
        paths, confidence = (torch.from_numpy(made[name][rows]) for name in ("paths", "confidence"))
        columns = layout.columns(levels, paths, confidence)
        shard.put(at - first, {name: tensor.numpy() for name, tensor in columns.items()})
    path = store.shard_path(folder, first, last)
    path.write_bytes(shard.encoded(last - first))
    return path


def write_store(folder: Path, top_k: int | None = None) -> Path:
    """Three shards, made in another order than that of their rows."""
    starts = np.cumsum([0, *SIZES])
    for shard in (2, 0, 1):
        write_shard(folder, int(starts[shard]), int(starts[shard + 1]), top_k)
    store.finish(folder, store.Layout.of(Outputs(TREE), top_k), Calibration((1.5, 0.8), (-0.5, 0.0)), "teacher-id")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_store(tmp_path)


def opened(folder: Path) -> LabelStore:
    return store.LabelStore(store.shards(folder), LEVELS)


def test_shards_are_found_in_the_order_of_their_rows(folder: Path) -> None:
    assert [path.name for path in store.shards(folder)] == [
        "labels-000000000-000000004.h5",
        "labels-000000004-000000008.h5",
        "labels-000000008-000000011.h5",
    ]


def test_what_was_written_is_read(folder: Path) -> None:
    found, made = opened(folder), content()

    assert len(found) == TOTAL
    assert np.array_equal(found.images, made["images"])
    assert np.array_equal(found.paths, made["paths"])
    assert np.array_equal(found.confidence, made["confidence"])


@pytest.mark.parametrize("rows", [[10, 0, 4, 3, 8, 7, 0], [5], [], list(range(TOTAL))])
def test_any_rows_are_found_in_any_shard(folder: Path, rows: list[int]) -> None:
    rows = np.array(rows, dtype=np.int64)

    for level, made in zip(opened(folder).probabilities, content()["probabilities"], strict=True):
        assert len(level) == TOTAL
        assert np.array_equal(level[rows], made[rows].astype(np.float16))


def test_rounding_to_half_precision_is_small(folder: Path) -> None:
    """Half precision has 11 significant bits: at most 2^-12 of a probability near one."""
    for level, made in zip(opened(folder).probabilities, content()["probabilities"], strict=True):
        stored = level[np.arange(TOTAL)]
        assert stored.dtype == np.float16
        assert np.abs(stored.astype(np.float32) - made).max() <= 2**-12


def test_levels_that_are_not_kept_are_unknown(folder: Path) -> None:
    keep = np.ones((TOTAL, 2), bool)
    keep[0, 1] = keep[1] = False

    labels = opened(folder).kept_labels(keep)

    assert labels[:3].tolist() == [[0, -2], [-2, -2], [1, -1]]
    assert labels.dtype == np.int32


def test_plain_h5py_reads_a_shard(folder: Path) -> None:
    with h5py.File(store.shards(folder)[1]) as file:
        assert file["image"][:].tolist() == [17, 20, 23, 26]
        assert file["path"].shape == file["confidence"].shape == (4, 2)
        assert file["probability/fine"].dtype == np.float16
        assert (file.attrs["schema"], list(file.attrs["levels"])) == (1, list(LEVELS))


@pytest.mark.parametrize("moved", [False, True])
def test_plain_h5py_reads_all_shards_as_one_file(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, moved: bool
) -> None:
    if moved:
        folder = folder.rename(tmp_path_factory.mktemp("elsewhere") / "moved")
    made = content()

    with h5py.File(folder / "labels.h5") as file:
        assert np.array_equal(file["image"][:], made["images"])
        assert np.array_equal(file["path"][:], made["paths"])
        assert np.array_equal(file["confidence"][:], made["confidence"])
        assert np.array_equal(file["probability/fine"][:], made["probabilities"][1].astype(np.float16))
        assert list(file.attrs["levels"]) == list(LEVELS)


def test_the_description_says_where_the_labels_come_from(folder: Path) -> None:
    description = read_json(folder / "labels.json")

    assert (description["schema"], description["labeller"]) == (1, "teacher-id")
    assert description["temperatures"] == [1.5, 0.8]
    assert description["ends"] == [-0.5, 0.0]
    assert Taxonomy.from_json(description["taxonomy"]) == TREE


def test_equal_labels_give_equal_bytes(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """However many images were labelled at a time."""
    path = write_shard(tmp_path_factory.mktemp("again"), 0, 4, batch=1)

    assert path.read_bytes() == (folder / path.name).read_bytes()


def test_parts_are_the_shards(folder: Path) -> None:
    parts = list(opened(folder).parts())

    assert [len(part.images) for part in parts] == list(SIZES)
    for name in ("images", "paths", "confidence"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), content()[name])
    assert [part.rows for part in parts] == [slice(0, 4), slice(4, 8), slice(8, 11)]


def test_final_labels_and_confidence_are_found_shard_by_shard(folder: Path) -> None:
    keep = opened(folder).deep_enough(0.3)

    assert np.array_equal(keep, deep_enough(content()["confidence"], 0.3))
    assert np.array_equal(opened(folder).kept_confidence(keep), kept_confidence(content()["confidence"], keep))
    assert np.array_equal(opened(folder).terminals(TREE), TREE.terminal_of(content()["paths"]))


def test_another_process_opens_its_own_maps(folder: Path) -> None:
    distributions = opened(folder).probabilities
    distributions[0][np.arange(3)]
    sent = pickle.dumps(distributions)

    assert len(sent) < 2_000, "paths, and no rows"
    assert np.array_equal(pickle.loads(sent)[1][np.array([9, 2])], distributions[1][np.array([9, 2])])


def test_shards_that_do_not_fit_together_are_refused(folder: Path) -> None:
    other = store.Shard(np.arange(3), store.Layout.of(outputs_of(5, 2, levels=LEVELS), None))
    store.shard_path(folder, 8, 11).write_bytes(other.encoded(3))

    with pytest.raises(ArtifactError, match="differ"):
        opened(folder).probabilities[0][np.array([0])]


# --- the most probable classes alone ----------------------------------------------------------------------------------


def test_plain_h5py_reads_the_most_probable_classes(tmp_path: Path) -> None:
    folder, made = write_store(tmp_path, top_k=1), content()["probabilities"][1]

    with h5py.File(folder / "labels.h5") as file:
        assert file.attrs["schema"] == read_json(folder / "labels.json")["schema"] == 2
        assert file.attrs["outputs"].tolist() == [2, 2]
        assert np.array_equal(file["top/fine/class"][:, 0], made.argmax(axis=1))
        assert np.array_equal(file["top/fine/probability"][:, 0], made.max(axis=1).astype(np.float16))
        assert "probability" not in file


def test_the_rest_is_spread_over_the_other_classes(tmp_path: Path) -> None:
    for level, made in zip(opened(write_store(tmp_path, 1)).probabilities, content()["probabilities"], strict=True):
        # Of two classes one is left, and it has all the rest.
        assert level[np.array([10, 0, 4])] == pytest.approx(made[[10, 0, 4]], abs=1e-3)


def test_as_many_classes_as_there_are_is_the_whole_distribution(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = write_shard(tmp_path_factory.mktemp("other"), 0, 4, top_k=2)

    assert other.read_bytes() == (folder / other.name).read_bytes()


@pytest.mark.parametrize("top_k", [None, 1])
def test_the_size_on_disk_is_known_before(tmp_path: Path, top_k: int | None) -> None:
    path = write_shard(tmp_path, 0, TOTAL, top_k)
    layout = store.Layout.of(Outputs(TREE), top_k)

    with h5py.File(path) as file:
        sizes = []
        file.visititems(lambda _, item: sizes.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
    assert sum(sizes) == layout.row_bytes * TOTAL


@pytest.mark.parametrize(("outputs", "dtype"), [(300, torch.int16), (40_000, torch.int32)])
def test_the_number_of_the_last_class_fits(outputs: int, dtype: torch.dtype) -> None:
    layout = store.Layout.of(outputs_of(outputs, levels=["fine"]), 2)
    level = torch.zeros(1, outputs)
    level[0, outputs - 1], level[0, 5] = 0.75, 0.25
    columns = layout.columns([level], torch.tensor([[outputs - 1]]), torch.tensor([[0.75]]))
    assert columns["top/fine/class"].dtype == dtype
    assert columns["top/fine/class"].tolist() == [[outputs - 1, 5]]
    assert columns["top/fine/probability"].dtype == torch.float16
    assert columns["top/fine/probability"].tolist() == [[0.75, 0.25]]
    assert columns["top/fine/rest"].tolist() == [[0.0]]


def test_few_classes_are_stored_whole_and_of_many_some() -> None:
    layout = store.Layout.of(outputs_of(256, 257, 40_000), None)

    assert layout.tops == (False, True, True)
    assert layout.row_bytes == 8 + 3 * 8 + 256 * 2 + 64 * (2 + 2) + 2 + 64 * (2 + 4) + 2
