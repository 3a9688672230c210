"""Nouns of WordNet from the files of its database, and the tree that they make of classes."""

from pathlib import Path

import pytest
from nstudent.errors import DataError
from nstudent.taxonomy.wordnet import WordNet, described, divided, kinds_of, proposed_kinds
from wordnet_files import SYNSETS, write_wordnet


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    return WordNet(write_wordnet(tmp_path / "dict"))


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("poodle", "00000013"),
        ("Poodle", "00000013"),
        ("poodles", "00000013"),
        ("perches", "00000015"),
        ("lorries", "00000023"),
        ("domestic_dog", "00000012"),
        ("domestic dog", "00000012"),
        ("domestic-dog", "00000012"),
        ("unheard of, Domestic dog", "00000012"),
        ("n00000014", "00000014"),
        ("n00000014-Rex", "00000014"),
        ("n00000014_any_word", "00000014"),
        ("n00000014 two words", "00000014"),
        ("dog.n.02", "00000024"),
        ("perch.n.01", "00000015"),
        # The most frequent meaning is the first.
        ("dog", "00000012"),
    ],
)
def test_a_class_is_found_by_noun_or_synset(wordnet: WordNet, name: str, offset: str) -> None:
    assert wordnet.find(name)[0].offset == offset


@pytest.mark.parametrize(
    "name", ["unheard of", "n00000099", "n00000014x", "n00000099-Rex", "dog.n.03", "dog.n.00", "", "s", "dog.v.01"]
)
def test_what_is_no_noun_is_not_found(wordnet: WordNet, name: str) -> None:
    assert wordnet.find(name) == []


def test_a_meaning_has_a_name_and_a_gloss_without_examples(wordnet: WordNet) -> None:
    first, second = wordnet.find("dog")
    assert (wordnet.name_of(first), wordnet.name_of(second)) == ("dog.n.01", "dog.n.02")
    assert described(wordnet, first) == "dog.n.01: a common pet"
    assert first.words == ("dog", "domestic dog")


def test_the_way_up_goes_over_kinds_and_instances(wordnet: WordNet) -> None:
    assert [each.words[0] for each in wordnet.upwards(wordnet.find("Rex")[0])] == [
        *("Rex", "dog", "carnivore", "animal", "entity")
    ]


def meanings(wordnet: WordNet, *names: str) -> dict[str, object]:
    return {name: wordnet.find(name)[0] for name in names}


def test_golden_kinds_without_what_divides_nothing(wordnet: WordNet) -> None:
    """Carnivores divide into cat and dog, among them poodles; nothing says 'artifact' of a single car."""
    tree = kinds_of(wordnet, meanings(wordnet, "poodle", "dog", "cat", "perch", "car"))  # type: ignore[arg-type]
    assert (tree.name, [below.name for below in tree.below]) == ("entity", ["animal", "car"])
    animal, car = tree.below
    assert car.classes == ("car",)
    assert [below.name for below in animal.below] == ["carnivore", "perch"]
    assert [below.name for below in animal.below[0].below] == ["dog", "cat"]
    # A class that others are kinds of stands beside them.
    assert animal.below[0].below[0].classes == ("dog", "poodle")


def test_golden_groups_of_two_levels(wordnet: WordNet) -> None:
    names = ("poodle", "dog", "cat", "perch", "car", "lorry")
    tree = kinds_of(wordnet, meanings(wordnet, *names))  # type: ignore[arg-type]
    assert [each.name for each in divided(tree, 2, ())] == ["animal", "artifact"]
    assert [each.name for each in divided(tree, 3, ())] == ["carnivore", "perch", "artifact"]
    groups = proposed_kinds(tree, [2, 3], {"cat": "purrs"})
    assert [(group.name, [below.name for below in group.below]) for group in groups] == [
        ("animal", ["carnivore", "perch"]),
        ("artifact", ["artifact"]),
    ]
    assert [below.classes for below in groups[0].below] == [["dog", "poodle", "cat"], ["perch"]]
    assert [leaf.note for leaf in groups[0].below[0].below] == ["", "", "purrs"]
    assert {group.depth for group in groups} == {3}


def test_no_more_groups_than_there_are_classes(wordnet: WordNet) -> None:
    tree = kinds_of(wordnet, meanings(wordnet, "poodle", "cat", "car"))  # type: ignore[arg-type]
    assert [each.name for each in divided(tree, 9, ())] == ["poodle", "cat", "car"]


def test_a_folder_without_a_database_is_an_error_that_says_where_there_is_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no index\.noun of WordNet: name the folder .*apt install wordnet-base"):
        WordNet(tmp_path)


@pytest.mark.parametrize("damage", ["dog n x 2 @ ~ 1 1 00000012\n", "dog n\n", "00000012\n"])
@pytest.mark.parametrize("name", ["index.noun", "data.noun"])
def test_a_damaged_database_is_one_line(tmp_path: Path, name: str, damage: str) -> None:
    folder = write_wordnet(tmp_path / "dict")
    (folder / name).write_text(damage, encoding="utf-8")
    with pytest.raises(DataError, match="holds no database of WordNet that can be read") as refused:
        WordNet(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("above", ["00000013", "00000098"])
def test_a_database_that_goes_in_a_circle_or_nowhere_is_refused(tmp_path: Path, above: str) -> None:
    words, _, pointer, gloss = SYNSETS["00000012"]
    damaged = WordNet(write_wordnet(tmp_path / "dict", {**SYNSETS, "00000012": (words, above, pointer, gloss)}))
    with pytest.raises(DataError, match=r"is damaged: there is no way up from poodle\.n\.01"):
        damaged.upwards(damaged.find("poodle")[0])
