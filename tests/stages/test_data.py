"""The data stage, run as a user runs it: what comes in, what is left out and why, and what it leaves behind."""

import io
import json
import os

import h5py
import nstudent
import numpy as np
import pytest
from nstudent.artifact import Artifact
from nstudent.data.dataset import DUPLICATE, THINNED, UNREADABLE, Dataset
from nstudent.errors import DataError
from nstudent.stages import data as data_stage
from nstudent.taxonomy import UNKNOWN
from PIL import Image

SIZE = 8


def png(colour):
    """A small image like no other of another number."""
    pixels = np.full((SIZE, SIZE, 3), 40, dtype=np.uint8)
    pixels[0, 0] = colour % 256, colour // 256, 99
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def plant(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def classes(each=6, start=0, prefix=""):
    """``each`` images of three terminal labels, one of which ends at the coarse level."""
    names = [f"{prefix}{path}/{i}.png" for path in ("pet/cat", "pet/dog", "stone") for i in range(each)]
    return {name: png(start + i) for i, name in enumerate(names)}


def divided():
    """A source with splits of its own."""
    return (
        classes(each=4, start=0, prefix="train/")
        | classes(each=2, start=100, prefix="validation/")
        | classes(each=2, start=200, prefix="test/")
        | {f"unlabelled/{i}.png": png(300 + i) for i in range(6)}
    )


class Bench:
    """A source folder, and the stage run on it."""

    def __init__(self, tmp_path):
        self.root = tmp_path / "root"
        self.tmp_path = tmp_path

    def run(self, run="run", rounds=1, **options):
        data = {"source": "folder", "root": str(self.root), "levels": ["coarse", "fine"], "image_size": SIZE}
        data |= {"labelled": None} | options
        words = [f"data.{key}={json.dumps(value)}" for key, value in data.items()]
        config = nstudent.load_config(overrides=[*words, f"rounds={rounds}"])
        return Artifact(nstudent.run_stage(config, "data", self.tmp_path / run))

    def refused(self, **options):
        with pytest.raises(DataError) as caught:
            self.run(**options)
        return str(caught.value)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def left_out(artifact):
    return {entry["name"]: entry["reason"] for entry in artifact.json("left_out.json")}


def status_by_name(artifact):
    dataset = Dataset(artifact)
    return {dataset.name(i): int(dataset.status[i]) for i in range(len(dataset))}


# --- what it leaves behind --------------------------------------------------------------------------------------------


def test_the_packed_set_holds_what_the_source_held(bench):
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


def test_the_splits_are_disjoint_and_complete(bench):
    plant(bench.root, classes(each=20))

    dataset = Dataset(bench.run(labelled=20))

    parts = [dataset.labelled, dataset.validation, dataset.test, dataset.unlabelled]
    assert [len(part) for part in parts] == [20, 6, 12, 22]
    assert sorted(np.concatenate(parts).tolist()) == list(range(60))


def test_the_truth_about_the_heap_is_in_no_file_that_training_reads(bench):
    plant(bench.root, classes(each=20))

    artifact = bench.run(labelled=20)
    dataset = Dataset(artifact)

    with h5py.File(artifact.path("index.h5")) as index:
        assert (index["label"][:][dataset.unlabelled] == UNKNOWN).all()
        assert set(index) == {"label", "split", "status", "name"}
    assert (dataset.hidden_truth()[dataset.unlabelled, 0] >= 0).all()
    assert np.array_equal(dataset.hidden_truth()[dataset.labelled], dataset.labels[dataset.labelled])


def test_label_noise_touches_training_labels_only(bench):
    plant(bench.root, classes(each=20))

    dataset = Dataset(bench.run(labelled=30, label_noise=0.2))

    wrong = (dataset.labels != dataset.hidden_truth()).any(axis=1)
    assert wrong[dataset.labelled].sum() == 6
    assert not wrong[dataset.validation].any()
    assert not wrong[dataset.test].any()


def test_two_runs_give_equal_bytes(bench):
    plant(bench.root, classes(each=20) | {"pet/cat/broken.png": b"<html>", "pet/dog/empty.png": b""})

    first, second = (bench.run(run, labelled=20, max_bad_share=0.1) for run in ("one", "two"))

    assert first.manifest.files == second.manifest.files
    assert first.manifest.id == second.manifest.id


def test_the_seed_changes_the_division(bench):
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


def test_running_again_makes_nothing_new(bench):
    plant(bench.root, classes())
    first = bench.run(rounds=0)
    times = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}

    again = bench.run(rounds=0)

    assert {path.name: path.stat().st_mtime_ns for path in again.folder.iterdir()} == times


def test_a_changed_source_is_packed_again(bench):
    plant(bench.root, classes())
    first = bench.run(rounds=0)

    plant(bench.root, {"pet/cat/new.png": png(999)})

    assert bench.run(rounds=0).manifest.id != first.manifest.id


# --- unreadable images ------------------------------------------------------------------------------------------------


def test_unreadable_images_keep_their_row_and_are_listed(bench):
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


def test_too_many_unreadable_images_name_the_first_and_the_key(bench):
    plant(bench.root, divided() | {"train/pet/cat/broken.png": b""})

    message = bench.refused()

    assert "1 of 31 images cannot be read" in message
    assert "train/pet/cat/broken.png (the file is empty)" in message
    assert "data.max_bad_share" in message


def test_an_unreadable_image_stays_unreadable_where_the_heap_is_thinned(bench):
    broken = {f"unlabelled/broken-{i}.png": b"<html>" + bytes([i]) for i in range(6)}
    plant(bench.root, divided() | broken)

    artifact = bench.run(max_bad_share=0.5, unlabelled=3)

    assert artifact.manifest.metrics["unreadable"] == len(left_out(artifact)) == 6
    assert artifact.manifest.metrics["unlabelled"] == 3


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(bench):
    plant(bench.root, divided())
    (bench.root / "train/pet/cat/0.png").chmod(0)

    assert "train/pet/cat/0.png" in left_out(bench.run(max_bad_share=0.1))


def test_a_whole_shard_of_unreadable_images_does_not_spoil_the_others(bench, monkeypatch):
    monkeypatch.setattr(data_stage, "_SHARD_BYTES", 4 * SIZE * SIZE * 3)  # four images a shard
    first = {f"train/pet/cat/!{i}.png": b"<html>" + bytes([i]) for i in range(4)}
    plant(bench.root, divided() | first)

    dataset = Dataset(bench.run(max_bad_share=0.5))

    assert dataset.pixels[np.arange(len(dataset))].shape == (34, SIZE, SIZE, 3)


# --- duplicates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["validation", "test"])
def test_an_image_of_train_that_is_held_out_too_is_an_error(bench, part):
    files = divided()
    plant(bench.root, files | {"train/pet/cat/copy.png": files[f"{part}/pet/cat/0.png"]})

    message = bench.refused()

    assert "train/pet/cat/copy.png is the same image as" in message
    assert f"{part}/pet/cat/0.png" in message
    assert "data.duplicates=drop" in message


def test_the_less_protected_of_two_equal_images_is_dropped(bench):
    files = divided()
    copies = {
        "train/pet/cat/copy.png": files["test/pet/cat/0.png"],
        "validation/pet/cat/copy.png": files["test/pet/cat/0.png"],
        "train/stone/other.png": files["validation/stone/0.png"],
    }
    plant(bench.root, files | copies)

    artifact = bench.run(duplicates="drop")

    assert set(left_out(artifact)) == set(copies)
    assert [name for name, value in status_by_name(artifact).items() if value == DUPLICATE] == sorted(copies)
    assert artifact.manifest.metrics["duplicates"] == 3
    assert artifact.manifest.metrics["test"] == artifact.manifest.metrics["validation"] == 6


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_unlabelled_copies_are_dropped_and_counted(bench, part):
    files = divided()
    plant(bench.root, files | {"unlabelled/copy.png": files[f"{part}/pet/cat/0.png"]})

    artifact = bench.run()

    assert left_out(artifact) == {"unlabelled/copy.png": f"the same image as {part}/pet/cat/0.png"}
    assert artifact.manifest.metrics["duplicates"] == 1
    assert artifact.manifest.metrics["unlabelled"] == 6


def test_two_equal_images_of_the_heap_are_one(bench):
    plant(bench.root, divided() | {"unlabelled/copy.png": png(300)})

    assert bench.run().manifest.metrics["unlabelled"] == 6


def test_two_unreadable_images_are_no_duplicates_of_each_other(bench):
    plant(bench.root, divided() | {"train/stone/x.png": b"", "test/stone/x.png": b""})

    metrics = bench.run(max_bad_share=0.5).manifest.metrics

    assert (metrics["unreadable"], metrics["duplicates"]) == (2, 0)


def test_equal_images_of_a_drawn_division_never_end_on_both_sides(bench):
    """Nobody is to blame for a copy that the draw put on the other side: it is left out, without an error."""
    files = classes(each=10)
    plant(bench.root, files | {name.replace(".png", "-copy.png"): content for name, content in files.items()})

    artifact = bench.run(labelled=20)
    dataset = Dataset(artifact)

    seen = {part: {dataset.pixels[np.array([i])].tobytes() for i in dataset.ids(part)} for part in range(4)}
    assert sum(len(images) for images in seen.values()) == len(set().union(*seen.values())) == 30
    assert artifact.manifest.metrics["test"] > 0


# --- labels -----------------------------------------------------------------------------------------------------------


def test_a_label_that_contradicts_the_taxonomy_names_the_file(bench):
    plant(bench.root, classes() | {"stone/cat/wrong.png": png(900)})

    message = bench.refused(taxonomy={"pet": ["cat", "dog"], "stone": []})

    assert message.startswith("stone/cat/wrong.png: ")
    assert "contradicts the taxonomy" in message


def test_a_class_that_the_taxonomy_lacks_names_the_file(bench):
    plant(bench.root, classes())

    assert bench.refused(taxonomy={"pet": ["cat"], "stone": []}).startswith("pet/dog/0.png: ")


def test_a_class_without_an_image_may_stand_in_the_taxonomy(bench):
    plant(bench.root, divided())

    artifact = bench.run(taxonomy={"pet": ["cat", "dog", "fish"], "stone": []})

    assert Dataset(artifact).taxonomy.classes == (("pet", "stone"), ("cat", "dog", "fish"))


def test_a_level_without_any_class_names_the_level(bench):
    """A folder of two levels under the three that are the default: no network can have an output for the third."""
    plant(bench.root, divided())

    message = bench.refused(levels=["coarse", "fine", "finest"])

    assert "finest" in message
    assert "data.levels" in message


def test_no_unlabelled_images_names_the_ways_out(bench):
    plant(bench.root, classes())

    message = bench.refused()

    assert "data.unlabelled_root" in message
    assert "rounds=0" in message
    assert bench.run(rounds=0).manifest.metrics["unlabelled"] == 0


def test_the_heap_is_thinned_to_the_number_asked_for(bench):
    plant(bench.root, divided())

    artifact = bench.run(unlabelled=2)

    assert len(Dataset(artifact).unlabelled) == artifact.manifest.metrics["unlabelled"] == 2
    assert list(status_by_name(artifact).values()).count(THINNED) == 4


# --- odd names --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="names are UTF-16 there")
def test_names_of_any_bytes_survive(bench):
    odd = {"train/pet/cat/코숏 🐈.png": png(800), os.fsdecode(b"train/pet/cat/caf\xe9.png"): b"<html>"}
    plant(bench.root, divided() | odd)

    artifact = bench.run(max_bad_share=0.1)
    dataset = Dataset(artifact)

    assert set(odd) <= {dataset.name(i) for i in range(len(dataset))}
    assert list(left_out(artifact)) == ["train/pet/cat/caf\\udce9.png"]


# --- interruption -----------------------------------------------------------------------------------------------------


def test_an_interrupted_packing_keeps_its_finished_shards(bench, monkeypatch):
    monkeypatch.setattr(data_stage, "_SHARD_BYTES", 4 * SIZE * SIZE * 3)
    plant(bench.root, divided() | {"test/pet/cat/00.png": b"<html>"})
    whole = bench.run("whole", max_bad_share=0.1)
    shards = whole.matching("pixels-")
    assert len(shards) == 8

    decoded = []
    decode = data_stage.decode

    def dying(content, *rest):
        decoded.append(content)
        if len(decoded) > 13:
            raise KeyboardInterrupt
        return decode(content, *rest)

    monkeypatch.setattr(data_stage, "decode", dying)
    with pytest.raises(KeyboardInterrupt):
        bench.run("cut", max_bad_share=0.1)
    (partial,) = (bench.tmp_path / "cut").glob("*.partial")
    finished = {path.name: path.stat().st_mtime_ns for path in partial.glob("pixels-*.h5")}

    decoded_again = []
    monkeypatch.setattr(data_stage, "decode", lambda *given: decoded_again.append(given) or decode(*given))
    resumed = bench.run("cut", max_bad_share=0.1)

    assert sorted(finished) == shards[:3]
    assert {name: (resumed.folder / name).stat().st_mtime_ns for name in finished} == finished
    assert len(decoded_again) == 31 - 4 * len(finished)
    assert resumed.manifest.id == whole.manifest.id
