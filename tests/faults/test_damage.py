"""Bits that rot: in artifacts, in checkpoints, in manifests. Found and named, never believed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fault_injection import Fault
from fork_server import ForkServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from interrupted_run import finish, unhelpful
from nstudent.errors import ArtifactError, NstudentError
from nstudent.storage.artifact import MANIFEST, Artifact, Manifest, damage
from tiny_run import run_all_words

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from conftest import WholeRun

_fuzz = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
_shares = st.floats(min_value=0, max_value=1, exclude_max=True)


@pytest.fixture
def copy(whole: WholeRun, run_dir: Path) -> Path:
    """A copy of the whole run, to be damaged."""
    return Path(shutil.copytree(whole.folder, run_dir))


@contextmanager
def _changed(path: Path, content: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(content)
    yield
    path.write_bytes(before)


def _flipped(content: bytes, at: float, bit: int) -> bytes:
    changed = bytearray(content)
    changed[int(at * len(content))] ^= 1 << bit
    return bytes(changed)


def _artifact_files(run_dir: Path) -> list[Path]:
    return sorted(path for path in run_dir.glob("[0-9]*/*") if path.name != MANIFEST)


@_fuzz
@given(which=_shares, at=_shares, bit=st.integers(0, 7))
def test_any_flipped_bit_is_found_and_named(copy: Path, which: float, at: float, bit: int) -> None:
    files = _artifact_files(copy)
    path = files[int(which * len(files))]
    with _changed(path, _flipped(path.read_bytes(), at, bit)):
        with pytest.raises(ArtifactError, match=path.name):
            Artifact(path.parent).path(path.name)
        assert list(damage(path.parent)) == [path.name]


@settings(_fuzz, max_examples=50)
@given(which=_shares, length=_shares)
def test_any_truncation_is_found_and_named(copy: Path, which: float, length: float) -> None:
    files = _artifact_files(copy)
    path = files[int(which * len(files))]
    content = path.read_bytes()
    with _changed(path, content[: int(length * len(content))]), pytest.raises(ArtifactError, match=path.name):
        Artifact(path.parent).path(path.name)


@_fuzz
@given(step=st.sampled_from(["00-data", "01-teacher", "06-student"]), at=_shares, bit=st.integers(0, 7))
def test_a_manifest_with_a_flipped_bit_is_read_or_refused(copy: Path, step: str, at: float, bit: int) -> None:
    """It never ends in anything but an error that names it; what it then says of its files is held against them."""
    path = copy / step / MANIFEST
    with _changed(path, _flipped(path.read_bytes(), at, bit)):
        for read in (lambda: Manifest.read(path.parent), lambda: damage(path.parent)):
            assert "\n" not in _error(read)


def _error(read: Callable[[], object]) -> str:
    """What a person is told; anything but an error for a person is a failure."""
    try:
        read()
    except NstudentError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("schema", [0, 99, None, "1"])
def test_an_artifact_of_another_schema_is_refused(server: ForkServer, copy: Path, schema: object) -> None:
    path = copy / "01-teacher" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": schema}))
    with pytest.raises(ArtifactError, match=f"manifest schema {schema}, this nstudent reads 1"):
        Artifact(path.parent)


def test_a_foreign_file_under_the_name_of_weights_is_refused(server: ForkServer, copy: Path, tmp_path: Path) -> None:
    used, *others = (copy / step / "member-0.safetensors" for step in ("07-choose", "01-teacher", "02-baseline"))
    shutil.copy(next(path for path in others if path.read_bytes() != used.read_bytes()), used)
    (copy / "image.png").write_bytes(b"")
    refused = server.run(["predict", str(copy), str(copy / "image.png")], copy)
    assert unhelpful(refused) == []
    assert "07-choose/member-0.safetensors" in refused.error
    verified = server.run(["verify", str(copy)], copy)
    assert verified.status != 0
    assert "07-choose/member-0.safetensors" in verified.error


def test_a_damaged_shard_alone_is_made_again(server: ForkServer, whole: WholeRun, copy: Path) -> None:
    first, second = sorted((copy / "04-pseudolabel").glob("labels-0*.h5"))
    second.write_bytes(_flipped(second.read_bytes(), 0.5, 3))
    before = first.stat().st_mtime_ns
    repaired = server.run(["verify", str(copy), "--repair"], copy)
    assert repaired.status == 0, repaired.error
    assert second.name in repaired.error
    assert first.stat().st_mtime_ns == before
    assert finish(server, copy, whole.results) == []


def _stopped_in_training(server: ForkServer, whole: WholeRun, run_dir: Path) -> list[Path]:
    """Kill a run in the middle of the teacher; returns its two checkpoints, the newer first."""
    newest = "01-teacher.partial/scratch/member-0.safetensors"
    saved = [n for n, operation in enumerate(whole.operations) if operation == ("rename", newest)]
    # One operation later: the newest has its name.
    server.run(run_all_words(run_dir), run_dir, Fault(saved[len(saved) // 2] + 1))
    found = [run_dir / newest, (run_dir / newest).with_name("previous-member-0.safetensors")]
    assert all(path.exists() for path in found)
    return found


def test_of_a_damaged_checkpoint_the_generation_before_is_used(
    server: ForkServer, whole: WholeRun, run_dir: Path
) -> None:
    newest, _ = _stopped_in_training(server, whole, run_dir)
    newest.write_bytes(_flipped(newest.read_bytes(), 0.9, 0))
    assert finish(server, run_dir, whole.results) == []


def test_where_every_checkpoint_is_damaged_it_is_said(server: ForkServer, whole: WholeRun, run_dir: Path) -> None:
    checkpoints = _stopped_in_training(server, whole, run_dir)
    for path in checkpoints:
        path.write_bytes(path.read_bytes()[:-1])
    refused = server.run(run_all_words(run_dir), run_dir)
    assert unhelpful(refused) == []
    assert str(checkpoints[0]) in refused.error.splitlines()[-1]
    for path in checkpoints:
        path.unlink()
    assert finish(server, run_dir, whole.results) == []
