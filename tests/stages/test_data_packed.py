"""``nstudent data pack`` and ``data.source=packed``: decoded once, and every run as if it had decoded by itself."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nstudent
import pytest
from nstudent.config.schema import DataConfig
from nstudent.data.packing import shards as packing
from nstudent.data.packing.pack_folder import make_pack
from nstudent.data.sources import open_source
from nstudent.errors import ArtifactError, BusyError, ConfigError, DataError
from nstudent.progress import Silence
from nstudent.runs.verification import repair, verify
from nstudent.storage.artifact import Artifact, Manifest
from nstudent.storage.lock import hold_beside
from small_folders import SIZE, Bench, classes, divided, plant, png

BROKEN = {"train/pet/cat/broken.png": png(1)[:-30], os.fsdecode(b"unlabelled/caf\xe9 \xf0\x9f\x90\x88.png"): b"<html>"}


@pytest.fixture
def photos(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A source with splits, copies and broken files, four images a shard."""
    monkeypatch.setattr(packing, "SHARD_BYTES", 4 * SIZE * SIZE * 3)
    plant(bench.root, divided() | BROKEN | {"unlabelled/copy.png": png(100)})
    return bench


def settings(bench: Bench, **options: Any) -> DataConfig:
    data = {"source": "folder", "root": str(bench.root), "levels": ["coarse", "fine"], "image_size": SIZE}
    data |= {"max_bad_share": 0.1} | options
    return nstudent.load_config(overrides=[f"data.{key}={json.dumps(value)}" for key, value in data.items()]).data


class Heard(Silence):
    """Progress that keeps what is said."""

    def __init__(self) -> None:
        self.lines = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def packed(bench: Bench, out: str = "pack", repair: bool = False, **options: Any) -> tuple[Path, list[str]]:
    """(folder, what was said)."""
    heard = Heard()
    return make_pack(
        settings(bench, **options), bench.tmp_path / out, nstudent.Session(progress=heard), repair=repair
    ), heard.lines


def run_packed(bench: Bench, run: str, out: Path, **options: Any) -> Artifact:
    return bench.run(run, **{"source": "packed", "root": str(out), "max_bad_share": 0.1} | options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# --- a run of it ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["pixels", "jpeg"])
@pytest.mark.parametrize(
    "options",
    [{}, {"unlabelled": 3, "near_duplicates": "report"}, {"labelled": 9, "label_noise": 0.4}],
    ids=["as it is", "thinned", "noisy"],
)
def test_a_run_of_a_pack_has_the_bytes_of_a_run_of_its_source(
    photos: Bench, storage: str, options: dict[str, Any]
) -> None:
    out, _ = packed(photos, storage=storage)

    one = photos.run("source", storage=storage, max_bad_share=0.1, **options)
    other = run_packed(photos, "packed", out, **options)

    assert other.manifest.files == one.manifest.files
    assert other.manifest.metrics == one.manifest.metrics
    assert len(other.matching("pixels-")) == (9 if storage == "pixels" else 33)
    assert other.manifest.metrics["unreadable"] == 2


@pytest.mark.slow
def test_splits_are_drawn_by_the_seed_of_the_run(bench: Bench) -> None:
    plant(bench.root, classes(each=20))
    out, _ = packed(bench)
    words = {"levels": "[coarse, fine]", "image_size": SIZE, "labelled": 20}
    made = {}
    for source, root in (("folder", bench.root), ("packed", out)):
        for seed in (0, 1):
            keys = {"source": source, "root": root, **words}
            config = nstudent.load_config(overrides=[f"seed={seed}", *(f"data.{k}={v}" for k, v in keys.items())])
            made[source, seed] = Manifest.read(
                nstudent.run_stage(config, "data", bench.tmp_path / f"{source}{seed}")
            ).id
    assert made["folder", 0] == made["packed", 0]
    assert made["folder", 1] == made["packed", 1]
    assert made["packed", 0] != made["packed", 1]


def test_the_shards_are_linked_and_the_run_outlives_the_pack(photos: Bench) -> None:
    out, _ = packed(photos)
    artifact = run_packed(photos, "run", out)
    for name in artifact.matching("pixels-"):
        assert (artifact.folder / name).samefile(out / name)

    shutil.rmtree(out)

    assert [bad.file for bad in verify(photos.tmp_path / "run")] == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no second file system")
def test_from_another_disk_they_are_copied(photos: Bench) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if os.stat(elsewhere).st_dev == os.stat(photos.tmp_path).st_dev:
            pytest.skip("it is the same file system")
        out = make_pack(settings(photos), Path(elsewhere) / "pack")
        artifact = run_packed(photos, "run", out)
        assert all(not (artifact.folder / name).samefile(out / name) for name in artifact.matching("pixels-"))
        assert artifact.manifest.files == photos.run("source", max_bad_share=0.1).manifest.files


def test_a_pack_is_the_same_wherever_it_lies(photos: Bench) -> None:
    out, _ = packed(photos)
    stamp = open_source(settings(photos, source="packed", root=str(out))).seen().stamp
    moved = photos.tmp_path / "moved" / "pack"
    shutil.copytree(out, moved)
    assert open_source(settings(photos, source="packed", root=str(moved))).seen().stamp == stamp


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_size": 16}, "was packed with data.image_size=8: ask for that, or pack the source again"),
        ({"storage": "jpeg"}, "was packed with data.storage=pixels: ask for that"),
        ({"levels": ["fine", "coarse"]}, "was packed with data.levels=['coarse', 'fine']: ask for that"),
        (
            {"max_bad_share": 0.01, "max_bad_images": 1},
            "2 of 33 images cannot be read, the first is train/pet/cat/broken.png",
        ),
        ({"root": "root"}, "root is no pack: nstudent data pack"),
        ({"root": "nowhere"}, "data.root: there is no folder"),
    ],
)
def test_what_does_not_fit_the_pack_is_named_with_its_remedy(photos: Bench, options: dict[str, Any], said: str) -> None:
    out, _ = packed(photos)
    options = {**options, "root": str(photos.tmp_path / options.get("root", out.name))}
    with pytest.raises(DataError) as caught:
        run_packed(photos, "run", out, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_damaged_pack_is_noticed_while_it_is_linked_and_repaired_to_its_bytes(photos: Bench) -> None:
    out, _ = packed(photos)
    before = contents(out)
    flip(out / "pixels-00002.h5")

    with pytest.raises(
        ArtifactError, match=r"pixels-00002\.h5 has changed since it was packed: nstudent data pack .*--rep"
    ):
        run_packed(photos, "run", out)
    assert packed(photos)[1] == [f"{out}: up to date"], "without --repair nothing is hashed"
    untouched = (out / "pixels-00001.h5").stat().st_mtime_ns
    assert f"{out}: making pixels-00002.h5 again" in packed(photos, repair=True)[1]

    after = contents(out)
    assert {name for name in before if after[name] != before[name]} <= {"manifest.json"}, "it says how long it took"
    assert (out / "pixels-00001.h5").stat().st_mtime_ns == untouched
    assert run_packed(photos, "run", out).manifest.files == photos.run("source", max_bad_share=0.1).manifest.files


@pytest.mark.parametrize("name", ["records.h5", "info.json"])
def test_damage_to_what_describes_the_images_is_noticed(photos: Bench, name: str) -> None:
    out, _ = packed(photos)
    flip(out / name)
    with pytest.raises(ArtifactError, match=f"{name} has changed since it was packed"):
        run_packed(photos, "run", out)


def test_a_missing_file_is_made_again_without_being_asked(photos: Bench) -> None:
    out, _ = packed(photos)
    before = contents(out)
    (out / "pixels-00003.h5").unlink()
    with pytest.raises(ArtifactError, match=r"pixels-00003\.h5 is missing: nstudent data pack"):
        run_packed(photos, "run", out)
    packed(photos)
    assert contents(out).keys() == before.keys()
    assert (out / "pixels-00003.h5").read_bytes() == before["pixels-00003.h5"]


def test_repairing_a_run_does_not_write_into_the_pack(photos: Bench) -> None:
    out, _ = packed(photos)
    artifact = run_packed(photos, "run", out)
    before, times = contents(out), {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    shard = artifact.folder / "pixels-00001.h5"
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content[:-1] + b"x")

    assert [bad.file for bad in repair(photos.tmp_path / "run")] == ["pixels-00001.h5"]

    assert contents(out) == before
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == times
    assert shard.samefile(out / "pixels-00001.h5")
    assert verify(photos.tmp_path / "run") == []


def test_bits_that_rot_in_a_linked_file_are_repaired_in_the_pack_and_then_in_the_run(photos: Bench) -> None:
    """One file under two names: what is made again is another one, and neither is written through."""
    out, _ = packed(photos)
    artifact = run_packed(photos, "run", out)
    shard = artifact.folder / "pixels-00001.h5"
    content = shard.read_bytes()
    flip(shard)

    with pytest.raises(ArtifactError, match=r"pack/pixels-00001\.h5 has changed since it was packed"):
        repair(photos.tmp_path / "run")
    packed(photos, repair=True)
    repair(photos.tmp_path / "run")

    assert (out / "pixels-00001.h5").read_bytes() == shard.read_bytes() == content
    assert verify(photos.tmp_path / "run") == []


@pytest.mark.slow
def test_a_pack_made_anew_leaves_the_runs_of_the_old_one_alone(photos: Bench) -> None:
    out, _ = packed(photos)
    artifact = run_packed(photos, "run", out)
    before = contents(artifact.folder)

    plant(photos.root, {"train/stone/new.png": png(900)})
    _, said = packed(photos)

    assert said[0].startswith(f"{out}: the source has changed")
    assert contents(artifact.folder) == before
    assert verify(photos.tmp_path / "run") == []
    assert len(run_packed(photos, "run", out).json("left_out.json")) == 3
    assert contents(artifact.folder) != before, "the run follows the pack"


# --- making it --------------------------------------------------------------------------------------------------------


def test_again_it_does_nothing_and_says_so(photos: Bench) -> None:
    out, said = packed(photos)
    assert said[0] == f"{out}: not made yet"
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert packed(photos)[1] == [f"{out}: up to date"]
    assert packed(photos, repair=True)[1] == [f"{out}: up to date"]
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == times


def test_other_settings_make_it_anew_and_those_of_a_run_do_not(photos: Bench) -> None:
    out, _ = packed(photos)
    assert packed(photos, labelled=3, near_duplicates="ignore", label_noise=0.5)[1] == [f"{out}: up to date"]
    assert packed(photos, image_size=16)[1][0] == f"{out}: data.image_size changed from 8 to 16"
    assert not list(photos.tmp_path.glob("pack.*"))


_STOPPED = """
import os, signal, sys
from nstudent import cli
from nstudent.data.packing import shards as packing
packing.SHARD_BYTES = int(sys.argv.pop(1))
number = getattr(signal, sys.argv.pop(1))
write = packing.SealedFiles.write
def writing(sealed, name, content):
    write(sealed, name, content)
    if name == "pixels-00003.h5":
        os.kill(os.getpid(), number)
packing.SealedFiles.write = writing
cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 75), ("SIGINT", 75), ("SIGKILL", -signal.SIGKILL)])
def test_stopped_or_killed_it_goes_on_to_the_same_bytes(photos: Bench, number: str, code: int) -> None:
    whole, _ = packed(photos, "whole")
    out = photos.tmp_path / "cut"
    keys = {"source": "folder", "root": photos.root, "levels": "[coarse, fine]", "image_size": SIZE}
    words = [f"data.{key}={value}" for key, value in {**keys, "max_bad_share": 0.1}.items()]
    command = [sys.executable, "-c", _STOPPED, str(packing.SHARD_BYTES), number, "data", "pack", str(out), *words]

    done = subprocess.run(command, timeout=120, capture_output=True, text=True, check=False)

    assert done.returncode == code, done.stderr
    assert not out.exists()
    finished = sorted((photos.tmp_path / "cut.partial").glob("pixels-*.h5"))
    times = [path.stat().st_mtime_ns for path in finished]
    assert [path.name for path in finished] == [f"pixels-{i:05d}.h5" for i in range(4)]
    packed(photos, "cut")
    assert Manifest.read(out).files == Manifest.read(whole).files
    assert [(out / path.name).stat().st_mtime_ns for path in finished] == times


def test_unfinished_work_for_other_settings_is_not_thrown_away(photos: Bench) -> None:
    partial = photos.tmp_path / "pack.partial"
    shutil.copytree(packed(photos, "whole")[0], partial)
    (partial / "manifest.json").unlink()
    (partial / "asked.json").write_text('{"asked": {"settings": {}, "inputs": {}}, "inputs": {}}')
    with pytest.raises(ArtifactError, match=r"pack\.partial holds unfinished work for other settings"):
        packed(photos)
    assert (partial / "records.h5").exists()


@pytest.mark.parametrize("name", ["pack", "pack.partial", "pack.before"])
def test_what_is_no_pack_is_not_replaced(photos: Bench, name: str) -> None:
    theirs = photos.tmp_path / name
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("mine")
    with pytest.raises(ArtifactError, match=f"{name} .*holds something else"):
        packed(photos)
    assert (theirs / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("name", ["pack", "pack.partial", "pack.before"])
def test_links_are_not_packed_through(photos: Bench, name: str) -> None:
    elsewhere = photos.tmp_path / "elsewhere"
    elsewhere.mkdir()
    (photos.tmp_path / name).symlink_to(elsewhere)
    with pytest.raises(ArtifactError, match=f"{name} is"):
        packed(photos)
    assert not list(elsewhere.iterdir())


def test_a_pack_of_a_pack_and_a_name_that_is_none_are_refused(photos: Bench) -> None:
    out, _ = packed(photos)
    with pytest.raises(ConfigError, match=r"data\.source packed is a pack already"):
        packed(photos, "again", source="packed", root=str(out))
    with pytest.raises(ConfigError, match="is no name of a folder"):
        make_pack(settings(photos), "..")


def test_a_label_that_fits_no_tree_is_said_before_anything_is_decoded(photos: Bench) -> None:
    with pytest.raises(DataError, match=r"train/pet/cat/0\.png"):
        packed(photos, taxonomy={"stone": None, "pet": ["dog"]})
    assert not list((photos.tmp_path / "pack.partial").glob("pixels-*"))


def test_too_many_unreadable_images_stop_it(photos: Bench) -> None:
    with pytest.raises(DataError, match="1 of 33 images cannot be read, the first is train/pet/cat/broken"):
        packed(photos, max_bad_share=0.0, max_bad_images=0)


@pytest.mark.slow
def test_one_process_at_a_time(photos: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nstudent.storage.lock._GRACE_SECONDS", 0.0)
    with hold_beside(photos.tmp_path / "pack"), pytest.raises(BusyError, match=r"pack is in use by process \d+ on"):
        packed(photos)
    packed(photos)


@pytest.mark.slow
def test_the_command_says_how_to_use_it(photos: Bench, nstudent: Callable[..., Any]) -> None:
    words = [f"data.root={photos.root}", "data.source=folder", "data.levels=[coarse, fine]", "data.max_bad_share=0.1"]
    done = nstudent("data", "pack", "out", *words, "data.image_size=8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "out: 33 images, 2 of them unreadable",
        "use it:  data.source=packed data.root=out data.image_size=8",
    ]
    assert nstudent("data", "pack", "out", *words, "data.image_size=8").stderr == "out: up to date\n"
    assert nstudent("data", "pack", "out", "data.image_sise=8").returncode == 2


@pytest.mark.slow
def test_what_somebody_has_put_into_a_pack_is_not_replaced_with_it(tmp_path: Path) -> None:
    config = nstudent.load_config(None, ["data.image_size=16"]).data
    make_pack(config, tmp_path / "pack")
    note = tmp_path / "pack" / "notes.txt"
    note.write_text("mine")
    with pytest.raises(
        ArtifactError, match=r"notes\.txt is not part of the pack, which is to be replaced: move it away"
    ):
        make_pack(config.model_copy(update={"image_size": 24}), tmp_path / "pack")
    assert note.read_text() == "mine"
    note.unlink()
    make_pack(config.model_copy(update={"image_size": 24}), tmp_path / "pack")
    assert json.loads((tmp_path / "pack" / "info.json").read_text())["image_size"] == 24
