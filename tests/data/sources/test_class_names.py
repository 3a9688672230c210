"""Names of classes are spelled by one rule, whichever source they come from."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from nstudent.config.schema import DataConfig
from nstudent.data.sources import Catalogue, catalogue_of, open_source
from nstudent.data.sources.class_names import spelled_alike
from nstudent.data.sources.source import Record
from nstudent.errors import DataError

WAYS = ("Café", "Cafe\u0301", " Café\u00a0", '"Café"', "Ca\u200bfé")
"""One name as five programs write it."""


def found(config: DataConfig) -> Catalogue:
    return catalogue_of(open_source(config), config)


def folder(root: Path, names: tuple[str, ...]) -> DataConfig:
    for number, name in enumerate(names):
        (root / "r" / name).mkdir(parents=True, exist_ok=True)
        (root / "r" / name / f"{number}.jpg").touch()
    return DataConfig(source="folder", root=str(root / "r"), levels=("class",))


def splits(root: Path, names: tuple[str, ...]) -> DataConfig:
    for number, name in enumerate(names):
        path = root / "r" / ("train", "val", "test")[number % 3] / name
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{number}.jpg").touch()
    return DataConfig(source="folder", root=str(root / "r"), levels=("class",))


def table(root: Path, names: tuple[str, ...]) -> DataConfig:
    for number in range(len(names)):
        (root / f"{number}.jpg").touch()
    rows = "\n".join(f"{number}.jpg,{name}" for number, name in enumerate(names))
    (root / "t.csv").write_text(f"path,class\n{rows}\n", encoding="utf-8")
    return DataConfig(source="csv", root=str(root), table="t.csv")


def hdf5(root: Path, names: tuple[str, ...]) -> DataConfig:
    """Every name in a file of its own would be needed for several ways of one: a list may name a class once."""
    with h5py.File(root / "x.h5", "w") as file:
        file["jpeg"] = np.zeros(len(names), np.uint8)
        file["offset"] = np.arange(len(names) + 1)
        file["label"] = np.arange(len(names), dtype=np.int32)[:, None]
        file["split"] = np.zeros(len(names), np.int8)
        file.attrs["meta"] = json.dumps({"levels": [list(names)]})
    return DataConfig(source="hdf5", root=str(root / "x.h5"))


@pytest.mark.parametrize("source", [folder, splits, table])
def test_ways_to_write_a_name_are_one_class_and_that_is_said(
    tmp_path: Path, source: Callable[[Path, tuple[str, ...]], DataConfig]
) -> None:
    catalogue = found(source(tmp_path, (*WAYS, "dog")))

    assert {record.label for record in catalogue.records} == {("Café",), ("dog",)}
    (said,) = [note for note in catalogue.notes if "one class" in note]
    assert "Cafe\\u0301" in said
    assert "dog" not in said


@pytest.mark.parametrize("source", [folder, splits, table, hdf5])
def test_names_that_differ_in_case_alone_are_an_error_that_shows_both(
    tmp_path: Path, source: Callable[[Path, tuple[str, ...]], DataConfig]
) -> None:
    config = source(tmp_path, ("Cat", "dog", "cat\u00a0"))

    with pytest.raises(DataError, match="differ in case or width alone") as caught:
        found(config)
    assert "'Cat'" in str(caught.value)
    assert "'cat'" in str(caught.value)
    assert "data.allow_case=true" in str(caught.value)

    allowed = found(config.model_copy(update={"allow_case": True}))
    assert {record.label for record in allowed.records} == {("Cat",), ("cat",), ("dog",)}


def test_a_list_of_classes_in_hdf5_is_spelled_too(tmp_path: Path) -> None:
    assert found(hdf5(tmp_path, (WAYS[2], "dog"))).records[0].label == ("Café",)


def labelled(*labels: tuple[str, ...]) -> Catalogue:
    return Catalogue([Record(f"{i}.jpg", label) for i, label in enumerate(labels)], ("coarse", "fine"))


def test_case_is_compared_below_one_parent_and_parents_are_compared_themselves() -> None:
    spelled_alike(labelled(("pet", "Cat"), ("wild", "cat")), allow_case=False)

    with pytest.raises(DataError, match=r"'Pet' \(1\.jpg\)|'pet' \(0\.jpg\)"):
        spelled_alike(labelled(("pet", "cat"), ("Pet", "cat")), allow_case=False)


def test_a_catalogue_that_is_spelled_stays_as_it_is() -> None:
    catalogue = labelled(("a", "b"), ("a", "-"), ("", ""))

    assert spelled_alike(catalogue, allow_case=False) is catalogue
