"""The path that is expected to score best, from the levels of one distribution over paths."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.evaluation.metrics import tally
from nstudent.evaluation.scores import COMPARED
from nstudent.labels import path_tree
from nstudent.labels.decoders import build_decoder
from nstudent.labels.path_tree import PathTree
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from trees import ragged_trees

LEVELS = ("coarse", "fine")
FULL = Taxonomy.from_labels([("A", "a"), ("A", "b"), ("B", "c")], LEVELS)
INNER = Taxonomy.from_labels([("A", "a"), ("A", "b"), ("B", "c"), ("A", "-")], LEVELS)


def decoded(masses: list[float], tree: Taxonomy, absent: str = "ignore") -> tuple[list[int], list[float]]:
    """The path and its confidence where the paths, in their order, have these masses."""
    outputs = Outputs(tree, absent)
    levels = PathTree.of(outputs).marginals(torch.tensor([masses]))
    found = build_decoder("expected_score", outputs).decode(levels)
    return found.paths[0].tolist(), found.confidence[0].tolist()


def test_golden_a_likelier_parent_outweighs_a_somewhat_likelier_path() -> None:
    """A/a: (.6 + .31) / 2 + .31 = .765; B/c: (.4 + .4) / 2 + .4 = .8. With .36 A/a has .84."""
    assert decoded([0.31, 0.29, 0.4], FULL)[0] == [1, 2]
    assert decoded([0.36, 0.24, 0.4], FULL)[0] == [0, 0]


def test_golden_a_path_that_ends_is_weighed_against_one_that_goes_on() -> None:
    """In the order A, A/a, A/b, B/c. A: its share is matched by A (1), A/a and A/b (1/2 each), and it is exact."""
    # A: .3 + .2 + .15 + .3 = .95; A/a: that share + .2 + .4 = 1.25.
    assert decoded([0.3, 0.4, 0.3, 0.0], INNER, "class")[0] == [0, 0]
    # A: .55 + .225 + .55 = 1.325; A/a: .775 + .125 + .25 = 1.15.
    assert decoded([0.55, 0.25, 0.2, 0.0], INNER, "class")[0] == [0, -1]


def test_confidence_is_the_mass_of_all_paths_that_agree_so_far() -> None:
    assert decoded([0.2, 0.5, 0.1, 0.2], INNER, "class") == ([0, 0], pytest.approx([0.8, 0.5]))


def test_confidence_below_the_end_is_that_of_ending_there_and_not_of_nothing_anywhere() -> None:
    tree = Taxonomy.from_labels([("A", "-"), ("B", "-"), ("A", "a")], LEVELS)

    # In the order A, A/a, B: 'nothing' has .9 of the fine level.
    assert decoded([0.5, 0.1, 0.4], tree, "class") == ([0, -1], pytest.approx([0.6, 0.5]))


def test_confidence_below_the_end_is_0_where_no_output_speaks_for_it() -> None:
    tree = Taxonomy.from_labels([("A", "a"), ("B", "-")], LEVELS)

    assert decoded([0.2, 0.8], tree) == ([1, -1], pytest.approx([0.8, 0.0]))


def test_what_goes_in_is_left_as_it_is() -> None:
    for tree, absent in ((FULL, "ignore"), (INNER, "class")):
        outputs = Outputs(tree, absent)
        levels = [torch.full((2, size), 1 / size) for size in outputs.sizes]
        before = [level.clone() for level in levels]
        build_decoder("expected_score", outputs).decode(levels)
        assert all(torch.equal(level, was) for level, was in zip(levels, before, strict=True))


def test_no_image_gives_no_path() -> None:
    outputs = Outputs(INNER, "class")
    found = build_decoder("expected_score", outputs).decode([torch.zeros(0, size) for size in outputs.sizes])

    assert found.paths.shape == found.confidence.shape == (0, 2)


def drawn_masses(known: PathTree, images: int, seed: int) -> torch.Tensor:
    masses = np.random.default_rng(seed).dirichlet(np.full(len(known.terminals), 0.5), images)
    return torch.from_numpy(masses.astype(np.float32))


@pytest.mark.parametrize("absent", ["ignore", "class"])
def test_many_images_are_decoded_in_parts_as_one_by_one(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = Outputs(INNER, absent)
    known = PathTree.of(outputs)
    levels = known.marginals(drawn_masses(known, 50, 0))
    whole = build_decoder("expected_score", outputs).decode(levels)

    monkeypatch.setitem(path_tree._CELLS_AT_ONCE, "cpu", 9)
    parts = build_decoder("expected_score", outputs).decode(levels)

    assert torch.equal(parts.paths, whole.paths)
    np.testing.assert_allclose(parts.confidence, whole.confidence, atol=1e-6)


@settings(max_examples=60, deadline=None, database=None)
@given(tree=ragged_trees(), absent=st.sampled_from(["ignore", "class"]), seed=st.integers(0, 1000))
def test_no_other_path_has_a_better_expected_score_by_the_metrics_themselves(
    tree: Taxonomy, absent: str, seed: int
) -> None:
    outputs = Outputs(tree, absent)
    known = PathTree.of(outputs)
    masses = drawn_masses(known, 3, seed)
    paths = known.terminals.numpy()

    found = build_decoder("expected_score", outputs).decode(known.marginals(masses)).paths.numpy()

    # Score of each path against each true one.
    said, true = (np.repeat(paths, len(paths), axis=0), np.tile(paths, (len(paths), 1)))
    tallies = tally(said, true, tree.levels)
    scores = sum(tallies[name][:, 0] for name in COMPARED).reshape(len(paths), len(paths))
    expected = masses.numpy().astype(np.float64) @ scores.T
    chosen = [np.flatnonzero((paths == row).all(axis=1))[0] for row in found]
    np.testing.assert_allclose(expected[np.arange(3), chosen], expected.max(axis=1), atol=1e-5)


@settings(max_examples=60, deadline=None, database=None)
@given(tree=ragged_trees(), absent=st.sampled_from(["ignore", "class"]), seed=st.integers(0, 1000), raw=st.booleans())
def test_every_path_is_a_terminal_and_its_confidence_never_rises_on_the_way_down(
    tree: Taxonomy, absent: str, seed: int, raw: bool
) -> None:
    outputs = Outputs(tree, absent)
    known = PathTree.of(outputs)
    random = np.random.default_rng(seed)
    levels = known.marginals(drawn_masses(known, 5, seed))
    if raw:
        levels = tuple(torch.from_numpy(random.dirichlet(np.ones(n), 5).astype(np.float32)) for n in outputs.sizes)

    found = build_decoder("expected_score", outputs).decode(levels)

    assert {tuple(path) for path in found.paths.tolist()} <= set(tree.terminals)
    assert ((found.confidence >= 0) & (found.confidence <= 1 + 1e-5)).all()
    if not raw:
        assert (found.confidence[:, 1:] <= found.confidence[:, :-1] + 1e-5).all()


@pytest.mark.parametrize("absent", ["ignore", "class"])
def test_all_that_it_knows_follows_the_distributions_to_their_device(absent: str) -> None:
    """The device meta stands in for a GPU: its tensors have shapes and no numbers."""
    outputs = Outputs(INNER, absent)
    found = build_decoder("expected_score", outputs).decode([torch.empty(4, n, device="meta") for n in outputs.sizes])

    assert {found.paths.device.type, found.confidence.device.type} == {"meta"}
