"""Files that a later attempt takes over: only those that hold what was written."""

import hashlib
from pathlib import Path

import pytest
from nstudent.errors import ArtifactError
from nstudent.storage.artifact import Manifest
from nstudent.storage.commit import commit, open_partial, partial_folder, reopen
from nstudent.storage.sealed import SealedFiles

CONTENT = bytes(range(256)) * 4
ASKED = {"asked": {"settings": {}, "inputs": {}}, "inputs": {}}
FIELDS = {
    "stage": "data",
    "role": "data",
    "round": 0,
    "asked": {"settings": {}, "inputs": {}},
    "inputs": {},
    "metrics": {},
    "seconds": 0.0,
}


@pytest.fixture
def step(tmp_path: Path) -> Path:
    return tmp_path / "00-data"


@pytest.fixture
def partial(step: Path) -> Path:
    return open_partial(step, ASKED)


def test_a_file_is_there_once_it_was_written(partial: Path) -> None:
    sealed = SealedFiles(partial)
    assert not sealed.has("shard.h5")
    sealed.write("shard.h5", CONTENT)
    assert SealedFiles(partial).has("shard.h5")
    assert (partial / "shard.h5").read_bytes() == CONTENT


@pytest.mark.parametrize("bit", [0, 1, 4095, 8191])
def test_a_file_with_one_flipped_bit_is_dropped_and_that_is_said(partial: Path, bit: int) -> None:
    SealedFiles(partial).write("shard.h5", CONTENT)
    rotten = bytearray(CONTENT)
    rotten[bit // 8] ^= 1 << bit % 8
    (partial / "shard.h5").write_bytes(rotten)
    said: list[str] = []
    sealed = SealedFiles(partial, said.append)
    assert not sealed.has("shard.h5")
    assert not (partial / "shard.h5").exists()
    assert said == [f"  {partial / 'shard.h5'} is not what was written there: it is made again"]
    sealed.write("shard.h5", CONTENT)
    assert sealed.has("shard.h5")


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"x", b"another file"])
def test_a_file_that_was_cut_short_or_replaced_is_dropped(partial: Path, content: bytes) -> None:
    sealed = SealedFiles(partial)
    sealed.write("shard.h5", CONTENT)
    (partial / "shard.h5").write_bytes(content)
    assert not sealed.has("shard.h5")
    assert not (partial / "shard.h5").exists()


def test_a_file_that_nobody_has_sealed_is_not_taken_over(partial: Path) -> None:
    (partial / "shard.h5").write_bytes(CONTENT)
    assert not SealedFiles(partial).has("shard.h5")
    assert not (partial / "shard.h5").exists()


def test_two_writers_of_one_file_may_write_other_bytes(partial: Path) -> None:
    """Two jobs with a GPU each: their sums differ in the last bit, and either file is a whole one."""
    one, other = SealedFiles(partial), SealedFiles(partial)
    one.write("shard.h5", CONTENT)
    other.seal("shard.h5", hashlib.sha256(b"the same, nearly").hexdigest())
    assert one.has("shard.h5")
    other.write("shard.h5", b"the same, nearly")
    assert one.has("shard.h5")


def test_what_rots_after_it_was_looked_at_is_not_committed(step: Path, partial: Path) -> None:
    SealedFiles(partial).write("shard.h5", CONTENT)
    (partial / "shard.h5").write_bytes(CONTENT[::-1])
    with pytest.raises(ArtifactError, match=r"shard\.h5 has changed since it was written, and was removed: the same"):
        commit(step, FIELDS)
    assert not step.exists()
    assert not (partial / "shard.h5").exists()


def test_a_committed_step_has_no_seals(step: Path, partial: Path) -> None:
    SealedFiles(partial).write("shard.h5", CONTENT)
    commit(step, FIELDS)
    assert sorted(path.name for path in step.rglob("*")) == ["manifest.json", "shard.h5"]


def test_the_whole_files_of_a_step_under_repair_are_known_by_their_hashes(step: Path, partial: Path) -> None:
    for name in ("a.h5", "b.h5", "c.h5"):
        SealedFiles(partial).write(name, CONTENT + name.encode())
    commit(step, FIELDS)
    assert len(Manifest.read(step).files) == 3
    reopen(step, ASKED, ["b.h5"])
    (partial_folder(step) / "c.h5").write_bytes(b"rots while the other one is made again")
    sealed = SealedFiles(partial_folder(step))
    assert [sealed.has(name) for name in ("a.h5", "b.h5", "c.h5")] == [True, False, False]
