"""``data.storage=original``: of an image its digest alone is kept, and what is made of it has the same bytes."""

import os
import shutil
import time

import numpy as np
import pytest
from nstudent import hdf5
from nstudent.artifact import Artifact
from nstudent.config_file import load_config
from nstudent.data import packing
from nstudent.data.dataset import UNREADABLE, Dataset
from nstudent.data.decoders import NO_DIGEST
from nstudent.data.pack_folder import make_pack
from nstudent.data.sources import folder as folder_source
from nstudent.data.sources.source import read_file
from nstudent.errors import ConfigError, DataError
from nstudent.progress import Silence
from nstudent.run import run_stage
from small_folders import SIZE, classes, divided, plant, png


class Said(Silence):
    """Progress that keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def photos(bench):
    """Small images in folders, one of them cut off and one empty."""
    extra = {"unlabelled/cut.png": png(900)[:-20], "unlabelled/empty.png": b""}
    plant(bench.root, divided() | classes(each=6, start=500, prefix="train/more-") | extra)
    return bench


def config_of(bench, storage, *words):
    keys = {"source": "folder", "root": bench.root, "levels": "[coarse, fine]", "labelled": "null", "image_size": SIZE}
    keys |= {"storage": storage, "max_bad_share": 0.1}
    return load_config(None, [*(f"data.{key}={value}" for key, value in keys.items()), "threads=1", *words])


def made(config, bench, name):
    return Artifact(run_stage(config, "data", bench.tmp_path / name))


def test_images_are_to_the_bit_what_pixels_would_hold(photos, monkeypatch):
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


@pytest.mark.parametrize(
    ("stages", "words"),
    [(("teacher", "pseudolabel"), ("workers=0",)), (("baseline",), ("workers=1", "augment=image", "student.epochs=2"))],
    ids=["thread", "process"],
)
def test_what_is_trained_and_labelled_has_the_bytes_it_has_of_pixels(tiny, tmp_path, stages, words):
    made_of = {}
    for storage in ("pixels", "original"):
        config = tiny(f"data.storage={storage}", "data.unlabelled=60", *words)
        run_stage(config, "data", tmp_path / storage)
        folders = [run_stage(config, stage, tmp_path / storage) for stage in stages]
        files = [path for folder in folders for kind in ("*.safetensors", "*.h5") for path in folder.rglob(kind)]
        made_of[storage] = {path.name: path.read_bytes() for path in files}
    assert len(made_of["pixels"]) >= len(stages)
    assert made_of["pixels"] == made_of["original"]


def test_an_image_that_changed_since_is_named_and_the_same_command_begins_anew(photos):
    config = config_of(photos, "original", "augment=image", "workers=1", "student.epochs=2")
    run = photos.tmp_path / "run"
    run_stage(config, "data", run)
    path = photos.root / "train" / "pet" / "cat" / "1.png"
    before = path.stat()
    path.write_bytes(png(777))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    # Of the same size and date: the stamp of the source does not see it, the digest does.
    with pytest.raises(
        DataError, match=r"train/pet/cat/1\.png is not what .* \(its content has changed\): put it back"
    ):
        run_stage(config, "baseline", run)

    os.utime(path)
    run_stage(config, "data", run)
    run_stage(config, "baseline", run)
    assert (run / "02-baseline" / "manifest.json").exists()


def test_an_image_that_is_gone_is_named(photos):
    config = config_of(photos, "original")
    dataset = Dataset(made(config, photos, "run"), config.data)
    image = int(dataset.labelled[0])
    assert dataset.pixels[np.array([image])].any()

    (photos.root / dataset.name(image)).unlink()

    expected = rf"^{dataset.name(image)} is not what the data step has seen \(cannot be read: No such file"
    with pytest.raises(DataError, match=expected):
        dataset.pixels[np.array([image])]


def test_a_source_with_another_number_of_images_is_refused(photos):
    config = config_of(photos, "original")
    artifact = made(config, photos, "run")
    plant(photos.root, {"unlabelled/more.png": png(999)})
    with pytest.raises(
        DataError, match=r"has \d+ images, and had \d+ when the data step read it: run the same command"
    ):
        Dataset(artifact, config.data).pixels[np.arange(2)]


def test_without_its_source_nothing_can_be_looked_at(photos):
    artifact = made(config_of(photos, "original"), photos, "run")
    with pytest.raises(ConfigError, match="these images are not kept"):
        Dataset(artifact).pixels[np.arange(2)]


def test_what_ended_its_decoder_once_is_not_given_to_it_again(photos, monkeypatch):
    config = config_of(photos, "original")
    artifact = made(config, photos, "run")
    path = artifact.path("pixels-00000.h5")
    arrays = {"digest": np.array(hdf5.mapped(path)["digest"])}
    arrays["digest"][3] = np.frombuffer(NO_DIGEST, np.uint8)
    other = photos.tmp_path / "pixels-00000.h5"
    hdf5.write(other, arrays, hdf5.attributes(path))
    dataset = Dataset(artifact, config.data)
    dataset.pixels._shards = [other]
    monkeypatch.setattr(folder_source, "read_file", lambda path, root: pytest.fail("it was read"))
    assert not dataset.pixels[np.array([3])].any()


def test_a_training_says_what_packing_would_gain_where_it_waits(photos, monkeypatch):
    def slow(path, root):
        time.sleep(0.01)
        return read_file(path, root)

    def said(storage):
        heard = Said()
        config = config_of(photos, storage, "student.epochs=6")
        run_stage(config, "data", photos.tmp_path / storage)
        run_stage(config, "baseline", photos.tmp_path / storage, heard)
        return [line for line in heard.lines if "waiting for images" in line]

    monkeypatch.setattr(folder_source, "read_file", slow)
    assert said("pixels") == []
    (line,) = said("original")
    assert "data.storage=pixels decodes them once (0.0 MiB)" in line


def test_there_is_nothing_to_pack(photos):
    config = config_of(photos, "original").data
    with pytest.raises(ConfigError, match=r"data\.storage=original keeps no image"):
        make_pack(config, photos.tmp_path / "pack")
    pack = make_pack(config.model_copy(update={"storage": "pixels"}), photos.tmp_path / "pack")
    shutil.rmtree(photos.root)
    changed = config.model_copy(update={"source": "packed", "root": str(pack)})
    with pytest.raises(DataError, match=r"was packed with data\.storage=pixels"):
        made(config_of(photos, "original").model_copy(update={"data": changed}), photos, "run")
