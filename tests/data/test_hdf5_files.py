"""``nstudent.storage.hdf5``: written once, mapped, and trusted no further than the file itself."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from nstudent.errors import ArtifactError
from nstudent.storage import hdf5

ARRAYS = {
    "numbers": np.arange(12, dtype=np.int64).reshape(4, 3),
    "halves": np.linspace(0, 1, 10, dtype=np.float16),
    "group/names": np.array([b"one", "고양이".encode()]),
    "none": np.zeros((0, 5), np.float32),
}


def crafted(path: Path, build: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w") as file:
        build(file)
    return path


def test_what_is_written_is_mapped(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "a.h5", ARRAYS, {"schema": 1, "levels": ["x", "y"]})

    found = hdf5.mapped(tmp_path / "a.h5")

    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(found[name], array)
    assert isinstance(found["numbers"], np.memmap)
    attributes = hdf5.attributes(tmp_path / "a.h5")
    assert (attributes["schema"], list(attributes["levels"])) == (1, ["x", "y"])


def test_what_is_mapped_cannot_be_written(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "a.h5", ARRAYS, {})

    with pytest.raises(ValueError, match="read-only"):
        hdf5.mapped(tmp_path / "a.h5")["numbers"][0] = 7


def test_plain_h5py_reads_it(tmp_path: Path) -> None:
    hdf5.write(tmp_path / "a.h5", ARRAYS, {})

    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["numbers"][:], ARRAYS["numbers"])
        assert file["numbers"].chunks is None, "contiguous: that is what can be mapped"


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        hdf5.write(tmp_path / name, ARRAYS, {"schema": 1})

    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_chunked_data_set_is_read_all_the_same(tmp_path: Path) -> None:
    values = np.arange(1000)
    path = crafted(tmp_path / "a.h5", lambda f: f.create_dataset("x", data=values, chunks=(100,), compression="gzip"))

    assert np.array_equal(hdf5.mapped(path)["x"], values)


# --- the joined view --------------------------------------------------------------------------------------------------


def parts_in(folder: Path) -> list[Path]:
    folder.mkdir()
    parts = []
    for number, rows in enumerate((3, 1, 4)):
        parts.append(folder / f"part-{number}.h5")
        hdf5.write(parts[-1], {"id": np.arange(rows) + 10 * number, "p/fine": np.full((rows, 2), number)}, {})
    return parts


EXPECTED = [0, 1, 2, 10, 20, 21, 22, 23]


def test_the_joined_view_shows_the_parts_end_to_end(tmp_path: Path) -> None:
    parts = parts_in(tmp_path / "here")
    hdf5.write_joined(tmp_path / "here" / "all.h5", parts, {"schema": 1})

    with h5py.File(tmp_path / "here" / "all.h5") as file:
        assert file["id"][:].tolist() == EXPECTED
        assert file["p/fine"][:, 1].tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
        assert file.attrs["schema"] == 1


def test_the_joined_view_survives_moving_the_folder_and_another_working_directory(tmp_path: Path) -> None:
    hdf5.write_joined(tmp_path / "here" / "all.h5", parts_in(tmp_path / "here"), {})
    (tmp_path / "here").rename(tmp_path / "there")
    (tmp_path / "elsewhere").mkdir()

    script = f"import h5py; print(h5py.File({str(tmp_path / 'there' / 'all.h5')!r})['id'][:].tolist())"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=True
    )

    assert found.stdout.strip() == str(EXPECTED)


# --- files of others --------------------------------------------------------------------------------------------------


def external_storage(file: h5py.File) -> None:
    file.create_dataset("x", shape=(6,), dtype="u1", external=[("secret.txt", 0, 6)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(3,), dtype="i8")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(3,))
    file.create_virtual_dataset("x", layout)


def cycle(file: h5py.File) -> None:
    file.create_group("a")
    file["a/again"] = file["a"]


HOSTILE = {
    "external storage": external_storage,
    "virtual data set": virtual,
    "external link": lambda f: f.__setitem__("x", h5py.ExternalLink("other.h5", "/x")),
    "external link in a group": lambda f: f.create_group("g").__setitem__("x", h5py.ExternalLink("other.h5", "/x")),
    "soft link": lambda f: f.__setitem__("x", h5py.SoftLink("/nowhere")),
    "objects": lambda f: f.create_dataset("x", data=["one", "two"]),
    "contiguous bomb": lambda f: f.create_dataset("x", shape=(1 << 42,), dtype="u1"),
    "chunked bomb": lambda f: f.create_dataset("x", shape=(1 << 42,), dtype="u1", chunks=(1 << 20,)),
    "a group in itself": cycle,
    "a type with a name": lambda f: f.__setitem__("x", np.dtype("i4")),
    "nothing at all": lambda f: f.create_dataset("x", data=h5py.Empty("f4")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_reaches_out_or_lies_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.txt").write_bytes(b"secret")
    hdf5.write(tmp_path / "other.h5", {"x": np.arange(3)}, {})
    path = crafted(tmp_path / "evil.h5", HOSTILE[name])

    with pytest.raises(ArtifactError, match=r"evil\.h5"):
        hdf5.mapped(path)


def test_damaged_compressed_data_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 1 << 40, 10_000)
    path = crafted(tmp_path / "evil.h5", lambda f: f.create_dataset("x", data=noise, chunks=(1000,), compression=4))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = b"\xaa" * 20_000
    path.write_bytes(content)

    with pytest.raises(ArtifactError, match=r"evil\.h5"):
        hdf5.mapped(path)


@pytest.mark.parametrize("content", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + b"\xff" * 200])
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "evil.h5").write_bytes(content)

    with pytest.raises(ArtifactError, match=r"evil\.h5"):
        hdf5.mapped(tmp_path / "evil.h5")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"gone\.h5 is missing"):
        hdf5.mapped(tmp_path / "gone.h5")


def test_every_prefix_of_a_file_is_refused(tmp_path: Path) -> None:
    """A truncated file never gives wrong numbers."""
    hdf5.write(tmp_path / "a.h5", ARRAYS, {"schema": 1})
    whole = (tmp_path / "a.h5").read_bytes()

    for length in range(0, len(whole), max(1, len(whole) // 60)):
        (tmp_path / "cut.h5").write_bytes(whole[:length])
        with pytest.raises(ArtifactError):
            hdf5.mapped(tmp_path / "cut.h5")


@pytest.mark.skipif(os.name == "nt", reason="open files are held there")
def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot write"):
        hdf5.write(tmp_path / "gone" / "a.h5", ARRAYS, {})

    assert list(tmp_path.iterdir()) == []
