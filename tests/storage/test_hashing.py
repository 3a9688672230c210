"""Files are hashed several at a time, and what is said of them is what one after the other would say."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nstudent.data.dataset import INDEX, INFO, TAXONOMY, Dataset
from nstudent.errors import ArtifactError
from nstudent.labels.store import LabelStore, Layout, Shard, finish, shard_path
from nstudent.storage import artifact as artifact_room
from nstudent.storage.artifact import Artifact, damage, sha256_of_each
from nstudent.storage.commit import commit, open_partial
from nstudent.storage.files import sha256_of, write_json
from nstudent.storage.hdf5 import write
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy

NUMBERED = [f"pixels-{number:05d}.h5" for number in range(4)]
TREE = Taxonomy.from_labels([("A",), ("B",)], ("level",))
_FIELDS: dict[str, Any] = {
    "stage": "data",
    "role": "data",
    "round": 0,
    "asked": {"stage": "data", "settings": {}, "inputs": {}},
    "inputs": {},
    "metrics": {},
    "seconds": 1.0,
}


def _committed(folder: Path, fill: Callable[[Path], object]) -> Artifact:
    partial = open_partial(folder, {"asked": {"settings": {}, "inputs": {}}, "inputs": {}})
    fill(partial)
    return commit(folder, _FIELDS)


def _four_images(folder: Path) -> None:
    """A data set of four images, each in a shard of its own."""
    label = np.zeros((4, 1), dtype=np.int32)
    split, status = np.zeros(4, dtype=np.int8), np.zeros(4, dtype=np.uint8)
    write(folder / INDEX, {"label": label, "split": split, "status": status, "name": np.array([b"a"] * 4)}, {})
    write_json(folder / TAXONOMY, TREE.to_json())
    write_json(folder / INFO, {"image_size": 2})
    for number, name in enumerate(NUMBERED):
        write(folder / name, {"pixels": np.full((1, 2, 2, 3), number, dtype=np.uint8)}, {})


def _four_labels(folder: Path) -> None:
    """A label store of four images, each in a shard of its own."""
    layout = Layout.of(Outputs(TREE), None)
    for row in range(4):
        shard = Shard(np.array([row]), layout)
        half = torch.full((1, 2), 0.5)
        columns = layout.columns([half], torch.zeros((1, 1), dtype=torch.int32), half[:, :1])
        shard.put(0, {name: column.numpy() for name, column in columns.items()})
        shard_path(folder, row, row + 1).write_bytes(shard.encoded(1))
    finish(folder, layout, None, "teacher-id")


@pytest.fixture
def made(tmp_path: Path) -> Artifact:
    return _committed(tmp_path / "00-data", _four_images)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_room, "available_cores", lambda: 2)


@pytest.fixture
def in_pairs(monkeypatch: pytest.MonkeyPatch, two_cores: None) -> list[str]:
    """No shard's hash is known before that of another is under way, too; names of the shards that were hashed."""
    hashed, both = [], threading.Barrier(2, timeout=20)

    def hash_beside_another(path: Path) -> str:
        if path.name.startswith(("pixels-", "labels-")):
            hashed.append(path.name)
            both.wait()
        return sha256_of(path)

    monkeypatch.setattr(artifact_room, "sha256_of", hash_beside_another)
    return hashed


def test_a_data_set_hashes_its_shards_two_at_a_time_on_two_cores(made: Artifact, in_pairs: list[str]) -> None:
    opened = Artifact(made.folder)
    dataset = Dataset(opened)
    assert sorted(in_pairs) == NUMBERED
    assert dataset.pixels[np.arange(4)][:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    # What was checked by this reader is not hashed again by it, but by the next.
    opened.paths(NUMBERED)
    assert len(in_pairs) == 4
    Dataset(Artifact(made.folder))
    assert len(in_pairs) == 8


def test_a_label_store_hashes_its_shards_two_at_a_time(tmp_path: Path, in_pairs: list[str]) -> None:
    labels = _committed(tmp_path / "01-pseudolabel", _four_labels)
    in_pairs.clear()
    assert LabelStore.open(labels).images.tolist() == [0, 1, 2, 3]
    assert len(in_pairs) == 4


def test_a_step_commits_and_is_verified_two_files_at_a_time(tmp_path: Path, in_pairs: list[str]) -> None:
    made = _committed(tmp_path / "00-data", _four_images)
    assert sorted(in_pairs) == NUMBERED
    assert list(made.manifest.files) == sorted(made.manifest.files)
    assert {name: entry["sha256"] for name, entry in made.manifest.files.items()} == {
        name: sha256_of(made.folder / name) for name in made.manifest.files
    }
    assert damage(made.folder) == {}
    assert len(in_pairs) == 8


@pytest.mark.usefixtures("two_cores")
def test_the_first_wrong_file_is_named_also_if_another_is_found_sooner(
    made: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NUMBERED[1:]:
        content = bytearray((made.folder / name).read_bytes())
        content[-1] ^= 1
        (made.folder / name).write_bytes(bytes(content))
    found: list[str] = []

    def second_is_slow(path: Path) -> str:
        if path.name == NUMBERED[1]:
            time.sleep(0.3)
        found.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(artifact_room, "sha256_of", second_is_slow)
    with pytest.raises(ArtifactError, match=rf"{NUMBERED[1]} has changed since it was made: nstudent verify"):
        Artifact(made.folder).paths(NUMBERED)
    assert found.index(NUMBERED[2]) < found.index(NUMBERED[1])
    assert list(damage(made.folder)) == NUMBERED[1:]


@pytest.mark.usefixtures("two_cores")
def test_after_a_wrong_file_the_others_are_left_and_no_thread_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number:03d}" for number in range(50)]
    made = _committed(tmp_path / "00-data", lambda folder: [(folder / name).write_text(name) for name in names])
    (made.folder / names[0]).unlink()
    hashed: list[Path] = []

    def slow(path: Path) -> str:
        time.sleep(0.01)
        hashed.append(path)
        return sha256_of(path)

    monkeypatch.setattr(artifact_room, "sha256_of", slow)
    # An error that somebody keeps also keeps what it has met on its way.
    with pytest.raises(ArtifactError, match=r"000 is missing") as kept:
        Artifact(made.folder).paths(names)
    assert kept.value
    assert len(hashed) < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hash")]


def test_one_core_hashes_without_a_thread(made: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_room, "available_cores", lambda: 1)
    monkeypatch.setattr(artifact_room, "ThreadPoolExecutor", None)
    assert [path.name for path in Artifact(made.folder).paths(NUMBERED)] == NUMBERED


@pytest.mark.usefixtures("two_cores")
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("there")
    with pytest.raises(ArtifactError, match=r"cannot read .*gone"):
        sha256_of_each([tmp_path / "there", tmp_path / "gone"])


def test_bytes_that_change_within_a_tick_of_the_clock_are_found_by_the_next_reader(made: Artifact) -> None:
    """Size, inode and time of change of the content stay: a reader that went by them would believe an older check."""
    path = made.folder / NUMBERED[0]
    Artifact(made.folder).paths(NUMBERED)
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)
    with pytest.raises(ArtifactError, match=f"{NUMBERED[0]} has changed"):
        Artifact(made.folder).paths(NUMBERED)
