"""The usual names of splits, in any spelling, and names of classes that only look like them."""

import pytest
from nstudent.data.sources.splits import all_say_splits, ambiguous_split, paired, split_named


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["train", "Train", "TRAINING", " train ", "training_set", "train2017", "TrainData", "trn"]),
        ("validation", ["val", "Valid", "VALIDATION", "dev", "val-images", "validation set", "vali\u00addation"]),
        ("test", ["test", "Testing", "test_images", "Test (1)", '"test"']),
        ("unlabelled", ["unlabelled", "unlabeled", "UNLABELED", "un-labelled", "unlabeled_data", "unsup"]),
    ],
)
def test_any_spelling_says_its_split(split: str, names: list[str]) -> None:
    assert [split_named(name) for name in names] == [split] * len(names)


@pytest.mark.parametrize(
    "name",
    ["cat", "train station", "test_tube", "freight_train", "trainer", "", "-", "images", "devil", "value", "set"],
)
def test_a_class_says_none(name: str) -> None:
    assert split_named(name) is ambiguous_split(name) is None


def test_a_name_that_says_a_split_and_not_which_has_names_to_choose_from() -> None:
    assert ambiguous_split("Eval") == "validation or test"
    assert ambiguous_split("train_val") == "train"
    assert split_named("eval") is None


def test_two_names_that_differ_in_the_split_alone_are_a_pair() -> None:
    assert paired(["seg_pred", "seg_train", "seg_test"]) == ("seg_train", "seg_test")
    assert paired(["images-val", "images-train"]) == ("images-train", "images-val")
    assert paired(["freight_train", "test_tube", "train station"]) is None
    assert paired(["train", "test"]) is None


def test_all_of_some_names_and_not_of_none() -> None:
    assert all_say_splits(["Train", "eval"])
    assert not all_say_splits(["train", "bus"])
    assert not all_say_splits([])
