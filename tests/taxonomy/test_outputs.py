"""What a model can say: which output speaks for which class, and where one says 'nothing'."""

import numpy as np
import pytest
from nstudent.taxonomy.outputs import SILENT, Outputs
from nstudent.taxonomy.tree import ABSENT, UNKNOWN, Taxonomy

LEVELS = ("coarse", "mid", "fine")
# The mid level can end (stroke), and the fine one (stroke, two).
TREE = Taxonomy.from_tree({"stroke": None, "loop": {"one": ["zero", "six"], "two": None}}, LEVELS)
LABELS = np.array(
    [[0, 0, 1], [1, ABSENT, ABSENT], [0, 1, ABSENT], [0, 0, UNKNOWN], [UNKNOWN] * 3],
    dtype=np.int32,
)


def test_nothing_has_an_output_where_a_path_can_end_and_it_is_a_class() -> None:
    assert Outputs(TREE, "ignore").sizes == (2, 2, 2)
    assert Outputs(TREE, "class").sizes == (2, 3, 3)
    assert [Outputs(TREE, "class").has_nothing(level) for level in range(3)] == [False, True, True]
    assert not any(Outputs(TREE, "ignore").has_nothing(level) for level in range(3))


def test_nothing_is_ignored_unless_it_is_asked_for() -> None:
    assert Outputs(TREE) == Outputs(TREE, "ignore")
    assert Outputs(TREE) != Outputs(TREE, "class")


def test_the_output_for_nothing_is_the_last_one() -> None:
    outputs = Outputs(TREE, "class")

    assert [outputs.nothing(level) for level in range(3)] == [None, 2, 2]


def test_a_label_seen_to_end_at_an_inner_node_gives_its_level_an_output() -> None:
    tree = Taxonomy.from_tree({"A": ["a", "b"], "B": ["c"]}, ("coarse", "fine"))
    assert Outputs(tree, "class").sizes == (2, 3)

    wider = tree.including(np.array([[0, ABSENT], [1, UNKNOWN]], dtype=np.int32))

    assert Outputs(wider, "class").sizes == (2, 4)


def test_an_output_has_that_of_its_parent_above_it_and_nothing_has_none() -> None:
    assert [Outputs(TREE, "ignore").parents(level).tolist() for level in range(3)] == [[-1, -1], [0, 0], [0, 0]]
    assert [Outputs(TREE, "class").parents(level).tolist() for level in range(3)] == [[-1, -1], [0, 0, -1], [0, 0, -1]]


def test_entries_that_teach_nothing_have_no_index() -> None:
    found = Outputs(TREE, "ignore").indices(LABELS)

    assert found.tolist() == [[0, 0, 1], [1, -1, -1], [0, 1, -1], [0, 0, -1], [-1, -1, -1]]
    assert SILENT == -1


def test_an_absent_entry_speaks_for_nothing_and_an_unknown_one_for_no_output() -> None:
    found = Outputs(TREE, "class").indices(LABELS)

    assert found.tolist() == [[0, 0, 1], [1, 2, 2], [0, 1, 2], [0, 0, -1], [-1, -1, -1]]


@pytest.mark.parametrize("absent", ["ignore", "class"])
def test_labels_are_left_as_they_were_and_indices_have_their_type(absent: str) -> None:
    before = LABELS.copy()

    found = Outputs(TREE, absent).indices(LABELS)

    assert np.array_equal(LABELS, before)
    assert found.dtype == np.int32
    assert Outputs(TREE, absent).indices(LABELS[:0]).shape == (0, 3)
