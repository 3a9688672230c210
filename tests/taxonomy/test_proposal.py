"""A proposed tree as a page that ``data.taxonomy`` reads."""

from pathlib import Path

import pytest
from nstudent.config.yaml_text import as_names, read_words
from nstudent.errors import DataError
from nstudent.taxonomy.proposal import Group, check_sizes, nested, page_of
from nstudent.taxonomy.tree import Taxonomy


def read_back(tmp_path: Path, text: str) -> object:
    page = tmp_path / "tree.yaml"
    page.write_text(text, encoding="utf-8")
    return as_names(read_words(page))


def test_a_page_is_the_tree_with_what_is_to_be_known_in_comments(tmp_path: Path) -> None:
    groups = (Group("pets", "two of them", (Group("cat"), Group("dog", "barks"))), Group("car", "", (Group("car"),)))
    text = page_of(groups, ["Proposed.", ""])
    assert text == "# Proposed.\n#\npets:  # two of them\n  cat:\n  dog:  # barks\ncar:\n  car:\n"
    tree = Taxonomy.from_tree(read_back(tmp_path, text), ("coarse", "fine"))
    assert tree.classes == (("car", "pets"), ("car", "cat", "dog"))
    assert tree.num_classes == (2, 3)


# A name that a class can have is spelled: without blanks around it and marks that nobody sees.
_ODD = ["no", "1e3", "007", "a: b", "a #b", "[x]", "'", '"', "é", "- x", "tench, Tinca", "!!set", "~x", "*a"]


def test_names_of_every_kind_are_read_back(tmp_path: Path) -> None:
    text = page_of((Group("all", "note: 'x' # y", tuple(Group(name) for name in _ODD)),), ["head: [1"])
    assert read_back(tmp_path, text) == {"all": dict.fromkeys(_ODD)}


def test_a_note_of_several_lines_is_one_line() -> None:
    assert page_of((Group("a", "one\ntwo"), Group("b")), []) == "a:  # one two\nb:\n"


def test_two_groups_beside_each_other_have_two_names() -> None:
    with pytest.raises(DataError, match="two groups beside each other would be called 'a'"):
        page_of((Group("x", "", (Group("a"), Group("a"))),), [])


def test_divisions_that_divide_each_other_are_a_tree() -> None:
    leaves = [Group(name) for name in "abcde"]
    groups = nested(leaves, [[0, 1, 0, 1, 1], [0, 1, 0, 1, 2]], lambda names: ("+".join(names), ""))
    assert [(group.name, [below.name for below in group.below]) for group in groups] == [
        ("a+c", ["a+c"]),
        ("b+d+e", ["b+d", "e"]),
    ]
    assert groups[1].classes == ["b", "d", "e"]


@pytest.mark.parametrize("sizes", [[1], [8], [3, 3], [4, 2], [0], [2, 9]])
def test_numbers_of_groups_that_make_no_tree_are_refused(sizes: list[int]) -> None:
    check_sizes([2, 7], 8)
    check_sizes([], 8)
    with pytest.raises(DataError, match=r"--groups .* from 2 to 7, for there are 8 classes"):
        check_sizes(sizes, 8)


def test_no_line_of_the_heading_becomes_a_class() -> None:
    page = page_of([Group("cat"), Group("dog")], ["names from a run:\ncow:"])
    assert page == "# names from a run: cow:\ncat:\ndog:\n"


def test_two_classes_make_no_tree() -> None:
    with pytest.raises(DataError, match="2 classes make no tree"):
        check_sizes([], 2)
