"""``data.storage``: squares kept as pixels or as JPEG. What is left out, who is in which split, is the same."""

import io
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset
from nstudent.data.packing import shards as packing
from nstudent.runs.run import run_all, run_stage
from nstudent.runs.status import status
from nstudent.runs.verification import repair, verify
from nstudent.session import Session
from nstudent.storage import hdf5
from nstudent.storage.artifact import Artifact
from PIL import Image
from sklearn.datasets import load_sample_images
from small_folders import SIZE, Bench, Said, classes, divided, plant, png

SIDE = 32
SHARD_ROWS = 8


def encoded(pixels: np.ndarray, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.fixture
def photos(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A source of 72 pieces of photos, among them a near-duplicate, a duplicate and a broken one; shards of eight."""
    pieces = [
        photo[top : top + 60, left : left + 60]
        for photo in load_sample_images().images
        for top in range(0, 360, 60)
        for left in range(0, 360, 60)
    ]
    names = [f"{('pet/cat', 'pet/dog', 'stone')[i % 3]}/{i:02d}.png" for i in range(len(pieces))]
    files = {f"train/{name}": encoded(piece, "PNG") for name, piece in zip(names, pieces, strict=True)}
    held_out = sorted(files)[::6]
    files |= {
        name.replace("train", "test" if i % 2 else "validation"): files.pop(name) for i, name in enumerate(held_out)
    }
    files["unlabelled/copy.jpg"] = encoded(pieces[18], "JPEG", quality=80)
    files["unlabelled/same.png"] = next(content for name, content in files.items() if name.startswith("test"))
    files["unlabelled/broken.png"] = encoded(pieces[1], "PNG")[:-40]
    files["unlabelled/other.png"] = png(5)
    plant(bench.root, files)
    monkeypatch.setattr(packing, "SHARD_BYTES", SHARD_ROWS * SIDE * SIDE * 3)
    return bench


def as_kept(bench: Bench, storage: str, run: str | None = None) -> Artifact:
    return bench.run(run or storage, storage=storage, image_size=SIDE, max_bad_share=0.1)


def shards(artifact: Artifact) -> list[dict[str, np.ndarray]]:
    return [hdf5.mapped(artifact.path(name)) for name in artifact.matching("pixels-")]


def test_all_but_the_pixels_is_the_same(photos: Bench) -> None:
    pixels, jpeg = as_kept(photos, "pixels"), as_kept(photos, "jpeg")

    for name in ("index.h5", "truth.h5", "taxonomy.json", "info.json", "left_out.json"):
        assert pixels.path(name).read_bytes() == jpeg.path(name).read_bytes()
    # What is measured of a pair depends on the pixels in its third digit.
    pairs = [
        [(pair["name"], pair["of"]) for pair in each.json("findings.json")["near_duplicates"]]
        for each in (pixels, jpeg)
    ]
    assert pairs == [[("unlabelled/copy.jpg", "test/pet/cat/18.png")]] * 2
    assert jpeg.manifest.metrics == pixels.manifest.metrics
    assert [jpeg.manifest.metrics[key] for key in ("unreadable", "near_duplicates", "duplicates")] == [1, 1, 1]
    digests = [np.concatenate([shard["digest"] for shard in shards(each)]) for each in (pixels, jpeg)]
    assert np.array_equal(*digests)
    sets = Dataset(pixels), Dataset(jpeg)
    left, right = (each.pixels[np.flatnonzero(each.status == 0)].astype(float) for each in sets)
    assert 10 * np.log10(255**2 / ((left - right) ** 2).mean()) > 34


def test_shards_of_jpeg_hold_more_rows_all_the_same_number(photos: Bench) -> None:
    jpeg = as_kept(photos, "jpeg")

    rows = [len(shard["offset"]) - 1 for shard in shards(jpeg)]

    # 32 px: 3,072 bytes as pixels; 620 + 1,024 as JPEG.
    assert rows == [14] * 5 + [len(Dataset(jpeg)) - 5 * 14]
    assert [set(shard) for shard in shards(jpeg)] == [{"jpeg", "offset", "crc32", "digest"}] * 6


_KILLED = """
import os, signal, sys
from nstudent import load_config, run_stage
from nstudent.data.packing import shards as packing
packing.SHARD_BYTES = int(sys.argv[1])
write = packing.SealedFiles.write
def dying(sealed, name, content):
    if name == "pixels-00002.h5":
        os.kill(os.getpid(), signal.SIGKILL)
    write(sealed, name, content)
packing.SealedFiles.write = dying
run_stage(load_config(None, sys.argv[3:]), "data", sys.argv[2])
"""


@pytest.mark.slow
def test_killed_between_two_shards_it_goes_on_to_the_same_bytes(photos: Bench) -> None:
    whole = as_kept(photos, "jpeg", "whole")
    words = [f"{key}={value}" for key, value in _words(photos).items()]
    command = [sys.executable, "-c", _KILLED, str(packing.SHARD_BYTES), str(photos.tmp_path / "cut"), *words]

    done = subprocess.run(command, timeout=120, capture_output=True, check=False)

    assert done.returncode == -signal.SIGKILL, done.stderr
    partial = photos.tmp_path / "cut" / "00-data.partial"
    finished = {path.name: path.stat().st_mtime_ns for path in partial.glob("pixels-*.h5")}
    assert sorted(finished) == whole.matching("pixels-")[:2]
    resumed = as_kept(photos, "jpeg", "cut")
    assert resumed.manifest.files == whole.manifest.files
    assert {name: (resumed.folder / name).stat().st_mtime_ns for name in finished} == finished


def _words(bench: Bench) -> dict[str, Any]:
    return {
        "data.source": "folder",
        "data.root": bench.root,
        "data.levels": "[coarse, fine]",
        "data.labelled": "null",
        "data.image_size": SIDE,
        "data.max_bad_share": 0.1,
        "data.storage": "jpeg",
    }


@pytest.mark.parametrize(
    ("side", "limit", "said"),
    [
        (64, 8 << 30, "  data.storage=pixels, 21.1 MiB (jpeg: about 8.1 MiB)"),
        (64, 1 << 20, "  data.storage=jpeg, about 8.1 MiB (pixels: 21.1 MiB)"),
        (16, 1 << 20, "  data.storage=pixels, 1.3 MiB (jpeg: about 1.5 MiB)"),
    ],
    ids=["small", "large", "icons, of which JPEG makes more"],
)
def test_auto_goes_by_the_size_of_the_whole_set_and_says_so(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, limit: int, said: str
) -> None:
    monkeypatch.setattr(packing, "MAX_RAW_BYTES", limit)
    heard = Said()

    folder = run_stage(tiny(f"data.image_size={side}", "rounds=0"), "data", tmp_path, Session(progress=heard))

    assert f"storage={'jpeg' if 'jpeg' in hdf5.mapped(folder / 'pixels-00000.h5') else 'pixels'}," in said
    assert [line for line in heard.lines if "storage" in line] == [said]


def test_what_was_asked_for_needs_no_word(tiny: Callable[..., Config], tmp_path: Path) -> None:
    heard = Said()
    run_stage(tiny("data.storage=pixels", "rounds=0"), "data", tmp_path, Session(progress=heard))
    assert not [line for line in heard.lines if "storage" in line]


@pytest.mark.slow
def test_a_whole_run_on_jpeg_and_a_damaged_shard_of_it(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "SHARD_BYTES", 200 * SIDE * SIDE * 3)
    fast = ("teacher.epochs=8", "filter.enabled=false", "student.epochs=1", "evaluate.resamples=10", "workers=1")
    config = tiny("data.storage=jpeg", "data.image_size=32", *fast)
    folder = run_all(config, tmp_path / "run")
    assert {state.state for state in status(folder)} == {"done"}
    paths = sorted((folder / "00-data").glob("pixels-*.h5"))
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}
    assert len(paths) == 5

    damaged = bytearray(before[paths[1].name][1])
    damaged[len(damaged) // 2] ^= 1
    paths[1].write_bytes(damaged)

    assert [(bad.step, bad.file) for bad in verify(folder)] == [("00-data", paths[1].name)]
    repair(folder)
    assert {path.name: path.read_bytes() for path in paths} == {name: content for name, (_, content) in before.items()}
    assert [path.name for path in paths if path.stat().st_mtime_ns != before[path.name][0]] == [paths[1].name]
    assert {state.state for state in status(folder)} == {"done"}
    assert verify(folder) == []


def test_the_quality_is_that_of_the_configuration(bench: Bench) -> None:
    plant(bench.root, divided() | classes(each=1, start=500, prefix="train/"))
    sizes = [
        sum(len(shard["jpeg"]) for shard in shards(bench.run(f"q{quality}", storage="jpeg", jpeg_quality=quality)))
        for quality in (50, 100)
    ]
    assert sizes[0] < sizes[1]
    assert Dataset(Artifact(bench.tmp_path / "q50" / "00-data")).pixels[np.arange(2)].shape == (2, SIZE, SIZE, 3)
