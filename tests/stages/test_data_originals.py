"""``data.storage=original``: of an image its digest alone is kept, and what is made of it has the same bytes."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nstudent.config.file import load_config
from nstudent.config.schema import Config
from nstudent.data.dataset import UNREADABLE, Dataset
from nstudent.data.packing import reader
from nstudent.data.packing import shards as packing
from nstudent.data.packing.decoders import CRASHED
from nstudent.data.packing.pack_folder import make_pack
from nstudent.data.sources import folder as folder_source
from nstudent.data.sources.source import read_file
from nstudent.errors import ConfigError, DataError, ImageError
from nstudent.runs.run import run_stage
from nstudent.session import Session
from nstudent.storage import hdf5
from nstudent.storage.artifact import Artifact
from small_folders import SIZE, Bench, Said, classes, divided, plant, png


@pytest.fixture
def photos(bench: Bench) -> Bench:
    """Small images in folders, one of them cut off and one empty."""
    extra = {"unlabelled/cut.png": png(900)[:-20], "unlabelled/empty.png": b""}
    plant(bench.root, divided() | classes(each=6, start=500, prefix="train/more-") | extra)
    return bench


def config_of(bench: Bench, storage: str, *words: str) -> Config:
    keys = {"source": "folder", "root": bench.root, "levels": "[coarse, fine]", "labelled": "null", "image_size": SIZE}
    keys |= {"storage": storage, "max_bad_share": 0.1}
    return load_config(None, [*(f"data.{key}={value}" for key, value in keys.items()), "threads=1", *words])


def made(config: Config, bench: Bench, name: str) -> Artifact:
    return Artifact(run_stage(config, "data", bench.tmp_path / name))


def test_images_are_to_the_bit_what_pixels_would_hold(photos: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_ROWS_OF_ORIGINALS", 8)
    kept, anew = (config_of(photos, storage) for storage in ("pixels", "original"))

    pixels, originals = (made(config, photos, config.data.storage) for config in (kept, anew))

    for name in ("index.h5", "truth.h5", "taxonomy.json", "info.json", "left_out.json", "findings.json"):
        assert pixels.path(name).read_bytes() == originals.path(name).read_bytes()
    assert originals.manifest.metrics == pixels.manifest.metrics
    shards = [hdf5.mapped(originals.path(name)) for name in originals.matching("pixels-")]
    assert [list(shard) for shard in shards] == [["digest"]] * len(shards)
    one, other = Dataset(pixels), Dataset(originals, anew.data)
    assert len(shards) == -(-len(one) // 8)
    assert {name for i in np.flatnonzero(one.status == UNREADABLE) for name in [one.name(int(i))]} == {
        "unlabelled/cut.png",
        "unlabelled/empty.png",
    }
    # Unreadable ones, too: black.
    everything = np.arange(len(one))
    assert np.array_equal(one.pixels[everything], other.pixels[everything])
    assert other.pixels.decodes_anew
    assert not one.pixels.decodes_anew


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("workers=0",), ("workers=1", "augment=image", "data.image_size=40")], ids=["thread", "process"]
)
def test_what_is_trained_has_the_bytes_it_has_of_pixels(photos: Bench, words: tuple[str, ...]) -> None:
    """From files, decoded in the thread that prepares or in a loader process; validated on the way."""
    weights = []
    for storage in ("pixels", "original"):
        config, run = config_of(photos, storage, "student.epochs=2", *words), photos.tmp_path / storage
        run_stage(config, "data", run)
        weights.append((run_stage(config, "baseline", run) / "member-0.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_what_is_labelled_has_the_bytes_it_has_of_pixels(tiny: Callable[..., Config], tmp_path: Path) -> None:
    labels = []
    for storage in ("pixels", "original"):
        config, run = tiny(f"data.storage={storage}", "data.unlabelled=60"), tmp_path / storage
        for stage in ("data", "teacher", "choose", "pseudolabel"):
            folder = run_stage(config, stage, run)
        labels.append({path.name: path.read_bytes() for path in folder.glob("*.h5")})
    assert len(labels[0]) >= 2
    assert labels[0] == labels[1]


@pytest.mark.slow
def test_an_image_that_changed_since_is_named_and_what_it_says_helps(photos: Bench) -> None:
    config = config_of(photos, "original", "augment=image", "workers=1", "student.epochs=2")
    run = photos.tmp_path / "run"
    run_stage(config, "data", run)
    path = photos.root / "train" / "pet" / "cat" / "1.png"
    before = path.stat()
    path.write_bytes(png(777))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    # Of the same size and date: the stamp of the source does not see it, the digest does.
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"train/pet/cat/1\.png is not what .* \(its content has changed\): put back"
        ):
            run_stage(config, "baseline", run)

    # The other way out that it names.
    shutil.rmtree(run / "00-data")
    run_stage(config, "data", run)
    run_stage(config, "baseline", run)
    assert (run / "03-baseline" / "manifest.json").exists()


def test_an_image_that_is_gone_is_named(photos: Bench) -> None:
    config = config_of(photos, "original")
    dataset = Dataset(made(config, photos, "run"), config.data)
    image = int(dataset.labelled[0])
    assert dataset.pixels[np.array([image])].any()

    (photos.root / dataset.name(image)).unlink()

    expected = rf"^{dataset.name(image)} is not what the data step has seen \(cannot be read: No such file"
    with pytest.raises(DataError, match=expected):
        dataset.pixels[np.array([image])]


def test_a_file_that_was_put_in_the_place_of_an_image_is_never_decoded(
    photos: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a training or a labelling decodes nothing limits a codec: it gets what the data step has read in limits."""
    config = config_of(photos, "original")
    dataset = Dataset(made(config, photos, "run"), config.data)
    image = int(dataset.labelled[0])
    (photos.root / dataset.name(image)).write_bytes(png(777))

    monkeypatch.setattr(reader, "decode", lambda *_: pytest.fail("it is decoded"))
    with pytest.raises(DataError, match=r"is not what the data step has seen \(its content has changed\)"):
        dataset.pixels[np.array([image])]


def test_an_image_that_cannot_be_decoded_any_more_is_no_black_one(
    photos: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(photos, "original")
    dataset = Dataset(made(config, photos, "run"), config.data)

    def short(*_: object) -> None:
        raise ImageError("out of memory")

    monkeypatch.setattr(reader, "decode", short)
    with pytest.raises(DataError, match=r"is not what the data step has seen \(out of memory\)"):
        dataset.pixels[dataset.labelled[:1]]


def test_no_square_is_held_for_a_shard_that_keeps_none(photos: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, encoded = [], packing.Layout.encoded
    monkeypatch.setattr(
        packing.Layout, "encoded", lambda layout, images: (seen.extend(images), encoded(layout, images))[1]
    )
    made(config_of(photos, "original"), photos, "run")
    assert {image.pixels.nbytes for image in seen if image.readable} == {0}


def test_a_source_with_another_number_of_images_is_refused(photos: Bench) -> None:
    config = config_of(photos, "original")
    artifact = made(config, photos, "run")
    plant(photos.root, {"unlabelled/more.png": png(999)})
    with pytest.raises(DataError, match=r"has \d+ images, and had \d+ when the data step read it: put back"):
        Dataset(artifact, config.data).pixels[np.arange(2)]


def test_without_its_source_nothing_can_be_looked_at(photos: Bench) -> None:
    artifact = made(config_of(photos, "original"), photos, "run")
    with pytest.raises(ConfigError, match="these images are not kept"):
        Dataset(artifact).pixels[np.arange(2)]


def test_what_ended_its_decoder_once_is_not_given_to_it_again(photos: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(photos, "original")
    artifact = made(config, photos, "run")
    path = artifact.path("pixels-00000.h5")
    other = photos.tmp_path / "pixels-00000.h5"
    hdf5.write(other, hdf5.mapped(path), {"unreadable": json.dumps({"3": CRASHED})})
    dataset = Dataset(artifact, config.data)
    dataset.pixels._shards = [other]
    monkeypatch.setattr(folder_source, "read_file", lambda path, root: pytest.fail("it was read"))
    assert not dataset.pixels[np.array([3])].any()


@pytest.mark.slow
def test_a_training_says_what_packing_would_gain_where_it_waits(photos: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(path: Path, root: Path) -> bytes:
        time.sleep(0.01)
        return read_file(path, root)

    def said(storage: str) -> list[str]:
        heard = Said()
        config = config_of(photos, storage, "student.epochs=6")
        run_stage(config, "data", photos.tmp_path / storage)
        run_stage(config, "baseline", photos.tmp_path / storage, Session(progress=heard))
        return [line for line in heard.lines if "waiting for images" in line]

    monkeypatch.setattr(folder_source, "read_file", slow)
    assert said("pixels") == []
    (line,) = said("original")
    assert "data.storage=pixels decodes them once (0.0 MiB)" in line


def test_there_is_nothing_to_pack(photos: Bench) -> None:
    config = config_of(photos, "original").data
    with pytest.raises(ConfigError, match=r"data\.storage=original keeps no image"):
        make_pack(config, photos.tmp_path / "pack")
    pack = make_pack(config.model_copy(update={"storage": "pixels"}), photos.tmp_path / "pack")
    shutil.rmtree(photos.root)
    changed = config.model_copy(update={"source": "packed", "root": str(pack)})
    with pytest.raises(DataError, match=r"was packed with data\.storage=pixels"):
        made(config_of(photos, "original").model_copy(update={"data": changed}), photos, "run")
