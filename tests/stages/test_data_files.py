"""What the data step does with other people's folders: nothing is read wrong, and nothing is lost without a word."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import h5py
import nstudent
import numpy as np
import pytest
from nstudent.data.packing.pack_folder import make_pack
from nstudent.data.sources.source import MAX_IMAGE_BYTES
from nstudent.errors import ConfigError, DataError
from nstudent.models.recipe import Recipe
from nstudent.runs import source_seen
from nstudent.runs.run import run_stage
from nstudent.runs.source_seen import SOURCE_SEEN
from nstudent.session import Session
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.tree import Taxonomy
from PIL import Image
from small_folders import SIZE, Bench, Said, classes, divided, left_out, plant, png


def said_by(bench: Bench, run: str = "run", **options: Any) -> tuple[Artifact, list[str]]:
    """The data step of a folder whose levels nobody names, and what it says."""
    data = {"source": "folder", "root": str(bench.root), "image_size": SIZE} | options
    config = nstudent.load_config(
        None, [*(f"data.{key}={json.dumps(value)}" for key, value in data.items()), "rounds=0"]
    )
    said = Said()
    return Artifact(run_stage(config, "data", bench.tmp_path / run, Session(progress=said))), said.lines


OTHERS = {
    "pet/cat/.DS_Store": b"x",
    "pet/cat/notes.txt": b"hello",
    "pet/cat/more.txt": b"hello again",
    "pet/@eaDir/1.png/THUMB.jpg": png(900),
    "pet/dog/1.psd": b"8BPS" + bytes(30),
}


def test_files_that_are_not_taken_are_counted_in_one_line_and_listed(bench: Bench) -> None:
    plant(bench.root, classes() | OTHERS)

    artifact, lines = said_by(bench)

    (line,) = [line for line in lines if "not taken" in line]
    assert line.startswith("  files not taken: 2 not an image (.txt), 1 ")
    assert "1 PSD files (convert them to PNG or JPEG)" in line
    assert line.endswith("each is listed in left_out.json")
    assert left_out(artifact) == {
        "pet/@eaDir": "not taken: in @eaDir (a folder of a machine)",
        "pet/cat/.DS_Store": "not taken: hidden",
        "pet/cat/more.txt": "not taken: not an image (.txt)",
        "pet/cat/notes.txt": "not taken: not an image (.txt)",
        "pet/dog/1.psd": "not taken: PSD files (convert them to PNG or JPEG)",
    }
    assert artifact.manifest.metrics["not_taken"] == 5
    assert artifact.manifest.metrics["unreadable"] == 0


def test_where_everything_is_taken_nothing_is_said_of_it(bench: Bench) -> None:
    plant(bench.root, classes())

    artifact, lines = said_by(bench)

    assert not [line for line in lines if "not taken" in line or "not used" in line]
    assert left_out(artifact) == {}


def test_images_that_are_not_used_are_counted_in_one_line(bench: Bench) -> None:
    plant(bench.root, classes() | {"pet/cat/bad.png": b"<html>", "copy.png": png(1)})

    _, lines = said_by(bench)

    assert "  images not used: 1 unreadable, 1 duplicates; each is listed in left_out.json" in lines


def test_images_under_any_name_are_used(bench: Bench) -> None:
    names = {f"pet/cat/{i}.{suffix}": png(800 + i) for i, suffix in enumerate(("jfif", "jpe", "dat", "PNG"))}
    plant(bench.root, classes() | names | {"pet/dog/noname": png(810)})

    artifact, _ = said_by(bench)

    metrics = artifact.manifest.metrics
    assert metrics["labelled"] + metrics["validation"] + metrics["test"] == 18 + 5
    assert left_out(artifact) == {}


def test_levels_follow_from_the_data(bench: Bench) -> None:
    plant(bench.root, {name.removeprefix("pet/"): content for name, content in classes().items()})

    artifact, lines = said_by(bench)

    assert Taxonomy.from_json(artifact.json("taxonomy.json")).levels == ("class",)
    assert "  data.levels=[class], by the depth of the class folders" in lines


def test_numbers_for_other_levels_than_follow_from_the_data_are_refused_before_an_image_is_read(bench: Bench) -> None:
    plant(bench.root, classes())
    words = ["data.source=folder", f"data.root={bench.root}", "rounds=0", "teacher.level_weights=[1, 2, 3]"]

    with pytest.raises(ConfigError, match=r"teacher\.level_weights has 3 numbers for 2 levels.*coarse, fine"):
        run_stage(nstudent.load_config(None, words), "data", bench.tmp_path / "run")
    assert not list((bench.tmp_path / "run/00-data.partial").glob("pixels*"))


def test_usual_splits_give_the_division(bench: Bench) -> None:
    renamed = {"train": "Training", "validation": "val", "unlabelled": "unlabeled", "test": "test"}
    files = {"/".join([renamed[top], rest]): content for top, rest, content in _divided()}
    plant(bench.root, files)

    metrics = said_by(bench)[0].manifest.metrics

    assert [metrics[name] for name in ("labelled", "validation", "test", "unlabelled")] == [12, 6, 6, 6]


def test_train_and_val_alone_are_enough(bench: Bench) -> None:
    plant(
        bench.root,
        {
            f"{'val' if top != 'train' else top}/{rest}": content
            for top, rest, content in _divided()
            if top in ("train", "test")
        },
    )

    metrics = said_by(bench)[0].manifest.metrics

    assert metrics["validation"] == 6
    assert metrics["labelled"] + metrics["test"] == 12


def _divided() -> list[tuple[str, str, bytes]]:
    return [(*name.split("/", 1), content) for name, content in divided().items()]  # type: ignore[misc]


def test_a_run_within_the_root_is_no_part_of_the_data(bench: Bench) -> None:
    """``cd photos; nstudent run-all data.root=.`` has its run in ``runs/``, beside the class folders."""
    plant(bench.root, classes())
    bench.tmp_path = bench.root / "runs"

    first, _ = said_by(bench)
    again, lines = said_by(bench)
    other, _ = said_by(bench, "other")

    assert lines == ["00-data: up to date"]
    assert again.manifest.id == first.manifest.id == other.manifest.id
    assert Taxonomy.from_json(first.json("taxonomy.json")).classes == (("pet", "stone"), ("cat", "dog"))


# --- packs ------------------------------------------------------------------------------------------------------------


def test_a_pack_lists_what_it_did_not_take_and_gives_its_levels_to_a_run(bench: Bench) -> None:
    plant(bench.root, classes() | OTHERS | {"pet/cat/bad.png": b"<html>"})
    config = nstudent.load_config(
        None, [f"data.{word}" for word in ("source=folder", f"root={bench.root}", "image_size=8")]
    )
    said = Said()

    out = make_pack(config.data, bench.tmp_path / "pack", Session(progress=said))

    assert any(line.startswith("  files not taken: 2 not an image (.txt)") for line in said.lines)
    listed = {entry["name"] for entry in json.loads((out / "left_out.json").read_text())}
    assert listed == {"pet/cat/bad.png", "pet/@eaDir", *(name for name in OTHERS if "@eaDir" not in name)}
    artifact, _ = said_by(bench, source="packed", root=str(out))
    assert Taxonomy.from_json(artifact.json("taxonomy.json")).levels == ("coarse", "fine")


def test_a_pack_of_another_depth_is_refused(bench: Bench) -> None:
    plant(bench.root, classes())
    words = [f"data.{word}" for word in ("source=folder", f"root={bench.root}", "image_size=8", "bits=12")]
    out = make_pack(nstudent.load_config(None, words).data, bench.tmp_path / "pack")

    with pytest.raises(DataError, match=r"was packed with data\.bits=12: ask for that, or pack the source again"):
        said_by(bench, source="packed", root=str(out))
    said_by(bench, source="packed", root=str(out), bits=12)


def test_a_pack_that_was_refused_begins_anew_with_other_settings(bench: Bench) -> None:
    plant(bench.root, classes() | {f"pet/cat/bad{i}.png": b"<html>" + bytes([i]) for i in range(6)})
    words = [f"data.{word}" for word in ("source=folder", f"root={bench.root}", "image_size=8")]

    with pytest.raises(DataError, match=r"6 of 24 images cannot be read.*pack\.partial/left_out\.json lists them"):
        make_pack(nstudent.load_config(None, words).data, bench.tmp_path / "pack")
    assert len(json.loads((bench.tmp_path / "pack.partial/left_out.json").read_text())) == 6
    changed = nstudent.load_config(None, [*words, "data.max_bad_images=6", "data.jpeg_quality=90"])
    make_pack(changed.data, bench.tmp_path / "pack")


# --- depth ------------------------------------------------------------------------------------------------------------


def twelve_bits(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        values = np.random.default_rng([len(folder.name), i]).integers(0, 4_096, (SIZE, SIZE)).astype(np.uint16)
        values[0, 0] = 4_095
        Image.fromarray(values).save(folder / f"{i}.tif")


def test_images_of_twelve_bits_are_refused_by_name_and_read_where_that_is_told(bench: Bench) -> None:
    for name in ("cat", "horse"):
        twelve_bits(bench.root / name, 9)

    with pytest.raises(DataError, match=r"18 of 18 images cannot be read.*16-bit numbers up to 4,095.*set data\.bits"):
        said_by(bench)
    artifact, _ = said_by(bench, bits=12)
    assert artifact.manifest.metrics["unreadable"] == 0


def test_a_classifier_knows_the_depth_that_it_was_trained_with(bench: Bench) -> None:
    tree = Taxonomy.from_tree(["a", "b"], ("class",))
    told, untold = (nstudent.load_config(None, words) for words in (["data.bits=12"], []))

    recipe = Recipe.of(told, tree, told.teacher.members)
    assert Recipe.from_json(recipe.to_json()).bits == 12
    assert "bits" not in Recipe.of(untold, tree, untold.teacher.members).to_json()


@pytest.mark.parametrize("source", ["folder", "csv", "idx", "hdf5"])
def test_of_a_copy_with_other_times_nothing_is_decoded_again(
    source: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = _written_as(source, bench)

    def made() -> str:
        return said_by(bench, **options)[1][0]

    assert made() == "00-data: not made yet"
    monkeypatch.setattr("nstudent.stages.data.fill", lambda *_: pytest.fail("it is decoded again"))
    for number, path in enumerate(sorted(bench.tmp_path.rglob("*"))):
        if "run" not in path.relative_to(bench.tmp_path).parts:
            os.utime(path, (number, number))
    assert made() == "00-data: up to date"


def _written_as(source: str, bench: Bench) -> dict[str, Any]:
    """The same images under one of the sources, one of them broken; what names them."""
    if source == "folder":
        plant(bench.root, classes() | {"pet/cat/broken.png": b"x"})
        return {}
    if source == "csv":
        plant(
            bench.root, {"0.png": png(0), "1.png": png(1), "2.png": b"x"} | {f"{i}.png": png(i) for i in range(3, 30)}
        )
        rows = "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(30))
        (bench.root / "t.csv").write_text(f"path,class\n{rows}")
        plant(bench.tmp_path / "heap", {"x.png": png(100)})
        return {"source": "csv", "table": str(bench.root / "t.csv"), "unlabelled_root": str(bench.tmp_path / "heap")}
    pixels = np.random.default_rng(0).integers(0, 256, (30, SIZE, SIZE), dtype=np.uint8)
    if source == "idx":
        for name in ("train", "t10k"):
            for kind, array in (("images-idx3", pixels), ("labels-idx1", np.arange(30, dtype=np.uint8) % 2)):
                head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
                plant(bench.root, {f"{name}-{kind}-ubyte": head + array.tobytes()})
            pixels = 255 - pixels
        return {"source": "idx", "class_paths": ["a", "b"], "levels": ["fine"], "validation": 5}
    blobs = [png(number) for number in range(30)]
    bench.root.mkdir()
    with h5py.File(bench.root / "packed.h5", "w") as file:
        file["offset"], file["label"] = np.cumsum([0, *map(len, blobs)]), np.arange(30, dtype=np.int16)[:, None] % 2
        file["split"], file["jpeg"] = np.arange(30, dtype=np.int8) // 2 % 4, np.frombuffer(b"".join(blobs), np.uint8)
        file.attrs["meta"] = json.dumps({"levels": [["a", "b"]]})
    return {"source": "hdf5", "root": str(bench.root / "packed.h5"), "levels": ["fine"]}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_among_the_images_is_waited_for_by_nobody(bench: Bench) -> None:
    plant(bench.root, classes())
    os.mkfifo(bench.root / "pet" / "cat" / "pipe.png")
    artifact, _ = said_by(bench)
    assert left_out(artifact) == {"pet/cat/pipe.png": "not a file but a pipe or a device"}
    for path in bench.root.rglob("*.png"):
        os.utime(path, (1, 1))
    # A pipe has no bytes that could be compared.
    assert said_by(bench)[1][0] == "00-data: the source has changed: 19 files of another time"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there are no such files")
def test_of_a_file_that_is_no_image_nobody_reads_more_than_an_image_has(bench: Bench) -> None:
    """An archive of a stranger may hold a sparse file of any size, and links to files of the system without an end."""
    plant(bench.root, classes())
    huge, endless = bench.root / "pet" / "cat" / "huge.png", bench.root / "pet" / "cat" / "endless.png"
    with open(huge, "wb") as file:
        file.truncate(MAX_IMAGE_BYTES + 1)
    endless.symlink_to("/proc/self/status")

    artifact, _ = said_by(bench)

    assert left_out(artifact) == {
        "pet/cat/endless.png": "the file is empty",
        "pet/cat/huge.png": "536,870,913 bytes are too many for an image",
    }
    with h5py.File(bench.tmp_path / "run" / SOURCE_SEEN) as seen:
        assert seen["read"][()].tolist() == [], "nor is it read to be compared with a copy"
    assert source_seen._sha256(endless) == hashlib.sha256().digest()
