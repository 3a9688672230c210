"""Steps that exist or do not, and files that are what they were."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nstudent.errors import ArtifactError
from nstudent.storage.artifact import Artifact, Manifest, damage
from nstudent.storage.commit import (
    ASKED,
    SCRATCH,
    commit,
    difference,
    finish_commit,
    open_partial,
    partial_folder,
    reopen,
)

_FIELDS = {
    "stage": "teacher",
    "role": "labeller",
    "round": 0,
    "asked": {"stage": "teacher", "settings": {"seed": 0}, "inputs": {}},
    "inputs": {},
    "metrics": {"promoted": True},
    "seconds": 1.5,
}


def _asked(rate: str) -> dict[str, Any]:
    """What a step is asked for, as ``run`` writes it down."""
    return {"asked": {"settings": {"rate": rate}, "inputs": {}}, "inputs": {}}


def _make(folder: Path, content: bytes = b"weights", **fields: Any) -> Artifact:
    partial = open_partial(folder, _asked("asked for"))
    (partial / "deep").mkdir(exist_ok=True)
    (partial / "deep" / "model.bin").write_bytes(content)
    (partial / "info.json").write_text('{"classes": 3}')
    return commit(folder, _FIELDS | fields)


@pytest.fixture
def made(tmp_path: Path) -> Artifact:
    return _make(tmp_path / "01-teacher")


def test_a_committed_step_holds_its_files_and_nothing_else(made: Artifact) -> None:
    files = {path.relative_to(made.folder).as_posix() for path in made.folder.rglob("*") if path.is_file()}
    assert files == {"deep/model.bin", "info.json", "manifest.json"}
    assert [path.name for path in made.folder.parent.iterdir()] == ["01-teacher"]
    assert made.name == "01-teacher"
    assert made.path("deep/model.bin").read_bytes() == b"weights"
    assert made.json("info.json") == {"classes": 3}
    assert made.matching("deep/") == ["deep/model.bin"]


def test_the_manifest_says_what_was_asked_and_what_was_made(made: Artifact) -> None:
    manifest = Manifest.read(made.folder)
    assert manifest == made.manifest
    assert manifest.metrics == {"promoted": True}
    assert manifest.files["deep/model.bin"] == {
        "sha256": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c",
        "bytes": 7,
    }
    assert {"python", "torch", "nstudent"} <= manifest.environment.keys()


def test_equal_bytes_have_an_equal_id_wherever_and_whenever_they_were_made(tmp_path: Path, made: Artifact) -> None:
    other = _make(tmp_path / "elsewhere" / "07-teacher", seconds=99.0, metrics={}, round=2)
    assert other.manifest.id == made.manifest.id
    assert _make(tmp_path / "third", b"weightz").manifest.id != made.manifest.id


def test_an_id_depends_on_the_names_of_the_files(tmp_path: Path, made: Artifact) -> None:
    partial = open_partial(tmp_path / "renamed", _asked("x"))
    shutil.copytree(made.folder / "deep", partial / "deeper")
    shutil.copy(made.folder / "info.json", partial)
    assert commit(tmp_path / "renamed", _FIELDS).manifest.id != made.manifest.id


def test_a_fingerprint_depends_on_what_was_asked_alone(tmp_path: Path, made: Artifact) -> None:
    assert _make(tmp_path / "a", b"other bytes").manifest.fingerprint == made.manifest.fingerprint
    assert _make(tmp_path / "b", asked={"settings": {"seed": 1}}).manifest.fingerprint != made.manifest.fingerprint


def test_a_copied_folder_is_the_same_artifact(tmp_path: Path, made: Artifact) -> None:
    shutil.copytree(made.folder, tmp_path / "backup" / "01-teacher")
    copy = Artifact(tmp_path / "backup" / "01-teacher")
    assert copy.manifest == made.manifest
    assert copy.path("deep/model.bin").read_bytes() == b"weights"


# --- damage ---


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage", [_flip, lambda path: path.write_bytes(b"weight"), lambda path: path.write_bytes(b"")]
)
def test_a_file_that_changed_is_found_when_it_is_opened(made: Artifact, damage: Callable[[Path], None]) -> None:
    damage(made.folder / "deep" / "model.bin")
    with pytest.raises(
        ArtifactError, match=r"deep/model\.bin has changed since it was made: nstudent verify .* --repair"
    ):
        Artifact(made.folder).path("deep/model.bin")
    assert Artifact(made.folder).json("info.json") == {"classes": 3}


def test_a_missing_file_is_found_when_it_is_opened(made: Artifact) -> None:
    (made.folder / "info.json").unlink()
    with pytest.raises(ArtifactError, match=r"info\.json is missing: nstudent verify"):
        Artifact(made.folder).json("info.json")


def test_a_file_that_was_never_committed_is_not_read(made: Artifact) -> None:
    (made.folder / "planted.json").write_text("{}")
    with pytest.raises(ArtifactError, match="missing"):
        made.json("planted.json")
    with pytest.raises(ArtifactError, match="missing"):
        made.path("../01-teacher/info.json")


def _rewrite(made: Artifact, change: Callable[[Any], Any]) -> None:
    path = made.folder / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.parametrize("schema", [2, 99, 0, None, "1"])
def test_a_manifest_of_another_schema_is_refused(made: Artifact, schema: Any) -> None:
    _rewrite(made, lambda manifest: manifest | {"schema": schema})
    with pytest.raises(ArtifactError, match=f"manifest schema {schema}, this nstudent reads 1"):
        Artifact(made.folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: {key: value for key, value in manifest.items() if key != "files"},
        lambda manifest: manifest | {"surprise": 1},
        lambda manifest: [manifest],
        lambda manifest: manifest | {"files": None},
        lambda manifest: manifest | {"files": {"info.json": "abc"}},
        lambda manifest: manifest | {"files": {"info.json": {}}},
    ],
    ids=["no files", "another key", "a list", "files null", "a file a word", "a file without a hash"],
)
def test_a_damaged_manifest_is_named(made: Artifact, change: Callable[[Any], Any]) -> None:
    _rewrite(made, change)
    with pytest.raises(ArtifactError, match="01-teacher"):
        Artifact(made.folder).json("info.json")


@pytest.mark.parametrize("length", [0, 1, 100])
def test_a_truncated_manifest_is_named(made: Artifact, length: int) -> None:
    path = made.folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
        Artifact(made.folder)


# --- interrupted ---


def test_what_an_interrupted_attempt_left_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "01-teacher"
    (open_partial(folder, _asked("the same")) / "checkpoint").write_text("epoch 7")
    assert (open_partial(folder, _asked("the same")) / "checkpoint").read_text() == "epoch 7"


def test_what_an_attempt_at_something_else_left_is_kept_and_the_difference_said(tmp_path: Path) -> None:
    folder = tmp_path / "01-teacher"
    (open_partial(folder, _asked("0.1")) / "checkpoint").write_text("epoch 7")
    with pytest.raises(ArtifactError, match=r"01-teacher\.partial .*rate changed from '0\.1' to '0\.2'.*or delete"):
        open_partial(folder, _asked("0.2"))
    assert (open_partial(folder, _asked("0.1")) / "checkpoint").read_text() == "epoch 7"


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ({"flip": False}, {"flip": True}, "student.noise.flip changed from False to True"),
        (
            {"flip": 0},
            {"flip": 0, "mixup": 0.0},
            "student.noise.mixup was not set, or not known to the version that made it",
        ),
    ],
)
def test_a_difference_deep_in_a_group_is_named(then: Any, now: Any, said: str) -> None:
    made, asked = ({"settings": {"student.noise": each}, "inputs": {}} for each in (then, now))
    assert difference(made, asked) == said


def test_an_attempt_at_something_else_that_made_nothing_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "01-teacher"
    open_partial(folder, _asked("0.1"))
    partial = open_partial(folder, _asked("0.2"))
    assert json.loads((partial / ASKED).read_text()) == _asked("0.2")


def test_a_partial_folder_that_does_not_say_what_it_is_is_discarded(tmp_path: Path) -> None:
    """A crash can leave the folder without its mark."""
    partial = partial_folder(tmp_path / "01-teacher")
    partial.mkdir()
    (partial / "checkpoint").write_text("of what?")
    assert not (open_partial(tmp_path / "01-teacher", _asked("this")) / "checkpoint").exists()


def test_scratch_is_gone_when_the_step_is_done(tmp_path: Path) -> None:
    partial = open_partial(tmp_path / "01-teacher", _asked("this"))
    (partial / SCRATCH).mkdir()
    (partial / SCRATCH / "checkpoint").write_text("epoch 7")
    made = commit(tmp_path / "01-teacher", _FIELDS)
    assert made.manifest.files == {}
    assert not (made.folder / SCRATCH).exists()


class _PowerCut(BaseException):
    """Not an error that code could handle."""


def _cut_at_folder_rename(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The power goes just before the ``number``-th rename of a folder."""
    replace, renames = os.replace, iter(range(1, 100))

    def cut(source: Path, target: Path) -> None:
        if Path(source).is_dir() and next(renames) == number:
            raise _PowerCut
        replace(source, target)

    monkeypatch.setattr("nstudent.storage.files.os.replace", cut)


def test_a_crash_between_manifest_and_rename_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _cut_at_folder_rename(monkeypatch, 1)
    with pytest.raises(_PowerCut):
        _make(tmp_path / "01-teacher")
    monkeypatch.undo()
    assert not (tmp_path / "01-teacher").exists()
    finish_commit(tmp_path / "01-teacher")
    assert Artifact(tmp_path / "01-teacher").path("deep/model.bin").read_bytes() == b"weights"
    assert [path.name for path in tmp_path.iterdir()] == ["01-teacher"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_crash_while_a_step_is_replaced_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    _make(tmp_path / "01-teacher", b"old")
    _cut_at_folder_rename(monkeypatch, number)
    with pytest.raises(_PowerCut):
        _make(tmp_path / "01-teacher", b"new")
    monkeypatch.undo()
    finish_commit(tmp_path / "01-teacher")
    assert Artifact(tmp_path / "01-teacher").path("deep/model.bin").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["01-teacher"]


def test_finishing_leaves_a_partial_step_partial(tmp_path: Path) -> None:
    open_partial(tmp_path / "01-teacher", _asked("this"))
    finish_commit(tmp_path / "01-teacher")
    assert not (tmp_path / "01-teacher").exists()


def test_a_crash_while_a_step_commits_loses_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing gigabytes takes a while, and hours of training may hang on what lies there until the manifest does."""
    folder = tmp_path / "01-teacher"
    partial = open_partial(folder, _asked("this"))
    (partial / SCRATCH).mkdir()
    (partial / SCRATCH / "checkpoint").write_text("epoch 120")
    (partial / "model.bin").write_bytes(b"weights")

    def cut(path: Path) -> str:
        raise _PowerCut

    monkeypatch.setattr("nstudent.storage.artifact.sha256_of", cut)
    with pytest.raises(_PowerCut):
        commit(folder, _FIELDS)
    monkeypatch.undo()
    assert (open_partial(folder, _asked("this")) / SCRATCH / "checkpoint").read_text() == "epoch 120"


@pytest.mark.parametrize("number", range(1, 4))
def test_a_crash_while_a_step_is_reopened_never_makes_damage_look_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The power goes before the first file is removed, between the two, or when both are."""
    folder = tmp_path / "01-teacher"
    _make(folder)
    (folder / "info.json").write_text("rotten")
    unlink, calls = Path.unlink, iter(range(1, 100))

    def cut(path: Path, missing_ok: bool = False) -> None:
        if path.name in ("info.json", "manifest.json") and next(calls) == number:
            raise _PowerCut
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", cut)
    with contextlib.ExitStack() as stack:
        if number <= 2:
            stack.enter_context(pytest.raises(_PowerCut))
        reopen(folder, _asked("this"), ["info.json"])
    monkeypatch.undo()
    finish_commit(folder)
    if number <= 2:
        assert list(damage(folder)) == ["info.json"]
    else:
        assert not folder.exists()
        assert {path.name for path in open_partial(folder, _asked("this")).iterdir()} == {"asked.json", "deep", SCRATCH}
