"""Which columns of a table hold what, where they have other names than ours."""

from pathlib import Path
from typing import Any

import pytest
from nstudent.config.data import DataConfig
from nstudent.data.sources.csv_table import read_header, rows
from nstudent.data.sources.table_columns import column_keys
from nstudent.errors import DataError


def keys(folder: Path, header: str, *lines: str) -> dict[str, Any]:
    """The keys for a table; a configuration with them reads it."""
    table = folder / "table.csv"
    table.write_text("\n".join([header, *lines]) + "\n")
    found = column_keys(table)
    config = DataConfig(source="csv", root=str(folder), table=table.name, **found)
    _, cells = next(rows(table))
    read_header(cells, config, table)
    return found


@pytest.mark.parametrize(
    ("header", "lines", "expected"),
    [
        ("path,class", ["a,cat"], {}),
        ("path,coarse,mid,fine,split", ["a,x,y,z,train"], {}),
        ("filename,label", ["a,cat", "b,dog"], {"path_column": "filename", "levels": ["label"]}),
        ("Image Path,Species", ["a,cat", "b,dog"], {"path_column": "Image Path", "levels": ["Species"]}),
        ("path,Class", ["a,cat", "b,dog"], {"levels": ["Class"]}),
        ("path,kind of bird", ["a,owl", "b,tit"], {"levels": ["kind of bird"]}),
        ("path,class,subset", ["a,cat,train", "b,dog,val"], {"split_column": "subset"}),
        ("path,class,subset", ["a,cat,train", "b,dog,3"], {}),
        ("path,class,vehicle", ["a,cat,train", "b,dog,train"], {}),
    ],
)
def test_columns_are_found_by_their_names_and_splits_by_what_they_say(
    tmp_path: Path, header: str, lines: list[str], expected: dict[str, Any]
) -> None:
    assert keys(tmp_path, header, *lines) == expected


BIRDS = (
    "1,owls,Strix,aluco,7,ann",
    "2,owls,Strix,uralensis,7,bob",
    "3,owls,Bubo,bubo,9,ann",
    "4,tits,Parus,major,8,bob",
)


def test_columns_that_the_finest_one_determines_are_levels_above_it(tmp_path: Path) -> None:
    """Of the last two columns one is a number for each genus, which is no further level, and one is of no class."""
    found = keys(tmp_path, "img,family,genus,species,genus_id,photographer", *BIRDS, "5,tits,Parus,major,8,ann")
    assert found == {"path_column": "img", "levels": ["family", "genus", "species"]}


def test_cells_that_say_nothing_contradict_nothing(tmp_path: Path) -> None:
    lines = ("1,owls,aluco", "2,,aluco", "3,owls,-", "4,tits,major", "5,owls,bubo", "6,owls,")
    assert keys(tmp_path, "path,family,species", *lines)["levels"] == ["family", "species"]


def test_a_column_that_is_no_part_of_the_tree_is_no_level(tmp_path: Path) -> None:
    lines = ("1,spring,aluco", "2,autumn,aluco", "3,spring,bubo", "4,autumn,major")
    assert keys(tmp_path, "path,season,species", *lines)["levels"] == ["species"]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("path,width,height", r"none or several of its columns \(width, height\): call the one .* 'class'"),
        ("path,label,target", "none or several of its columns"),
        ("path", "has no column of classes"),
        ("a,b", r"none or several"),
    ],
)
def test_what_is_not_clear_is_refused_with_what_to_do(tmp_path: Path, header: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        keys(tmp_path, header)


def test_two_columns_that_could_be_paths_are_left_to_the_reader_of_the_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no column path: .*Write 'file' as 'path', or set data.path_column=file"):
        keys(tmp_path, "file,image,class", "a,b,cat")
