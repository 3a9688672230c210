"""Labels that name only the finest classes of a tree that is given."""

import pytest
from nstudent.config.data import DataConfig
from nstudent.data.curation.given_labels import encode_labels, taxonomy_of
from nstudent.data.sources import Catalogue, Record
from nstudent.errors import DataError, NstudentError

TREE: dict[str, object] = {"pets": {"dogs": ["poodle", "beagle"], "cats": ["tabby"]}, "cars": {"vans": ["van"]}}


def catalogue(levels: tuple[str, ...], *labels: tuple[str, ...]) -> Catalogue:
    return Catalogue([Record(f"{i}.png", label) for i, label in enumerate(labels)], levels)


def config(**keys: object) -> DataConfig:
    return DataConfig.model_validate({"source": "folder", "root": "photos", "taxonomy": TREE, **keys})


def test_what_is_above_them_follows_from_the_tree() -> None:
    found = catalogue(("class",), ("beagle",), ("van",), ("",), ("tabby",))
    taxonomy = taxonomy_of(found, config())
    assert taxonomy.levels == ("coarse", "mid", "fine")
    labels = encode_labels(found.records, taxonomy)
    assert [list(taxonomy.names(row).values()) for row in labels] == [
        ["pets", "dogs", "beagle"],
        ["cars", "vans", "van"],
        [],
        ["pets", "cats", "tabby"],
    ]
    assert labels[2].tolist() == [-2, -2, -2]


def test_labels_of_two_levels_name_the_two_finest() -> None:
    found = catalogue(("coarse", "fine"), ("dogs", "poodle"), ("cats", ""), ("dogs", "-"))
    taxonomy = taxonomy_of(found, config())
    assert [list(taxonomy.names(row).values()) for row in encode_labels(found.records, taxonomy)] == [
        ["pets", "dogs", "poodle"],
        ["pets", "cats"],
        ["pets", "dogs"],
    ]


def test_a_class_of_an_upper_level_is_none_of_the_finest() -> None:
    found = catalogue(("class",), ("poodle",), ("dogs",))
    with pytest.raises(DataError, match=r"1\.png: label .*: the taxonomy has no fine class 'dogs'"):
        encode_labels(found.records, taxonomy_of(found, config()))


def test_levels_that_are_named_are_held_to() -> None:
    with pytest.raises(DataError, match="deeper at"):
        taxonomy_of(catalogue(("a", "b"), ("pets", "dogs")), config(levels=("a", "b")))
    taxonomy = taxonomy_of(catalogue(("a", "b", "c"), ("pets", "dogs", "poodle")), config(levels=("a", "b", "c")))
    assert taxonomy.levels == ("a", "b", "c")


def test_a_tree_of_more_levels_than_have_names_is_refused() -> None:
    deep: dict[str, object] = {"a": {"b": {"c": ["d"]}}}
    with pytest.raises(NstudentError, match=r"the tree of data\.taxonomy has 4 levels: name them"):
        taxonomy_of(catalogue(("class",), ("d",)), config(taxonomy=deep))
