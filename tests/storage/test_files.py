"""Files that are whole or not there."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from nstudent.errors import ArtifactError
from nstudent.storage.files import atomic_write, fingerprint_of, read_json, sha256_of, sweep, write_json

# sha256 of b"" and b"abc": FIPS 180-2, appendix B.
_SHA256 = {
    b"": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    b"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
}


@pytest.mark.parametrize(("content", "digest"), _SHA256.items())
def test_sha256(tmp_path: Path, content: bytes, digest: str) -> None:
    (tmp_path / "f").write_bytes(content)
    assert sha256_of(tmp_path / "f") == digest


def test_a_write_replaces_the_whole_content(tmp_path: Path) -> None:
    path = tmp_path / "f"
    atomic_write(path, b"long old content")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert [found.name for found in tmp_path.iterdir()] == ["f"]


_FULL_DISK = """
import resource, sys
from pathlib import Path
from nstudent.errors import ArtifactError
from nstudent.storage.files import atomic_write
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    atomic_write(Path(sys.argv[1]), b"x" * 100_000)
except ArtifactError as error:
    print(error)
"""


def test_a_write_that_fails_leaves_the_old_content(
    tmp_path: Path, python: Callable[..., CompletedProcess[str]]
) -> None:
    """A limit on the size of files stands in for a full disk: the kernel stops the write half way."""
    folder = tmp_path / "folder"
    folder.mkdir()
    atomic_write(folder / "f", b"old")
    done = python("-c", _FULL_DISK, str(folder / "f"))
    assert done.stdout.startswith(f"cannot write 100,000 bytes to {folder / 'f'}: File too large, "), done.stderr
    assert re.search(r"[\d,]+ bytes are free there: make room and run the same command again\n$", done.stdout)
    assert (folder / "f").read_bytes() == b"old"
    assert [found.name for found in folder.iterdir()] == ["f"]


def test_a_write_that_is_killed_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic_write(tmp_path / "f", b"old")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nstudent.storage.files.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "f", b"new")
    monkeypatch.undo()
    assert (tmp_path / "f").read_bytes() == b"old"
    atomic_write(tmp_path / "f", b"new")
    sweep(tmp_path)
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [("f", b"new")]


def test_the_content_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            events.append(name)
            return function(*arguments)

        return call

    monkeypatch.setattr("nstudent.storage.files.os.fsync", spy("fsync", fsync))
    monkeypatch.setattr("nstudent.storage.files.os.replace", spy("rename", replace))
    atomic_write(tmp_path / "f", b"x")
    # The file, its name, and then the folder that holds the name.
    assert events == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize("parent", ["nowhere", "file"])
def test_a_write_where_there_is_no_folder(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        atomic_write(tmp_path / parent / "f", b"x")


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, True], "a": {"é": "ü"}}
    write_json(tmp_path / "f.json", value)
    assert read_json(tmp_path / "f.json") == value
    assert list(read_json(tmp_path / "f.json")) == ["b", "a"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    """Python would write 'NaN', which no other reader of JSON understands."""
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "f.json", {"loss": float("nan")})
    assert not (tmp_path / "f.json").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"{'a': 1}", b"[" * 100_000])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"f\.json is damaged"):
        read_json(tmp_path / "f.json")


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"f\.json is missing"):
        read_json(tmp_path / "f.json")


def test_a_fingerprint_depends_on_the_content_and_not_on_the_order_of_keys() -> None:
    assert fingerprint_of({"a": 1, "b": [1, 2]}) == fingerprint_of({"b": [1, 2], "a": 1})
    assert fingerprint_of({"b": [2, 1], "a": 1}) != fingerprint_of({"b": [1, 2], "a": 1})
    assert fingerprint_of("1") != fingerprint_of(1)
    assert (
        fingerprint_of([])
        == fingerprint_of(json.loads("[]"))
        == ("4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945")
    )
