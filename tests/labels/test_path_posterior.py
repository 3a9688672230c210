"""One distribution over paths, and the levels that are read from it."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.labels import path_tree
from nstudent.labels.best_path import BestPath
from nstudent.labels.path_posterior import Calibration, PathPosterior
from nstudent.labels.path_tree import PathTree
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import ABSENT, Taxonomy
from trees import outputs_of, ragged_trees

# A has two children, B none: its path ends on the first level.
RAGGED = Taxonomy.from_labels([("A", "a"), ("A", "b"), ("B", "-")], ("coarse", "fine"))
# B is a terminal, and has a child.
INNER = Taxonomy.from_labels([("A", "a"), ("B", "b"), ("B", "-")], ("coarse", "fine"))


def marginals(
    levels: Sequence[np.ndarray | list[list[float]]],
    outputs: Outputs,
    temperatures: Sequence[float],
    ends: Sequence[float],
) -> list[np.ndarray]:
    posterior = PathPosterior(outputs, Calibration(tuple(temperatures), tuple(ends)))
    return [
        level.numpy() for level in posterior.marginals([torch.tensor(level, dtype=torch.float32) for level in levels])
    ]


def drawn(outputs: Outputs, images: int, seed: int = 0, sharpness: float = 1.0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.dirichlet(np.full(n, sharpness) + 1e-3, images).astype(np.float32) for n in outputs.sizes]


def test_golden_paths_that_all_reach_the_last_level() -> None:
    """Terminals A/a, A/b, B/c: .6^.5 x .5^2, .6^.5 x .2^2 and .4^.5 x .3^2, divided by their sum."""
    tree = Taxonomy.from_labels([("A", "a"), ("A", "b"), ("B", "c")], ("coarse", "fine"))

    coarse, fine = marginals([[[0.6, 0.4]], [[0.5, 0.2, 0.3]]], Outputs(tree), (2.0, 0.5), (0.0, 0.0))

    assert fine[0] == pytest.approx([0.687787, 0.110046, 0.202167], abs=1e-5)
    assert coarse[0] == pytest.approx([0.797833, 0.202167], abs=1e-5)


def test_golden_levels_that_have_a_say_count_for_those_that_have_none() -> None:
    """The weights are 1/2 and 2. B: .4^2.5 x e^.3; A/a and A/b: .6^.5 x .8^2 and .6^.5 x .2^2."""
    coarse, fine = marginals([[[0.6, 0.4]], [[0.8, 0.2]]], Outputs(RAGGED), (2.0, 0.5), (0.3, 0.0))

    assert coarse[0] == pytest.approx([0.794072, 0.205927], abs=1e-5)
    assert fine[0] == pytest.approx([0.747362, 0.04671], abs=1e-5)


def test_golden_nothing_gets_the_mass_of_all_paths_that_ended_above() -> None:
    """A/a: .5 x .2, B/b: .5 x .3, B: .5 x .5 x e^-1, divided by their sum."""
    coarse, fine = marginals([[[0.5, 0.5]], [[0.2, 0.3, 0.5]]], Outputs(INNER, "class"), (1.0, 1.0), (-1.0, 0.0))

    assert fine[0] == pytest.approx([0.292423, 0.438635, 0.268941], abs=1e-5)
    assert coarse[0] == pytest.approx([0.292423, 0.707576], abs=1e-5)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_with_one_level_it_is_temperature_scaling(temperature: float) -> None:
    (raw,) = drawn(outputs_of(6), 20)

    (found,) = marginals([raw], outputs_of(6), (temperature,), (0.0,))

    powers = raw.astype(np.float64) ** (1 / temperature)
    assert found == pytest.approx(powers / powers.sum(axis=1, keepdims=True), abs=1e-5)


def test_raising_the_end_of_a_depth_raises_the_paths_that_end_there_and_no_others() -> None:
    levels, outputs = drawn(Outputs(RAGGED), 10), Outputs(RAGGED)
    before = marginals(levels, outputs, (1.0, 1.0), (0.0, 0.0))
    after = marginals(levels, outputs, (1.0, 1.0), (1.0, 0.0))

    odds = [coarse[:, 1] / coarse[:, 0] for coarse in (before[0], after[0])]
    assert odds[1] == pytest.approx(odds[0] * np.e, rel=1e-4)
    assert after[1][:, 0] / after[1][:, 1] == pytest.approx(before[1][:, 0] / before[1][:, 1], rel=1e-3)


def test_a_hotter_level_has_less_of_a_say() -> None:
    levels, outputs = [[[0.9, 0.1]], [[0.1, 0.9]]], outputs_of(2, 2)

    cold = marginals(levels, outputs, (1.0, 1.0), (0.0, 0.0))
    hot = marginals(levels, outputs, (1.0, 4.0), (0.0, 0.0))

    assert cold[0][0] == pytest.approx([0.5, 0.5], abs=1e-5)
    assert hot[0][0, 0] > 0.8


def test_what_goes_in_is_left_as_it_is() -> None:
    outputs = Outputs(INNER, "class")
    levels = [torch.from_numpy(level) for level in drawn(outputs, 4)]
    before = [level.clone() for level in levels]

    PathPosterior(outputs, Calibration((2.0, 2.0), (0.0, 0.0))).marginals(levels)

    assert all(torch.equal(level, was) for level, was in zip(levels, before, strict=True))


def test_certain_zeros_stay_finite() -> None:
    found = marginals([[[1.0, 0.0]], [[0.0, 1.0]]], outputs_of(2, 2), (0.4, 0.4), (0.0, 0.0))

    assert all(np.isfinite(level).all() for level in found)
    assert found[1].sum() == pytest.approx(1)


def test_no_image_gives_no_levels() -> None:
    found = marginals([np.zeros((0, n), np.float32) for n in (2, 2)], Outputs(RAGGED), (1.0, 1.0), (0.0, 0.0))

    assert [level.shape for level in found] == [(0, 2), (0, 2)]


@pytest.mark.parametrize("absent", ["ignore", "class"])
def test_the_levels_of_an_image_do_not_depend_on_those_beside_it(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = Outputs(INNER, absent)
    levels = drawn(outputs, 50)
    numbers = (1.5, 0.7), (0.4, 0.0)
    whole = marginals(levels, outputs, *numbers)

    monkeypatch.setitem(path_tree._CELLS_AT_ONCE, "cpu", 7)
    parts = marginals(levels, outputs, *numbers)
    alone = [marginals([level[i : i + 1] for level in levels], outputs, *numbers) for i in range(50)]

    for number, level in enumerate(whole):
        np.testing.assert_allclose(parts[number], level, atol=1e-6)
        np.testing.assert_allclose(np.concatenate([each[number] for each in alone]), level, atol=1e-6)


@settings(max_examples=80, deadline=None, database=None)
@given(tree=ragged_trees(), absent=st.sampled_from(["ignore", "class"]), seed=st.integers(0, 1000), sharp=st.booleans())
def test_the_levels_are_those_of_one_distribution(tree: Taxonomy, absent: str, seed: int, sharp: bool) -> None:
    outputs, random = Outputs(tree, absent), np.random.default_rng(seed)
    levels = drawn(outputs, 5, seed, 0.01 if sharp else 1.0)
    temperatures, ends = random.uniform(0.4, 5, tree.num_levels), random.normal(0, 1, tree.num_levels)

    found = marginals(levels, outputs, temperatures, ends)

    assert found[0][:, : tree.num_classes[0]].sum(axis=1) == pytest.approx(np.ones(5), abs=1e-4)
    for level, probabilities in enumerate(found):
        assert (probabilities >= 0).all()
        if outputs.has_nothing(level):
            assert probabilities.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-4)
        for child, parent in enumerate(tree.parents[level]):
            assert (probabilities[:, child] <= found[level - 1][:, parent] + 1e-5).all()


@settings(max_examples=80, deadline=None, database=None)
@given(tree=ragged_trees(), absent=st.sampled_from(["ignore", "class"]), seed=st.integers(0, 1000))
def test_the_masses_of_the_paths_are_found_again_in_the_levels(tree: Taxonomy, absent: str, seed: int) -> None:
    outputs = Outputs(tree, absent)
    known = PathTree.of(outputs)
    drawn_masses = np.random.default_rng(seed).dirichlet(np.ones(len(known.terminals)), 4).astype(np.float32)
    masses = torch.from_numpy(drawn_masses)

    levels = known.marginals(masses)

    np.testing.assert_allclose(known.masses(levels), masses, atol=1e-5)
    for level, probabilities in enumerate(levels):
        for output in range(probabilities.shape[1]):
            meant = ABSENT if output == outputs.nothing(level) else output
            through = (known.terminals[:, level] == meant).float()
            np.testing.assert_allclose(probabilities[:, output], masses @ through, atol=1e-5)


def test_where_all_temperatures_are_as_many_as_the_levels_the_order_of_paths_is_that_of_the_geometric_mean() -> None:
    outputs = Outputs(RAGGED)
    levels = drawn(outputs, 200)
    found = marginals(levels, outputs, (2.0, 2.0), (0.0, 0.0))
    known = PathTree.of(outputs)

    best = known.terminals[known.masses([torch.from_numpy(level) for level in found]).argmax(dim=1)]

    assert torch.equal(best, BestPath(outputs).decode([torch.from_numpy(level) for level in levels]).paths)


@pytest.mark.parametrize("absent", ["ignore", "class"])
def test_all_that_it_knows_follows_the_distributions_to_their_device(absent: str) -> None:
    """The device meta stands in for a GPU: its tensors have shapes and no numbers."""
    outputs = Outputs(RAGGED, absent)
    posterior = PathPosterior(outputs, Calibration((1.0, 1.0), (0.0, 0.0)))

    found = posterior.marginals([torch.empty(4, size, device="meta") for size in outputs.sizes])

    assert {level.device.type for level in found} == {"meta"}
    assert [level.shape for level in found] == [(4, size) for size in outputs.sizes]
