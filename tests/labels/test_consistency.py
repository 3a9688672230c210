"""Whether the most probable outputs of all levels are a path of the tree."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.config.types import Absent
from nstudent.labels import path_tree
from nstudent.labels.consistency import CONSISTENT, Consistency
from nstudent.labels.path_tree import PathTree
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from trees import ragged_trees

LEVELS = ("coarse", "fine")
RAGGED = Taxonomy.from_labels([("A", "a"), ("A", "b"), ("B", "-")], LEVELS)
INNER = Taxonomy.from_labels([("A", "a"), ("A", "-"), ("B", "b")], LEVELS)


def agree(coarse: list[float], fine: list[float], tree: Taxonomy, absent: Absent = "ignore") -> bool:
    found = Consistency(Outputs(tree, absent))([torch.tensor([coarse]), torch.tensor([fine])])
    return bool(found[CONSISTENT][0])


@pytest.mark.parametrize(
    ("coarse", "fine", "tree", "absent", "wanted"),
    [
        ([0.9, 0.1], [0.6, 0.4], INNER, "ignore", True),
        ([0.1, 0.9], [0.6, 0.4], INNER, "ignore", False),
        # B has no fine classes: what the fine level says of other images' classes does not count.
        ([0.1, 0.9], [0.6, 0.4], RAGGED, "ignore", True),
        # With an output for it, 'nothing' is the only thing to say below B.
        ([0.1, 0.9], [0.6, 0.3, 0.1], RAGGED, "class", False),
        ([0.1, 0.9], [0.2, 0.3, 0.5], RAGGED, "class", True),
        # A may end, B may not.
        ([0.9, 0.1], [0.2, 0.3, 0.5], INNER, "class", True),
        ([0.1, 0.9], [0.2, 0.3, 0.5], INNER, "class", False),
    ],
)
def test_golden_levels_agree_if_one_path_is_named_by_all_that_have_a_say(
    coarse: list[float], fine: list[float], tree: Taxonomy, absent: Absent, wanted: bool
) -> None:
    assert agree(coarse, fine, tree, absent) is wanted


@settings(max_examples=40, deadline=None, database=None)
@given(tree=ragged_trees(), absent=st.sampled_from(["ignore", "class"]), seed=st.integers(0, 1000))
def test_the_levels_of_one_certain_path_agree_however_many_images_are_looked_at_together(
    tree: Taxonomy, absent: Absent, seed: int
) -> None:
    outputs = Outputs(tree, absent)
    known = PathTree.of(outputs)
    paths = np.random.default_rng(seed).integers(len(known.terminals), size=30)
    levels = known.marginals(torch.eye(len(known.terminals))[torch.from_numpy(paths)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(path_tree._CELLS_AT_ONCE, "cpu", 9)
        assert Consistency(outputs)(levels)[CONSISTENT].tolist() == [1] * 30
