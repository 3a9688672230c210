"""HDF5 files written once and read by mapping, also those of strangers."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from nstudent.errors import ArtifactError
from nstudent.storage import hdf5

_ARRAYS = {
    "image": np.arange(5, dtype=np.int64),
    "group/level": np.arange(12, dtype=np.float16).reshape(4, 3),
    "name": np.array([b"a", b"bc"]),
    "none": np.empty((0, 3), dtype=np.uint8),
}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    hdf5.write(tmp_path / "f.h5", _ARRAYS, {"schema": 1, "meta": '{"é": 1}'})
    return tmp_path / "f.h5"


def test_what_is_written_is_read(written: Path) -> None:
    arrays = hdf5.mapped(written)
    assert arrays.keys() == _ARRAYS.keys()
    for name, array in _ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert hdf5.attributes(written) == {"schema": 1, "meta": '{"é": 1}'}


def test_arrays_are_mapped_and_cannot_be_written(written: Path) -> None:
    array = hdf5.mapped(written)["image"]
    assert isinstance(array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_equal_content_gives_equal_bytes(tmp_path: Path, written: Path) -> None:
    """No time of day in the file: otherwise no artifact had the same id twice."""
    hdf5.write(tmp_path / "again.h5", _ARRAYS, {"schema": 1, "meta": '{"é": 1}'})
    assert (tmp_path / "again.h5").read_bytes() == written.read_bytes()


def test_plain_h5py_reads_it(written: Path) -> None:
    with h5py.File(written, "r") as file:
        assert file["group/level"][2].tolist() == [6, 7, 8]
        assert file["group/level"].chunks is None


def test_joined_parts_read_as_one_file_wherever_the_folder_lies(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    parts = [folder / f"part-{i}.h5" for i in range(3)]
    for i, part in enumerate(parts):
        hdf5.write(part, {"x": np.full((i + 1, 2), i, dtype=np.int16), "y": np.arange(i + 1)}, {})
    hdf5.write_joined(folder / "all.h5", parts, {"schema": 1})
    moved = folder.rename(tmp_path / "moved")
    with h5py.File(moved / "all.h5", "r") as file:
        assert file["x"][:, 0].tolist() == [0, 1, 1, 2, 2, 2]
        assert file["y"][:].tolist() == [0, 0, 1, 0, 1, 2]
        assert file.attrs["schema"] == 1


def test_an_empty_data_set_that_may_grow_is_empty(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", (0, 3), np.int32, chunks=(64, 3), maxshape=(None, 3), compression="gzip")
    assert hdf5.mapped(tmp_path / "x.h5")["x"].shape == (0, 3)


# --- files of strangers ---


def _endless(file: h5py.File) -> None:
    file["loop"] = file["/"]


def _huge_chunked(file: h5py.File) -> None:
    # A petabyte of zeros in a few hundred bytes; no address space holds it, so the test cannot fill the memory.
    file.create_dataset("x", shape=(1 << 50,), chunks=(1 << 20,), dtype=np.uint8)


def _huge_contiguous(file: h5py.File) -> None:
    file.create_dataset("x", shape=(1 << 50,), dtype=np.uint8)


_HOSTILE: dict[str, Callable[[h5py.File], object]] = {
    "soft link": lambda file: file.__setitem__("x", h5py.SoftLink("/y")),
    "external link": lambda file: file.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/")),
    "external storage": lambda file: file.create_dataset("x", (4,), np.uint8, external=[("/etc/passwd", 0, 4)]),
    "virtual": lambda file: file.create_virtual_dataset("x", _layout()),
    "strings in a heap": lambda file: file.create_dataset("x", data=["a", "b"]),
    "references": lambda file: file.create_dataset("x", data=file.ref, dtype=h5py.ref_dtype),
    "a loop of groups": _endless,
    "a named type": lambda file: file.__setitem__("x", np.dtype("i4")),
    "more than it holds": _huge_contiguous,
    "more than it holds, chunked": _huge_chunked,
}


def _layout() -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((4,), np.uint8)
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", (4,))
    return layout


@pytest.mark.parametrize("build", _HOSTILE.values(), ids=_HOSTILE.keys())
def test_what_leads_out_of_the_file_or_out_of_memory_is_refused(
    tmp_path: Path, build: Callable[[h5py.File], object]
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        build(file)
    with pytest.raises(ArtifactError, match=r"x\.h5"):
        hdf5.mapped(tmp_path / "x.h5")


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04 a zip"])
def test_what_is_no_hdf5_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.h5").write_bytes(content)
    for read in (hdf5.mapped, hdf5.attributes):
        with pytest.raises(ArtifactError, match=r"x\.h5 is not a readable HDF5 file"):
            read(tmp_path / "x.h5")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"x\.h5 is missing"):
        hdf5.mapped(tmp_path / "x.h5")


@pytest.mark.parametrize("read", [hdf5.mapped, hdf5.attributes])
def test_any_damage_to_the_metadata_gives_a_file_or_one_kind_of_error(
    tmp_path: Path, written: Path, read: Callable[[Path], object]
) -> None:
    """h5py itself answers damage with whatever it happens to meet: KeyError, RuntimeError, OSError, TypeError."""
    whole, chance = written.read_bytes(), random.Random(0)
    escaped = set()
    for attempt in range(300):
        damaged = bytearray(whole)
        if attempt % 3:
            damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        else:
            del damaged[chance.randrange(len(whole)) :]
        path = tmp_path / "damaged.h5"
        path.write_bytes(bytes(damaged))
        try:
            read(path)
        except ArtifactError:
            pass
        except Exception as error:
            escaped.add(type(error).__name__)
    assert not escaped


_TWO_READ_WHILE_ONE_WRITES = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from nstudent.storage import hdf5

path, arrays = Path(sys.argv[1]), {str(i): np.arange(100 * i + 1) for i in range(6)}
hdf5.write(path, arrays, {"a": "x"})

def read():
    for _ in range(400):
        assert len(hdf5.mapped(path)) == 6
        assert hdf5.attributes(path) == {"a": "x"}

def write():
    for _ in range(400):
        hdf5.encoded(arrays, {"a": "x"})

# Threads take turns as often as they can.
sys.setswitchinterval(1e-5)
with ThreadPoolExecutor(3) as pool:
    for each in [pool.submit(work) for work in (write, read, read)]:
        each.result()
"""


@pytest.mark.slow
def test_threads_read_while_another_writes(tmp_path: Path) -> None:
    """h5py does not lock the functions that say where plug-ins lie: HDF5 crashed, or mixed up two threads' files."""
    # A process of its own: it may crash.
    command = [sys.executable, "-c", _TWO_READ_WHILE_ONE_WRITES, str(tmp_path / "x.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("chunks", [None, (1024,)])
def test_an_array_that_claims_more_than_the_file_holds_is_refused_whatever_its_size(
    tmp_path: Path, chunks: tuple[int] | None
) -> None:
    """One that was never written would be read as zeros."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", shape=(1 << 20,), dtype=np.uint8, chunks=chunks)
    with pytest.raises(ArtifactError, match="'x' claims 1,048,576 bytes and holds fewer: refused"):
        hdf5.mapped(tmp_path / "a.h5")
