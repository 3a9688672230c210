"""Which source somebody's folder or file is."""

import gzip
import struct
from pathlib import Path

import h5py
import pytest
from nstudent.data.sources.guess import guess
from nstudent.errors import DataError
from PIL import Image


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        _image(tmp_path / "photos" / name / "a.png")
    return tmp_path / "photos"


def test_class_folders_are_a_folder_also_with_a_table_beside_them(photos: Path) -> None:
    (photos / "sizes.csv").write_text("path,size\n")
    assert guess(photos, None) == {"source": "folder", "root": str(photos)}
    heap = photos.parent / "heap"
    assert guess(photos, heap)["unlabelled_root"] == str(heap)


def test_a_heap_within_the_folder_is_no_class_of_it(tmp_path: Path) -> None:
    _image(tmp_path / "photos" / "images" / "a.png")
    _image(tmp_path / "photos" / "heap" / "b.png")
    (tmp_path / "photos" / "labels.csv").write_text("path,class\n")
    assert guess(tmp_path / "photos", tmp_path / "photos" / "heap")["source"] == "csv"


@pytest.mark.parametrize("where", ["", "images/"])
def test_images_in_one_folder_belong_to_the_table_beside_it(tmp_path: Path, where: str) -> None:
    _image(tmp_path / f"{where}a.png")
    table = tmp_path / "labels.CSV"
    table.write_text("path,class\n")
    expected = {"source": "csv", "root": str(tmp_path), "table": "labels.CSV"}
    assert guess(tmp_path, None) == expected
    assert guess(table, None) == expected


def test_an_hdf5_file_is_known_by_its_content_and_a_pack_by_its_files(tmp_path: Path) -> None:
    for name in ("all.h5", "all.bin"):
        with h5py.File(tmp_path / name, "w"):
            pass
        assert guess(tmp_path / name, None) == {"source": "hdf5", "root": str(tmp_path / name)}
    for name in ("manifest.json", "records.h5", "info.json"):
        (tmp_path / name).touch()
    for path in (tmp_path, tmp_path / "records.h5", tmp_path / "manifest.json"):
        assert guess(path, None) == {"source": "packed", "root": str(tmp_path)}


def test_files_of_the_mnist_family_are_known_and_their_numbers_are_the_classes(tmp_path: Path) -> None:
    for split, numbers in (("train", [0, 3]), ("t10k", [11])):
        content = struct.pack(">HBBI", 0, 8, 1, len(numbers)) + bytes(numbers)
        (tmp_path / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(content))
    expected = {"source": "idx", "root": str(tmp_path), "class_paths": [str(number) for number in range(12)]}
    assert guess(tmp_path, None) == expected
    assert guess(tmp_path / "train-labels-idx1-ubyte.gz", None) == expected


@pytest.mark.parametrize(
    ("files", "named", "said"),
    [
        ([], "nothing", "there is no folder or file"),
        ([], "", "there is no image in"),
        (["a.png"], "", "lie in no class folder: move them to"),
        (["a.csv", "b.csv"], "", r"several tables \(a.csv, b.csv\): name the one"),
        (["a.txt"], "a.txt", "neither a CSV table nor an HDF5 file, nor of the MNIST family"),
        (["train-images-idx3-ubyte.gz"], "", "holds no train-labels-idx"),
    ],
)
def test_what_is_not_clear_is_refused_with_what_would_be(
    tmp_path: Path, files: list[str], named: str, said: str
) -> None:
    for name in files:
        _image(tmp_path / name) if name.endswith(".png") else (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=said):
        guess(tmp_path / named, None)


def test_a_heap_goes_with_folders_and_tables_alone(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "all.h5", "w"):
        pass
    with pytest.raises(DataError, match=r"all.h5 has its own unlabelled images: leave .*heap out"):
        guess(tmp_path / "all.h5", tmp_path / "heap")
