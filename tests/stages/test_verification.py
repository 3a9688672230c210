"""Files that rot: found, named, and made again alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nstudent.cli import app
from nstudent.config.schema import Config
from nstudent.errors import ArtifactError
from nstudent.runs.run import run_all
from nstudent.runs.status import status
from nstudent.runs.verification import repair, verify
from nstudent.storage.artifact import Manifest
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def in_shards(tiny: Callable[..., Config], finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose pseudo-labels lie in several shards. Tests only read it."""
    folder = tmp_path_factory.mktemp("in_shards") / "run"
    shutil.copytree(finished, folder)
    return run_all(tiny("pseudolabel.shard_rows=40"), folder)


@pytest.fixture
def shards(in_shards: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(in_shards, tmp_path / "run"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("labels-*.h5")}


def test_a_whole_run_is_whole(shards: Path) -> None:
    assert verify(shards) == []
    assert repair(shards) == []


def test_of_a_store_the_damaged_shard_alone_is_made_again(shards: Path) -> None:
    folder = shards / "04-pseudolabel"
    before, manifest = files_of(folder), Manifest.read(folder)
    assert len(before) > 1
    name = sorted(before)[1]
    flip(folder / name)
    assert [(bad.step, bad.file) for bad in verify(shards)] == [("04-pseudolabel", name)]
    assert [bad.file for bad in repair(shards)] == [name]
    after = files_of(folder)
    assert {each: content for each, (_, content) in after.items()} == {
        each: content for each, (_, content) in before.items()
    }
    assert [each for each in before if after[each][0] != before[each][0]] == [name], "the others were not touched"
    assert Manifest.read(folder).id == manifest.id
    assert verify(shards) == []
    assert {state.state for state in status(shards)} == {"done"}


def test_of_the_packed_images_too(shards: Path) -> None:
    name = next((shards / "00-data").glob("pixels-*.h5")).name
    (shards / "00-data" / name).unlink()
    assert [(bad.file, bad.what) for bad in verify(shards)] == [(name, "missing")]
    repair(shards)
    assert verify(shards) == []
    assert {state.state for state in status(shards)} == {"done"}


@pytest.mark.slow
def test_a_damaged_network_is_trained_again_to_the_same_bytes(shards: Path) -> None:
    identity = Manifest.read(shards / "01-teacher").id
    flip(shards / "01-teacher" / "member-0.safetensors")
    repair(shards)
    assert Manifest.read(shards / "01-teacher").id == identity
    assert {state.state for state in status(shards)} == {"done"}


@pytest.mark.slow
def test_a_repair_that_was_interrupted_is_gone_on_with(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of the last step, after which nothing is missing."""
    folder = shards / "08-evaluate"
    before = (folder / "scores.json").read_bytes()
    flip(folder / "scores.json")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nstudent.runs.folder.Run.make", killed)
        with pytest.raises(KeyboardInterrupt):
            repair(shards)
    assert not folder.exists()
    repair(shards)
    assert (folder / "scores.json").read_bytes() == before
    assert {state.state for state in status(shards)} == {"done"}
    assert verify(shards) == []


def test_a_stray_file_is_named_and_left(shards: Path) -> None:
    (shards / "06-student" / "notes.txt").write_text("mine")
    assert [(bad.file, bad.what) for bad in verify(shards)] == [("notes.txt", "not part of the step: remove it")]
    made = (shards / "06-student" / "manifest.json").stat().st_mtime_ns
    assert [bad.file for bad in repair(shards)] == ["notes.txt"]
    assert (shards / "06-student" / "manifest.json").stat().st_mtime_ns == made, "nothing was trained for its sake"
    assert (shards / "06-student" / "notes.txt").read_text() == "mine"


def test_a_stray_file_beside_a_damaged_one_does_not_become_part_of_the_step(shards: Path) -> None:
    flip(shards / "04-pseudolabel" / "labels.json")
    (shards / "04-pseudolabel" / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"notes\.txt is not part of 04-pseudolabel.*move it away first"):
        repair(shards)
    (shards / "04-pseudolabel" / "notes.txt").unlink()
    repair(shards)
    assert {state.state for state in status(shards)} == {"done"}


def test_what_was_made_for_other_settings_is_not_repaired_with_these(shards: Path) -> None:
    flip(shards / "04-pseudolabel" / "labels.json")
    config = shards / "config.yaml"
    config.write_text(config.read_text().replace("threshold: 0.3", "threshold: 0.5"))
    with pytest.raises(ArtifactError, match=r"04-pseudolabel is damaged and stale \(pseudolabel\.threshold changed"):
        repair(shards)


def test_a_run_folder_that_was_moved_is_whole_and_up_to_date(shards: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / 'ünter "uns" \'n'
    shutil.copytree(shards, moved)
    shutil.rmtree(shards)
    assert verify(moved) == []
    assert {state.state for state in status(moved)} == {"done"}


@pytest.mark.parametrize(
    "change",
    [{"asked": {}}, {"asked": {"settings": [], "inputs": 3}}, {"metrics": {"validation": {"level accuracy": "<b>"}}}],
    ids=["asked nothing", "asked strangely", "a score that is none"],
)
def test_the_status_of_a_stranger_s_manifest_is_a_table(
    go_on: Path, tmp_path: Path, change: dict[str, dict[str, Any]]
) -> None:
    path = go_on / "01-teacher" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    done = CliRunner().invoke(app, ["status", str(go_on)])
    assert done.exit_code == 0, done.exception
    assert "01-teacher" in done.stdout
