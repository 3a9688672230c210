"""HDF5 files built to read other files, to fill the memory, or to crash the library."""

import json
import os
import random
import signal
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from nstudent.config.schema import DataConfig
from nstudent.data.sources import hdf5 as packed
from nstudent.errors import ArtifactError, DataError, NstudentError
from nstudent.storage import hdf5

CASES = int(os.environ.get("NSTUDENT_FUZZ_CASES", "200"))
"""Mutated files a test tries; more by hand."""
_SECONDS_A_BATCH = 30
_BATCH = 50


def _attributes(file: h5py.File) -> None:
    for number in range(2_000):
        file.attrs[f"a{number}"] = number


def _one_string_many_times(file: h5py.File) -> None:
    """A heap holds one string of a megabyte, and an attribute names it a hundred thousand times."""
    text = h5py.string_dtype()
    file.create_dataset("x", data=np.zeros(1 << 20, dtype=np.uint8))
    file.attrs.create("meta", np.array(["y"] * 60_000, dtype=object), dtype=text)


def _nested_groups(file: h5py.File) -> None:
    group = file
    for _ in range(1_000):
        group = group.create_group("g")


def _gzip_bomb(file: h5py.File) -> None:
    """Two gibibytes in two mebibytes: within what deflate can do."""
    _compressed(file, 2 << 30)


def _compressed(file: h5py.File, size: int) -> None:
    chunk = 1 << 24
    zeros = zlib.compress(bytes(chunk), 9)
    file.create_dataset("x", (size,), np.uint8, chunks=(chunk,), compression="gzip")
    for start in range(0, size, chunk):
        file["x"].id.write_direct_chunk((start,), zeros)


def _large_chunk(file: h5py.File) -> None:
    file.create_dataset("x", (1,), np.uint8, chunks=(3 << 30,), maxshape=(None,))
    file["x"].id.write_direct_chunk((0,), b"\0")


def _unknown_filter(file: h5py.File) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((16,))
    properties.set_filter(32_015, h5py.h5z.FLAG_OPTIONAL, (1,))
    space = h5py.h5s.create_simple((16,))
    data = h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT8, space, dcpl=properties)
    data.write_direct_chunk((0,), b"\0" * 16)


def _sizes_that_wrap_round(file: h5py.File) -> None:
    """2**32 times 2**32 is nothing in 64 bits."""
    file.create_dataset("x", (1 << 32, 1 << 32), np.uint8, chunks=(1, 1 << 10))


def _tables(file: h5py.File) -> None:
    for number in range(1_100):
        file.create_dataset(f"d{number}", data=number)


def _many_names_of_one(file: h5py.File) -> None:
    _compressed(file, 1 << 26)
    for number in range(500):
        file[f"same{number}"] = file["x"]


def _objects(file: h5py.File) -> None:
    file.create_dataset("x", data=[np.arange(3), np.arange(4)], dtype=h5py.vlen_dtype(np.int32))


def _compound_of_strings(file: h5py.File) -> None:
    file.create_dataset("x", (2,), np.dtype([("a", h5py.string_dtype()), ("b", "i4")]))


BOMBS: dict[str, Callable[[h5py.File], None]] = {
    "many attributes": _attributes,
    "one string many times": _one_string_many_times,
    "nested groups": _nested_groups,
    "gzip bomb": _gzip_bomb,
    "a large chunk": _large_chunk,
    "unknown filter": _unknown_filter,
    "sizes that wrap round": _sizes_that_wrap_round,
    "many tables": _tables,
    "many names of one": _many_names_of_one,
    "lists of any length": _objects,
    "compound": _compound_of_strings,
    "four tebibytes": lambda file: file.create_dataset("x", (1 << 42,), np.uint8),
    "four tebibytes, chunked": lambda file: file.create_dataset("x", (1 << 42,), np.uint8, chunks=(1 << 20,)),
}


@pytest.mark.slow
def test_bombs_are_refused_in_little_memory(
    tmp_path: Path, refusals: Callable[..., tuple[dict[str, str], float]]
) -> None:
    for name, build in BOMBS.items():
        with h5py.File(tmp_path / f"{name}.h5", "w", libver="latest") as file:
            build(file)
    said, grown_mib = refusals(
        "from nstudent.storage.hdf5 import attributes, mapped",
        "(attributes if path.stem in ('many attributes', 'one string many times') else mapped)(path)",
        "ArtifactError",
        sorted(tmp_path.glob("*.h5")),
    )
    assert said.keys() == BOMBS.keys()
    assert {name for name, line in said.items() if "refused" not in line} == set()
    assert grown_mib < 100


def test_no_library_is_loaded_for_an_unknown_compression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a plug-in path comes from: it is gone while a file is open, and back after it."""
    h5py.h5pl.append(os.fsencode(tmp_path))
    try:
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file.create_dataset("x", data=np.arange(4))
        during: list[int] = []
        monkeypatch.setattr(hdf5, "_datasets", lambda file: during.append(h5py.h5pl.size()) or {})
        hdf5.mapped(tmp_path / "x.h5")
        assert during == [0]
        assert os.fsencode(tmp_path) in [h5py.h5pl.get(i) for i in range(h5py.h5pl.size())]
    finally:
        h5py.h5pl.remove(h5py.h5pl.size() - 1)


def test_integers_of_twelve_bits_are_read_as_what_they_are(tmp_path: Path) -> None:
    """In a map of the file their unused bits would be part of the number."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        kind = h5py.h5t.STD_I16LE.copy()
        kind.set_precision(12)
        kind.set_offset(4)
        data = h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple((3,)))
        data.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([1, -2, 3], dtype=np.int16))
    assert hdf5.mapped(tmp_path / "x.h5")["x"].tolist() == [1, -2, 3]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.h5")
    for read in (hdf5.mapped, hdf5.attributes):
        with pytest.raises(ArtifactError, match=r"x\.h5"):
            read(tmp_path / "x.h5")


_READ_TEXTS = """
import sys
from pathlib import Path
from nstudent.errors import ArtifactError
from nstudent.storage.hdf5 import attributes
try:
    attributes(Path(sys.argv[1]))
except ArtifactError as error:
    print(error)
"""


@pytest.mark.parametrize("length", [0, 8, 15, 5_000, 2**64 - 1])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_heap_in_which_hdf5_would_walk_for_ever_is_refused(
    tmp_path: Path, bounded: Callable[..., "subprocess.CompletedProcess[str]"], libver: str, length: int
) -> None:
    """HDF5 2.0 steps through a heap by the lengths in it, and a length of nothing is a step of nothing."""
    with h5py.File(tmp_path / "x.h5", "w", libver=libver) as file:
        file.attrs["meta"] = "text of any length"
    content = bytearray((tmp_path / "x.h5").read_bytes())
    heap = content.index(b"GCOL")
    free = heap + 16 + 16 + 24
    assert content[free : free + 2] == b"\0\0"
    content[free + 8 : free + 16] = length.to_bytes(8, "little")
    (tmp_path / "x.h5").write_bytes(content)
    done = bounded(_READ_TEXTS, tmp_path / "x.h5")
    assert "a heap of texts is damaged" in done.stdout


def test_long_texts_and_many_of_them_are_read(tmp_path: Path) -> None:
    """Heaps of every size, and full to the last byte."""
    texts = {f"a{length}": "é" * length for length in (0, 1, 7, 8, 1_000, 2_017, 2_024, 2_032, 100_000, 3_000_000)}
    for libver in ("earliest", "latest"):
        with h5py.File(tmp_path / "x.h5", "w", libver=libver) as file:
            file.create_dataset("jpeg", data=np.frombuffer(b"GCOL" * 100, np.uint8))
            file.attrs.update(texts)
        assert hdf5.attributes(tmp_path / "x.h5") == texts
        assert hdf5.mapped(tmp_path / "x.h5")["jpeg"].tobytes() == b"GCOL" * 100


# --- any damage ---


def _small_store(path: Path, libver: str, *, chunked: bool) -> None:
    """A valid file of a user, in the newest or the oldest format: three images, three levels."""
    options = {"chunks": True, "compression": "gzip"} if chunked else {}
    levels = [["A", "B"], ["a", "b"], ["x", "y"]]
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset("jpeg", data=np.arange(30, dtype=np.uint8), **options)
        file.create_dataset("offset", data=np.array([0, 10, 20, 30]), **options)
        file.create_dataset("label", data=np.array([[0, 1, 0], [1, 0, -1], [-2, -2, -2]], dtype=np.int32), **options)
        file.create_dataset("split", data=np.array([0, 1, 3], dtype=np.int8), **options)
        file.create_dataset("name", data=np.array([b"a", b"bc", b"d"]), **options)
        file.attrs["meta"] = json.dumps({"levels": levels})


def _mutated(whole: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(damaged))
        kind = chance.randrange(4)
        if kind == 0:
            damaged[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            damaged[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            damaged[at : at + 8] = chance.choice((b"\xff" * 8, b"\0" * 8, (1 << 62).to_bytes(8, "little")))
        else:
            source = chance.randrange(len(damaged))
            damaged[at : at + 16] = damaged[source : source + 16]
    return bytes(damaged[: chance.randrange(1, len(damaged))]) if chance.random() < 0.05 else bytes(damaged)


def _read_as_a_user(path: Path) -> None:
    """Everything the data stage does with such a file; what it returns lies within its bounds."""
    source = packed.open_source(DataConfig(source="hdf5", root=str(path)))
    records = source.catalogue().records
    for index, record in enumerate(records):
        assert len(record.label) == 3
        assert record.split in ("train", "validation", "test", "unlabelled")
        assert len(source.read(index)) <= path.stat().st_size * 1032
    for array in hdf5.mapped(path).values():
        array.tobytes()


def _in_a_child(work: Callable[[], None]) -> int:
    """Run in a forked process; its exit status, negative for a signal: a crash of the library is seen as one."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # Seconds of work, not of the clock: a machine may be busy.
            signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS_A_BATCH)
            signal.alarm(100 * _SECONDS_A_BATCH)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _try_batch(whole: bytes, numbers: range, path: Path) -> None:
    for number in numbers:
        path.write_bytes(_mutated(whole, random.Random(number)))
        try:
            _read_as_a_user(path)
        except (ArtifactError, DataError):
            continue
        except BaseException as error:
            path.with_suffix(".txt").write_text(f"case {number}: {error!r}")
            raise


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("chunked", [False, True], ids=["contiguous", "compressed"])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_damaged_file_is_read_within_bounds_or_refused(tmp_path: Path, libver: str, chunked: bool) -> None:
    _small_store(tmp_path / "whole.h5", libver, chunked=chunked)
    _read_as_a_user(tmp_path / "whole.h5")
    whole, path = (tmp_path / "whole.h5").read_bytes(), tmp_path / "damaged.h5"
    for first in range(0, CASES // 4, _BATCH):
        numbers = range(first, min(first + _BATCH, CASES // 4))
        status = _in_a_child(lambda numbers=numbers: _try_batch(whole, numbers, path))
        told = path.with_suffix(".txt")
        assert status == 0, told.read_text() if told.exists() else f"exit status {status} in cases {numbers}"


def test_a_store_with_wrong_numbers_is_refused(tmp_path: Path) -> None:
    """No hash guards a user's own file: what its numbers point at is checked."""
    path = tmp_path / "x.h5"
    for name, index, value in [
        ("offset", 1, 40),
        ("offset", 0, -1),
        ("offset", 2, 5),
        ("label", (0, 0), 2),
        ("label", (0, 1), -3),
        ("split", 0, 9),
        ("split", 0, -1),
    ]:
        _small_store(path, "latest", chunked=False)
        with h5py.File(path, "r+") as file:
            file[name][index] = value
        with pytest.raises(NstudentError, match=r"x\.h5"):
            packed.open_source(DataConfig(source="hdf5", root=str(path))).catalogue()
