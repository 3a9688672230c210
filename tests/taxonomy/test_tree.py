"""Trees of classes, and labels that end early or are not known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from nstudent.errors import DataError
from nstudent.taxonomy.tree import ABSENT, UNKNOWN, Taxonomy

LEVELS = ("coarse", "mid", "fine")


@pytest.fixture
def toy() -> Taxonomy:
    """The tree of the design's golden numbers."""
    return Taxonomy.from_tree({"A": {"A1": ["a", "b"], "A2": ["c"]}, "B": {"B1": ["d", "e"]}}, LEVELS)


def test_the_toy_tree(toy: Taxonomy) -> None:
    assert toy.classes == (("A", "B"), ("A1", "A2", "B1"), ("a", "b", "c", "d", "e"))
    assert toy.parents == ((), (0, 0, 1), (0, 0, 1, 2, 2))
    assert toy.terminals == ((0, 0, 0), (0, 0, 1), (0, 1, 2), (1, 2, 3), (1, 2, 4))
    assert toy.num_classes == (2, 3, 5)


def test_lowest_common_ancestors_of_the_toy_tree(toy: Taxonomy) -> None:
    """Heights as in the design: 0 the leaf itself, 3 only the root above both."""

    def heights(leaf: int) -> list[int]:
        ours = toy.ancestors(2, leaf)
        theirs = [toy.ancestors(2, other) for other in range(5)]
        return [3 - sum(a == b for a, b in zip(ours, path, strict=True)) for path in theirs]

    assert heights(0) == [0, 1, 2, 3, 3]
    assert heights(2) == [2, 2, 0, 3, 3]
    assert heights(3) == [3, 3, 3, 0, 1]


def test_equal_names_under_different_parents_are_different_classes() -> None:
    tree = Taxonomy.from_tree({"fruit": {"apple": ["green", "red"]}, "veg": {"pepper": ["green"]}}, LEVELS)
    assert tree.classes[2] == ("green", "red", "green")
    assert tree.encode(("veg", "", "green")) == (1, 1, 2)


@pytest.mark.parametrize(
    ("entries", "row"),
    [
        (("A", "A1", "b"), (0, 0, 1)),
        (("A", "A1", "-"), (0, 0, ABSENT)),
        (("A", "-", "-"), (0, ABSENT, ABSENT)),
        (("A", "-", ""), (0, ABSENT, ABSENT)),
        (("A", "A1", ""), (0, 0, UNKNOWN)),
        (("A", "", ""), (0, UNKNOWN, UNKNOWN)),
        (("", "", ""), (UNKNOWN, UNKNOWN, UNKNOWN)),
        (("", "", "d"), (1, 2, 3)),
        (("", "B1", ""), (1, 2, UNKNOWN)),
        (("A", "", "c"), (0, 1, 2)),
    ],
)
def test_encode(toy: Taxonomy, entries: Sequence[str], row: tuple[int, ...]) -> None:
    assert toy.encode(entries) == row


def test_below_a_leaf_there_is_nothing_to_know() -> None:
    tree = Taxonomy.from_tree({"stroke": None, "loop": {"one loop": ["zero"], "two loops": None}}, LEVELS)
    assert tree.encode(("stroke", "", "")) == (1, ABSENT, ABSENT)
    assert tree.encode(("loop", "two loops", "")) == (0, 1, ABSENT)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (("B", "A1", ""), "contradicts the taxonomy, where 'A1' is A/A1"),
        (("A", "B1", "d"), "contradicts the taxonomy, where 'd' is B/B1/d"),
        (("A", "-", "a"), "below a level marked absent"),
        (("-", "A1", ""), "below a level marked absent"),
        (("-", "-", "-"), "absent at every level"),
        (("C", "", ""), "no coarse class 'C'"),
        (("A", "A1", "x"), "no fine class 'x'"),
        (("A", "a", ""), "no mid class 'a'"),
        (("A", "A1"), "2 entries for 3 levels"),
    ],
)
def test_a_label_that_does_not_fit_is_named(toy: Taxonomy, entries: Sequence[str], said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        toy.encode(entries)
    assert str(list(entries)) in str(error.value)


def test_an_ambiguous_label_asks_for_its_parents() -> None:
    tree = Taxonomy.from_tree({"A": {"x": None}, "B": {"x": None}}, ("coarse", "mid"))
    with pytest.raises(DataError, match="fits 2 classes named 'x': name its parents too"):
        tree.encode(("", "x"))
    assert tree.encode(("B", "x")) == (1, 1)


def test_inferred_from_labels() -> None:
    labels = [("A", "A1", "a"), ("A", "A2", "-"), ("B", "-", "-"), ("B", "B1", ""), ("", "", "")]
    tree = Taxonomy.from_labels(labels, LEVELS)
    assert tree.classes == (("A", "B"), ("A1", "A2", "B1"), ("a",))
    # B was seen as a final label though it has a child; B1 is a leaf though nobody called it final.
    assert {_path(tree, row) for row in tree.terminals} == {"A/A1/a", "A/A2", "B", "B/B1"}


def _path(tree: Taxonomy, row: Sequence[int]) -> str:
    return "/".join(tree.names(row).values())


def test_a_label_with_a_gap_adds_no_class() -> None:
    tree = Taxonomy.from_labels([("A", "A1", "a"), ("A", "", "z"), ("", "M", "")], LEVELS)
    assert tree.classes == (("A",), ("A1",), ("a",))


def test_the_order_of_images_does_not_matter() -> None:
    labels = [("A", "A1", "a"), ("B", "-", "-"), ("A", "A2", "c"), ("A", "-", "-")]
    assert Taxonomy.from_labels(labels, LEVELS) == Taxonomy.from_labels(reversed(labels), LEVELS)


@pytest.mark.parametrize("labels", [[], [("", "", "")], [("-", "-", "-")]])
def test_no_class_at_all_is_an_error(labels: list[Sequence[str]]) -> None:
    with pytest.raises(DataError, match="no label names a class"):
        Taxonomy.from_labels(labels, LEVELS)


def test_a_label_with_more_entries_than_levels_is_refused() -> None:
    with pytest.raises(DataError):
        Taxonomy.from_labels([("A", "A1")], ("coarse",))


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({}, "no class"),
        ({"A": {"A1": {"a": {"deep": None}}}}, "deeper at 'A/A1/a'"),
        ({"A": ["x", "x"]}, "'A/x' twice"),
        ({"A": [["x"]]}, "mixes a list with a mapping"),
    ],
)
def test_a_tree_that_is_none(tree: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Taxonomy.from_tree(tree, LEVELS)


@pytest.mark.parametrize("name", ["-", ""])
def test_a_class_cannot_be_named_like_absent_or_unknown(name: str) -> None:
    """Such a class could never be written in a label."""
    with pytest.raises(DataError):
        Taxonomy.from_tree({"A": [name, "x"]}, LEVELS)


@pytest.mark.parametrize("value", [True, False])
def test_yaml_has_not_turned_a_name_into_a_truth_value(value: bool) -> None:
    """An unquoted class named no, yes, on or off arrives as a bool; calling it 'False' would be silent damage."""
    with pytest.raises(DataError):
        Taxonomy.from_tree({"A": [value, "x"]}, LEVELS)


def test_including_makes_seen_labels_final(toy: Taxonomy) -> None:
    seen = np.array([[0, ABSENT, ABSENT], [1, 2, UNKNOWN], [0, 0, 0]], dtype=np.int32)
    wider = toy.including(seen)
    assert set(wider.terminals) - set(toy.terminals) == {(0, ABSENT, ABSENT)}
    assert wider.classes == toy.classes


def test_terminal_of(toy: Taxonomy) -> None:
    labels = np.array([[0, 0, 0], [1, 2, 4], [1, 2, UNKNOWN], [UNKNOWN] * 3], dtype=np.int32)
    assert toy.terminal_of(labels).tolist() == [0, 4, -1, -1]


@pytest.mark.parametrize(
    "change",
    [
        {"parents": [[], [0, 0], [0, 0, 1, 2, 2]]},
        {"parents": [[], [0, 0, 2], [0, 0, 1, 2, 2]]},
        {"parents": [[], [0, 0, -1], [0, 0, 1, 2, 2]]},
        {"classes": 3},
        {"levels": None},
        {"terminals": [[9, 9, 9]]},
        {"terminals": [[0]]},
        {"terminals": [[0, 2, 3]]},
    ],
)
def test_from_json_refuses_what_is_no_tree(toy: Taxonomy, change: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        Taxonomy.from_json(toy.to_json() | change)


@pytest.mark.parametrize("data", [[], {}, None, 3, {"levels": []}])
def test_from_json_refuses_anything_else(data: Any) -> None:
    with pytest.raises(DataError):
        Taxonomy.from_json(data)


# --- for every tree ---

NAMES = st.sampled_from(["a", "b", "c", "é", "1", "a b", "x/y", "--", " "])


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Labels that name a random tree, and its levels."""
    levels = tuple(f"level {i}" for i in range(draw(st.integers(1, 4))))
    paths = draw(st.lists(st.lists(NAMES, min_size=1, max_size=len(levels)), min_size=1, max_size=12))
    return [(*path, *["-"] * (len(levels) - len(path))) for path in paths], levels


@given(trees())
def test_any_label_survives_encoding(tree: tuple[list[tuple[str, ...]], tuple[str, ...]]) -> None:
    labels, levels = tree
    taxonomy = Taxonomy.from_labels(labels, levels)
    for label in labels:
        row = taxonomy.encode(label)
        assert list(taxonomy.names(row).values()) == [entry for entry in label if entry != "-"]
        assert row in taxonomy.terminals


@given(trees())
def test_any_tree_survives_json(tree: tuple[list[tuple[str, ...]], tuple[str, ...]]) -> None:
    taxonomy = Taxonomy.from_labels(*tree)
    assert Taxonomy.from_json(taxonomy.to_json()) == taxonomy


@given(trees())
def test_every_terminal_is_a_path_of_the_tree(tree: tuple[list[tuple[str, ...]], tuple[str, ...]]) -> None:
    taxonomy = Taxonomy.from_labels(*tree)
    for row in taxonomy.terminals:
        depth = sum(index >= 0 for index in row)
        assert row == taxonomy.ancestors(depth - 1, row[depth - 1]) + (ABSENT,) * (len(row) - depth)


@given(trees(), st.data())
def test_hiding_a_parent_changes_nothing_or_is_ambiguous(
    tree: tuple[list[tuple[str, ...]], tuple[str, ...]], data: st.DataObject
) -> None:
    labels, levels = tree
    taxonomy = Taxonomy.from_labels(labels, levels)
    label = data.draw(st.sampled_from(labels))
    depth = sum(entry != "-" for entry in label)
    assume(depth > 1)
    hidden = data.draw(st.integers(0, depth - 2))
    partial = tuple("" if i == hidden else entry for i, entry in enumerate(label))
    try:
        found = taxonomy.encode(partial)
    except DataError:
        assert taxonomy.classes[depth - 1].count(label[depth - 1]) > 1
        return
    assert found == taxonomy.encode(label)


@given(trees(), st.lists(st.one_of(NAMES, st.sampled_from(["-", ""]), st.text(max_size=3)), max_size=5))
def test_garbage_gives_a_row_of_the_tree_or_a_data_error(
    tree: tuple[list[tuple[str, ...]], tuple[str, ...]], entries: list[str]
) -> None:
    taxonomy = Taxonomy.from_labels(*tree)
    try:
        row = taxonomy.encode(entries)
    except DataError:
        return
    assert len(row) == taxonomy.num_levels
    assert all(UNKNOWN <= index < n for index, n in zip(row, taxonomy.num_classes, strict=True))


@given(st.lists(st.lists(st.sampled_from(["a", "b", "-", ""]), max_size=5), max_size=6))
def test_ragged_labels_give_a_tree_or_a_data_error(labels: list[list[str]]) -> None:
    try:
        taxonomy = Taxonomy.from_labels(labels, LEVELS)
    except DataError:
        return
    assert Taxonomy.from_json(taxonomy.to_json()) == taxonomy


def test_a_tree_that_holds_itself_is_too_deep() -> None:
    circle: dict[str, Any] = {}
    circle["A"] = circle
    with pytest.raises(DataError, match="deeper at 'A/A/A'"):
        Taxonomy.from_tree(circle, LEVELS)


ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), NAMES, st.sampled_from(["-", "", "A"]), st.binary()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(NAMES, st.integers()), inner)),
    max_leaves=12,
)


@given(
    st.one_of(st.lists(ANYTHING, max_size=4), st.dictionaries(st.one_of(NAMES, st.integers()), ANYTHING, max_size=4))
)
def test_any_nest_gives_a_tree_or_a_data_error(nest: Any) -> None:
    try:
        taxonomy = Taxonomy.from_tree(nest, LEVELS)
    except DataError:
        return
    _check(taxonomy)


@given(trees(), st.data())
def test_a_damaged_file_gives_a_tree_or_a_data_error(
    tree: tuple[list[tuple[str, ...]], tuple[str, ...]], data: st.DataObject
) -> None:
    content = Taxonomy.from_labels(*tree).to_json()
    at: Any = content
    key: Any = data.draw(st.sampled_from(sorted(content)))
    while isinstance(at[key], list) and at[key] and data.draw(st.booleans()):
        at, key = at[key], data.draw(st.integers(0, len(at[key]) - 1))
    at[key] = data.draw(st.one_of(ANYTHING, st.integers(-3, 5)))
    try:
        taxonomy = Taxonomy.from_json(content)
    except DataError:
        return
    _check(taxonomy)


def _check(taxonomy: Taxonomy) -> None:
    """Every class has one parent, every terminal is a path, and JSON gives it back."""
    assert all(isinstance(name, str) for names in (taxonomy.levels, *taxonomy.classes) for name in names)
    assert len(taxonomy.classes) == len(taxonomy.parents) == taxonomy.num_levels
    for above, parents, names in zip(taxonomy.classes, taxonomy.parents[1:], taxonomy.classes[1:], strict=False):
        assert len(parents) == len(names)
        assert all(0 <= parent < len(above) for parent in parents)
    for row in taxonomy.terminals:
        depth = sum(index >= 0 for index in row)
        assert row == taxonomy.ancestors(depth - 1, row[depth - 1]) + (ABSENT,) * (len(row) - depth)
    assert Taxonomy.from_json(taxonomy.to_json()) == taxonomy
