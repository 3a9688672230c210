"""The MNIST family's files, made here by hand; the real ones where the Debian package has put them."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nstudent.config.schema import DataConfig
from nstudent.data.sources import open_source
from nstudent.data.sources.source import Source
from nstudent.errors import DataError

CLASSES = ("top/shirt", "top/coat", "bag")
FASHION = Path("/usr/share/datasets/fashion-mnist")


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def images(count: int) -> np.ndarray:
    return (np.arange(count * 12) % 251).astype(np.uint8).reshape(count, 3, 4)


def plant(root: Path, zipped: bool = False, **changed: Any) -> None:
    files = {
        "train-images-idx3-ubyte": idx(images(5)),
        "train-labels-idx1-ubyte": idx(np.array([0, 1, 2, 0, 1], np.uint8)),
        "t10k-images-idx3-ubyte": idx(images(2) + 1),
        "t10k-labels-idx1-ubyte": idx(np.array([2, 1], np.uint8)),
    }
    for name, content in files.items():
        content = changed.get(name.replace("-", "_"), content)
        if content is not None:
            path = root / (f"{name}.gz" if zipped else name)
            path.write_bytes(gzip.compress(content) if zipped else content)


def opened(root: Path, classes: tuple[str, ...] = CLASSES) -> Source:
    return open_source(DataConfig(source="idx", root=str(root), class_paths=classes, levels=("coarse", "fine")))


def refused(root: Path, classes: tuple[str, ...] = CLASSES) -> str:
    with pytest.raises(DataError) as caught:
        opened(root, classes).catalogue()
    return str(caught.value)


@pytest.mark.parametrize("zipped", [False, True])
def test_train_and_test_images_with_their_labels(tmp_path: Path, zipped: bool) -> None:
    plant(tmp_path, zipped)
    source = opened(tmp_path)

    records = source.catalogue().records

    assert [(r.name, r.label, r.split) for r in records[:3]] == [
        ("train-000000", ("top", "shirt"), "train"),
        ("train-000001", ("top", "coat"), "train"),
        ("train-000002", ("bag", "-"), "train"),
    ]
    assert [(r.name, r.label, r.split) for r in records[5:]] == [
        ("test-000000", ("bag", "-"), "test"),
        ("test-000001", ("top", "coat"), "test"),
    ]
    assert np.array_equal(source.read(4), images(5)[4])
    assert np.array_equal(source.read(6), images(2)[1] + 1)


def test_the_stamp_does_not_need_the_content(tmp_path: Path) -> None:
    plant(tmp_path, train_images_idx3_ubyte=b"anything")

    assert opened(tmp_path).seen().stamp == opened(tmp_path).seen().stamp


@pytest.mark.parametrize("cut", [0, 3, 10, 16, 30])
def test_a_file_cut_off_is_named(tmp_path: Path, cut: int) -> None:
    plant(tmp_path, train_images_idx3_ubyte=idx(images(5))[:cut])

    assert "train-images-idx3-ubyte" in refused(tmp_path)


def test_a_zipped_file_cut_off_is_named(tmp_path: Path) -> None:
    plant(tmp_path, zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-12])

    assert path.name in refused(tmp_path)


def test_a_zipped_file_that_is_none_is_named(tmp_path: Path) -> None:
    plant(tmp_path, zipped=True)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<html>404</html>")

    assert "t10k-labels-idx1-ubyte.gz" in refused(tmp_path)


def test_a_shape_whose_size_overflows_is_refused(tmp_path: Path) -> None:
    """2^31 x 2^31 x 4 values are 2^64, which is nothing at all in 64 bits."""
    plant(tmp_path, train_images_idx3_ubyte=struct.pack(">HBB3I", 0, 8, 3, 1 << 31, 1 << 31, 4))

    assert "train-images-idx3-ubyte" in refused(tmp_path)


def test_too_few_classes_name_the_key(tmp_path: Path) -> None:
    plant(tmp_path)

    message = refused(tmp_path, CLASSES[:2])

    assert "class 2" in message
    assert "data.class_paths" in message


@pytest.mark.parametrize("path", ["a/b/c", "", "a//b"])
def test_a_class_path_that_does_not_fit_is_named(tmp_path: Path, path: str) -> None:
    plant(tmp_path)

    with pytest.raises(DataError, match=r"data\.class_paths"):
        opened(tmp_path, (path, "x", "y"))


def test_images_and_labels_must_be_as_many(tmp_path: Path) -> None:
    plant(tmp_path, train_labels_idx1_ubyte=idx(np.zeros(4, np.uint8)))

    assert "5 train images and 4 labels" in refused(tmp_path)


def test_images_in_place_of_labels_are_refused(tmp_path: Path) -> None:
    plant(tmp_path, train_labels_idx1_ubyte=idx(images(5)))

    assert "1 dimensions" in refused(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    plant(tmp_path, t10k_labels_idx1_ubyte=None)

    assert "t10k-labels" in refused(tmp_path)


def test_a_missing_folder_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root"):
        opened(tmp_path / "gone")


@pytest.mark.skipif(not FASHION.is_dir(), reason="apt-get install dataset-fashion-mnist")
def test_fashion_mnist_as_debian_installs_it() -> None:
    source = open_source(
        DataConfig(source="idx", root=str(FASHION), class_paths=tuple(f"c{i}" for i in range(10)), levels=("only",))
    )
    records = source.catalogue().records

    labels = [record.label[0] for record in records]
    assert (len(records), labels.count("c0"), labels[:5]) == (70_000, 7_000, ["c9", "c0", "c0", "c3", "c0"])
    assert sum(record.split == "test" for record in records) == 10_000
    assert source.read(0).shape == (28, 28)
    assert int(source.read(0).sum()) == 76_247


@pytest.mark.parametrize(
    ("classes", "levels"),
    [(("a", "b", "c"), ("class",)), (CLASSES, ("coarse", "fine")), (("a/b/c", "a", "d"), ("coarse", "mid", "fine"))],
)
def test_levels_follow_from_the_paths_of_classes(
    tmp_path: Path, classes: tuple[str, ...], levels: tuple[str, ...]
) -> None:
    plant(tmp_path)

    catalogue = open_source(DataConfig(source="idx", root=str(tmp_path), class_paths=classes)).catalogue()

    assert catalogue.levels == levels
    assert {len(record.label) for record in catalogue.records} == {len(levels)}


def test_numbers_that_are_made_one_class_are_said(tmp_path: Path) -> None:
    plant(tmp_path)

    catalogue = opened(tmp_path, ("top/shirt", "bag", " top/shirt")).catalogue()

    assert catalogue.notes == ("numbers that data.class_paths makes one class: 0, 2",)
    assert catalogue.records[2].label == ("top", "shirt")


@pytest.mark.parametrize("form", ["{}-{}.idx{}-ubyte", "emnist-letters-{}-{}-idx{}-ubyte"])
def test_the_names_that_others_give_these_files_are_known(tmp_path: Path, form: str) -> None:
    plant(tmp_path)
    for path in list(tmp_path.iterdir()):
        split, kind, number = *path.name.split("-")[:2], path.name[-7]
        path.rename(tmp_path / form.format("test" if split == "t10k" and "emnist" in form else split, kind, number))
    (tmp_path / "train-images-idx3-ubyte.gz.part").write_bytes(b"half of a download")

    assert len(opened(tmp_path).catalogue().records) == 7


def test_files_of_two_data_sets_in_one_folder_are_not_chosen_from(tmp_path: Path) -> None:
    plant(tmp_path)
    (tmp_path / "emnist-train-images-idx3-ubyte").write_bytes(idx(images(5)))

    assert "holds several of train images (emnist-train-images-idx3-ubyte, train-images-idx3-ubyte)" in refused(
        tmp_path
    )
