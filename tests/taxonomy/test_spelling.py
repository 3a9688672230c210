"""One spelling for what a person reads as one name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nstudent.taxonomy.reading import paths_of_tree
from nstudent.taxonomy.spelling import alike, spelled
from nstudent.taxonomy.tree import Taxonomy


@pytest.mark.parametrize(
    "other",
    [
        *("café", "cafe\u0301", " café", "café\u00a0", "\u2003café\t", "ca\u00adfé", "\u200bcafé", "café\ufeff"),
        *('"café"', ' "café"', "'café'", "“café”", "„café“", "«café»", "\u202acafé\u202c", '" café "', '="café"'),
    ],
)
def test_what_reads_the_same_is_spelled_the_same(other: str) -> None:
    assert spelled(other) == "café"


@pytest.mark.parametrize("other", ["black  cat", "black\u00a0cat", "black\u3000cat", "black\ncat"])
def test_a_run_of_blanks_is_one_space(other: str) -> None:
    assert spelled(other) == "black cat"


@pytest.mark.parametrize("dash", "-‐‑‒–—―−－")
def test_a_dash_alone_is_a_hyphen_and_within_a_name_it_stays(dash: str) -> None:
    assert spelled(f" {dash}\u00a0") == "-"
    assert spelled(f"a{dash}b") == f"a{dash}b"


@pytest.mark.parametrize(
    "name",
    [
        "o'clock",
        '5" disk',
        '"a" or "b',
        "'tis",
        '"',
        "👩\u200d🔬",
        "می\u200cخواهم",
        "01",
        "m²",
        "ﬁn",
        '=""',
        '="a',
        "=a",
        '=a"',
    ],
)
def test_what_reads_otherwise_stays(name: str) -> None:
    assert spelled(name) == name


@given(st.text(max_size=12))
def test_a_spelling_is_spelled_as_it_is(name: str) -> None:
    assert spelled(spelled(name)) == spelled(name)
    assert alike(spelled(name)) == alike(name)


def test_names_that_differ_in_case_alone_are_alike() -> None:
    assert alike("Straße") == alike(" STRASSE") == alike("straße\u00a0")
    assert alike("cat") != alike("cats")


def test_names_that_differ_in_the_width_of_letters_alone_are_alike() -> None:
    """Input methods of Japanese, Chinese and Korean write either."""
    assert alike("Ａ１") == alike("A1") == alike("ａ１")
    assert alike("ｶﾒﾗ") == alike("カメラ")
    assert alike("℡") == alike("tel")


def test_a_given_tree_is_spelled_by_the_same_rule() -> None:
    assert set(paths_of_tree({"fruit\u00a0": ['"apple"']}, 2)) == {("fruit",), ("fruit", "apple")}


def test_a_label_that_differs_from_the_tree_in_case_is_refused_with_the_class_that_is_there() -> None:
    tree = Taxonomy.from_tree({"fruit": ["apple"]}, ("coarse", "fine"))

    with pytest.raises(Exception, match="no fine class 'Apple', but 'apple': write both alike"):
        tree.encode(("fruit", "Apple"))
