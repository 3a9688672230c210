"""The data stage, run as a user runs it: what comes in, what is left out and why, and what it leaves behind."""

import json
import os
import shutil
import socket
import threading
from collections.abc import Callable
from contextlib import nullcontext

import h5py
import nstudent
import numpy as np
import pytest
from nstudent.data.dataset import UNREADABLE, Dataset
from nstudent.data.packing import reader
from nstudent.data.packing import shards as packing
from nstudent.data.sources.folder import Folder
from nstudent.data.sources.source import Catalogue
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.tree import UNKNOWN
from small_folders import SIZE, Bench, classes, divided, left_out, plant, png, status_by_name

# --- what it leaves behind --------------------------------------------------------------------------------------------


def test_the_packed_set_holds_what_the_source_held(bench: Bench) -> None:
    plant(bench.root, divided())

    artifact = bench.run()
    dataset = Dataset(artifact)

    metrics = artifact.manifest.metrics
    assert [metrics[key] for key in ("labelled", "validation", "test", "unlabelled")] == [12, 6, 6, 6]
    assert (metrics["classes"], metrics["terminals"]) == ([2, 2], 3)
    assert left_out(artifact) == {}
    assert (len(dataset), dataset.image_size) == (30, SIZE)
    by_name = {dataset.name(i): i for i in range(len(dataset))}
    image = by_name["train/pet/dog/1.png"]
    assert dataset.taxonomy.names(dataset.labels[image]) == {"coarse": "pet", "fine": "dog"}
    assert dataset.labels[by_name["train/stone/0.png"]].tolist() == [1, -1]
    assert tuple(dataset.pixels[np.array([image])][0, 0, 0]) == (5, 0, 99)


def test_the_splits_are_disjoint_and_complete(bench: Bench) -> None:
    plant(bench.root, classes(each=20))

    dataset = Dataset(bench.run(labelled=20))

    parts = [dataset.labelled, dataset.validation, dataset.test, dataset.unlabelled]
    assert [len(part) for part in parts] == [20, 6, 12, 22]
    assert sorted(np.concatenate(parts).tolist()) == list(range(60))


def test_the_truth_about_the_heap_is_in_no_file_that_training_reads(bench: Bench) -> None:
    plant(bench.root, classes(each=20))

    artifact = bench.run(labelled=20)
    dataset = Dataset(artifact)

    with h5py.File(artifact.path("index.h5")) as index:
        assert (index["label"][:][dataset.unlabelled] == UNKNOWN).all()
        assert set(index) == {"label", "split", "status", "name"}
    assert (dataset.hidden_truth()[dataset.unlabelled, 0] >= 0).all()
    assert np.array_equal(dataset.hidden_truth()[dataset.labelled], dataset.labels[dataset.labelled])


def test_label_noise_touches_training_labels_only(bench: Bench) -> None:
    plant(bench.root, classes(each=20))

    dataset = Dataset(bench.run(labelled=30, label_noise=0.2))

    wrong = (dataset.labels != dataset.hidden_truth()).any(axis=1)
    assert wrong[dataset.labelled].sum() == 6
    assert not wrong[dataset.validation].any()
    assert not wrong[dataset.test].any()


def test_two_runs_give_equal_bytes(bench: Bench) -> None:
    plant(bench.root, classes(each=20) | {"pet/cat/broken.png": b"<html>", "pet/dog/empty.png": b""})

    first, second = (bench.run(run, labelled=20, max_bad_share=0.1) for run in ("one", "two"))

    assert first.manifest.files == second.manifest.files
    assert first.manifest.id == second.manifest.id


def test_the_seed_changes_the_division(bench: Bench) -> None:
    plant(bench.root, classes(each=20))
    words = ["data.source=folder", f"data.root={bench.root}", "data.levels=[coarse, fine]", "data.labelled=20"]

    splits = [
        Dataset(
            Artifact(
                nstudent.run_stage(
                    nstudent.load_config(overrides=[*words, f"seed={seed}"]), "data", bench.tmp_path / f"run-{seed}"
                )
            )
        ).split
        for seed in (0, 1)
    ]

    assert not np.array_equal(*splits)


def test_running_again_makes_nothing_new(bench: Bench) -> None:
    plant(bench.root, classes())
    first = bench.run(rounds=0)
    times = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}

    again = bench.run(rounds=0)

    assert {path.name: path.stat().st_mtime_ns for path in again.folder.iterdir()} == times


def test_a_changed_source_is_packed_again(bench: Bench) -> None:
    plant(bench.root, classes())
    first = bench.run(rounds=0)

    plant(bench.root, {"pet/cat/new.png": png(999)})

    assert bench.run(rounds=0).manifest.id != first.manifest.id


# --- unreadable images ------------------------------------------------------------------------------------------------


def test_unreadable_images_keep_their_row_and_are_listed(bench: Bench) -> None:
    plant(
        bench.root,
        divided() | {"train/pet/cat/broken.png": png(1)[:-30], "train/pet/cat/page.jpg": b"<html>404</html>"},
    )

    artifact = bench.run(max_bad_share=0.1)
    dataset = Dataset(artifact)

    status = status_by_name(artifact)
    assert artifact.manifest.metrics["unreadable"] == 2
    assert set(left_out(artifact)) == {"train/pet/cat/broken.png", "train/pet/cat/page.jpg"}
    assert [name for name, value in status.items() if value == UNREADABLE] == sorted(left_out(artifact))
    assert len(dataset) == 32
    assert len(dataset.labelled) == 12
    # The images behind a broken one have not shifted.
    image = next(i for i in range(len(dataset)) if dataset.name(i) == "train/stone/3.png")
    assert tuple(dataset.pixels[np.array([image])][0, 0, 0]) == (11, 0, 99)


def test_too_many_unreadable_images_name_the_first_and_the_key(bench: Bench) -> None:
    plant(bench.root, divided() | {"train/pet/cat/broken.png": b"", "train/pet/dog/broken.png": b"GIF"})

    message = bench.refused(max_bad_images=1)

    assert "2 of 32 images cannot be read" in message
    assert "train/pet/cat/broken.png (the file is empty)" in message
    assert "data.max_bad_share" in message
    assert "data.max_bad_images (now 1)" in message
    listed = bench.tmp_path / "run/00-data.partial/left_out.json"
    assert str(listed) in message
    assert [entry["name"] for entry in json.loads(listed.read_text())] == [
        "train/pet/cat/broken.png",
        "train/pet/dog/broken.png",
    ]


def test_too_many_unreadable_images_are_more_than_a_share_and_more_than_a_number(bench: Bench) -> None:
    broken = {f"train/pet/cat/broken{i}.png": b"<html>" + bytes([i]) for i in range(3)}
    plant(bench.root, divided() | broken)

    assert len(left_out(bench.run("share", max_bad_images=0, max_bad_share=0.1))) == 3
    assert len(left_out(bench.run("number", max_bad_images=3, max_bad_share=0.0))) == 3
    assert "3 of 33 images" in bench.refused(max_bad_images=2, max_bad_share=0.05)


def test_one_damaged_file_stops_no_run_at_the_defaults(bench: Bench) -> None:
    plant(bench.root, divided() | {"train/pet/cat/page.jpg": b"<html>404</html>"})

    assert set(left_out(bench.run())) == {"train/pet/cat/page.jpg"}


def test_an_unreadable_image_stays_unreadable_where_the_heap_is_thinned(bench: Bench) -> None:
    broken = {f"unlabelled/broken-{i}.png": b"<html>" + bytes([i]) for i in range(6)}
    plant(bench.root, divided() | broken)

    artifact = bench.run(max_bad_share=0.5, unlabelled=3)

    assert artifact.manifest.metrics["unreadable"] == len(left_out(artifact)) == 6
    assert artifact.manifest.metrics["unlabelled"] == 3


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(bench: Bench) -> None:
    plant(bench.root, divided())
    (bench.root / "train/pet/cat/0.png").chmod(0)

    assert "train/pet/cat/0.png" in left_out(bench.run(max_bad_share=0.1))


def test_a_whole_shard_of_unreadable_images_does_not_spoil_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "SHARD_BYTES", 4 * SIZE * SIZE * 3)  # four images a shard
    first = {f"train/pet/cat/!{i}.png": b"<html>" + bytes([i]) for i in range(4)}
    plant(bench.root, divided() | first)

    dataset = Dataset(bench.run(max_bad_share=0.5))

    assert dataset.pixels[np.arange(len(dataset))].shape == (34, SIZE, SIZE, 3)


# --- files that are none, and files that go ---------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="there are no such files")
def test_what_is_named_like_an_image_and_is_no_file_is_quarantined(bench: Bench) -> None:
    """None of them may be waited for: opening a pipe blocks until somebody writes into it."""
    plant(bench.root, divided())
    folder = bench.root / "train/pet/cat"
    os.mkfifo(folder / "pipe.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "nowhere.jpg").symlink_to("gone.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        short = os.open(folder, os.O_RDONLY)  # the address of a socket may have 100 characters
        server.bind(f"/proc/self/fd/{short}/socket.jpg" if os.path.exists("/proc/self/fd") else "socket.jpg")
        os.close(short)
        artifact = bench.run(max_bad_share=0.2)

    reasons = {name.removeprefix("train/pet/cat/"): reason for name, reason in left_out(artifact).items()}
    assert reasons.keys() == {"pipe.jpg", "device.jpg", "loop.jpg", "nowhere.jpg", "socket.jpg"}
    assert reasons["pipe.jpg"] == reasons["device.jpg"] == "not a file but a pipe or a device"
    assert "symbolic links" in reasons["loop.jpg"]
    assert reasons["nowhere.jpg"] == "cannot be read: No such file or directory"
    assert artifact.manifest.metrics["unreadable"] == 5


def vanishing(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """``act`` happens on disk after the source was listed and before its first image is read."""
    listed = Folder.catalogue

    def catalogue(source: Folder) -> Catalogue:
        found = listed(source)
        act()
        return found

    monkeypatch.setattr(Folder, "catalogue", catalogue)


def test_a_file_that_vanishes_is_quarantined_and_no_other_row_moves(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(bench.root, classes(each=33))
    whole = bench.run("whole", rounds=0)
    vanishing(monkeypatch, (bench.root / "pet/cat/7.png").unlink)

    artifact = bench.run("cut", rounds=0, max_bad_share=0.02)

    assert left_out(artifact) == {"pet/cat/7.png": "cannot be read: No such file or directory"}
    before, after = Dataset(whole), Dataset(artifact)
    assert [after.name(i) for i in range(99)] == [before.name(i) for i in range(99)]
    (gone,) = np.flatnonzero(after.status == UNREADABLE)
    others = np.flatnonzero(np.arange(99) != gone)
    assert np.array_equal(after.pixels[others], before.pixels[others])
    assert np.array_equal(after.labels, before.labels)
    assert np.array_equal(after.split, before.split)


def test_a_file_that_comes_back_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network share that hiccups: the first try fails, a later one does not."""
    plant(bench.root, classes())
    path = bench.root / "pet/cat/2.png"
    away = path.with_suffix(".away")

    def go_and_come_back() -> None:
        path.rename(away)
        threading.Timer(0.1, away.rename, [path]).start()

    vanishing(monkeypatch, go_and_come_back)

    assert left_out(bench.run(rounds=0)) == {}


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_root_that_is_gone_stops_and_packs_in_full_when_it_is_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    plant(bench.root, classes())
    away = bench.tmp_path / "away"

    def unmount() -> None:
        bench.root.rename(away)
        if left == "an empty folder":
            bench.root.mkdir()

    with monkeypatch.context() as patch:
        vanishing(patch, unmount)
        message = bench.refused(rounds=0, max_bad_share=1.0)
    shutil.rmtree(bench.root, ignore_errors=True)
    away.rename(bench.root)

    assert message == f"{bench.root} is gone or empty: mount it again, and run the same command"
    assert left_out(bench.run(rounds=0)) == {}


@pytest.mark.slow
def test_a_class_folder_that_is_back_the_next_time_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards survive a stopped packing: one that was written without the folder would be kept, and the images lost."""
    plant(bench.root, classes())
    folder = bench.root / "pet"

    with monkeypatch.context() as patch:
        vanishing(patch, lambda: folder.rename(bench.root / ".away"))
        assert "cannot be read" in bench.refused(rounds=0)
    (bench.root / ".away").rename(folder)

    assert left_out(bench.run(rounds=0)) == {}


# --- odd names --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="names are UTF-16 there")
def test_names_of_any_bytes_survive(bench: Bench) -> None:
    odd = {"train/pet/cat/코숏 🐈.png": png(800), os.fsdecode(b"train/pet/cat/caf\xe9.png"): b"<html>"}
    plant(bench.root, divided() | odd)

    artifact = bench.run(max_bad_share=0.1)
    dataset = Dataset(artifact)

    assert set(odd) <= {dataset.name(i) for i in range(len(dataset))}
    assert list(left_out(artifact)) == ["train/pet/cat/caf\\udce9.png"]


# --- interruption -----------------------------------------------------------------------------------------------------


def test_an_interrupted_packing_keeps_its_finished_shards(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SHARD_BYTES", 4 * SIZE * SIZE * 3)
    plant(bench.root, divided() | {"test/pet/cat/00.png": b"<html>"})
    whole = bench.run("whole", max_bad_share=0.1)
    shards = whole.matching("pixels-")
    assert len(shards) == 8

    # In this process: what happens in others could not be counted.
    monkeypatch.setattr(packing, "reading", lambda reader: nullcontext(lambda ids: iter([reader(ids)])))
    decoded = []
    decode = reader.decode

    def dying(content: bytes, *rest: int) -> np.ndarray:
        decoded.append(content)
        if len(decoded) > 13:
            raise KeyboardInterrupt
        return decode(content, *rest)

    monkeypatch.setattr(reader, "decode", dying)
    with pytest.raises(KeyboardInterrupt):
        bench.run("cut", max_bad_share=0.1)
    (partial,) = (bench.tmp_path / "cut").glob("*.partial")
    finished = {path.name: path.stat().st_mtime_ns for path in partial.glob("pixels-*.h5")}

    decoded_again = []
    monkeypatch.setattr(reader, "decode", lambda *given: decoded_again.append(given) or decode(*given))
    resumed = bench.run("cut", max_bad_share=0.1)

    assert sorted(finished) == shards[:3]
    assert {name: (resumed.folder / name).stat().st_mtime_ns for name in finished} == finished
    assert len(decoded_again) == 31 - 4 * len(finished)
    assert resumed.manifest.id == whole.manifest.id
