"""How far own beliefs are followed: each formula by hand in double precision, and mass that stays on the tree."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nstudent.labels.belief_weights import (
    BeliefMoments,
    agreement,
    aligned,
    confidences,
    only_as_deep,
    revised,
    truncated_gaussian,
)
from nstudent.labels.path_posterior import Calibration, PathPosterior
from nstudent.labels.targets import GivenTargets
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import UNKNOWN, Taxonomy
from trees import ragged_trees


def double(*numbers: object) -> torch.Tensor:
    return torch.tensor(*numbers, dtype=torch.float64)


def test_golden_beliefs_are_drawn_to_the_shares_of_the_labels() -> None:
    """.6 x .5/.8 : .4 x .5/.2 = .375 : 1 = 3/11 : 8/11, and of certain classes nothing changes."""
    found = aligned(double([[0.6, 0.4], [1.0, 0.0]]), double([0.5, 0.5]), double([0.8, 0.2]))
    # The authors' code adds 1e-6 to both shares.
    torch.testing.assert_close(found, double([[3 / 11, 8 / 11], [1.0, 0.0]]), rtol=1e-5, atol=0)


def test_beliefs_that_have_the_shares_of_the_labels_stay_as_they_are() -> None:
    said, shares = double([[0.1, 0.9], [0.7, 0.3]]), double([0.4, 0.6])
    torch.testing.assert_close(aligned(said, shares, shares), said)


def test_golden_the_weight_is_a_gaussian_below_the_mean_and_one_above_it() -> None:
    """With mean .8, variance .04 and two sigmas: at .6 exp(-.2^2 x 4 / (2 x .04)) = exp(-2)."""
    found = truncated_gaussian(double([0.95, 0.8, 0.6, 0.4]), double(0.8), double(0.04), 2.0)
    torch.testing.assert_close(found, double([1.0, 1.0, math.exp(-2), math.exp(-8)]))
    one = truncated_gaussian(double([0.6]), double(0.8), double(0.04), 1.0)
    torch.testing.assert_close(one, double([math.exp(-0.5)]))


def test_without_sigmas_every_belief_has_the_weight_one_and_without_variance_those_at_the_mean() -> None:
    confidence = double([0.9, 0.5, 0.1])
    assert truncated_gaussian(confidence, double(0.5), double(0.1), 0.0).tolist() == [1, 1, 1]
    assert truncated_gaussian(confidence, double(0.5), double(0.0), 2.0).tolist() == [1, 1, 0]


def test_golden_a_level_is_sure_of_its_best_class_or_of_having_none() -> None:
    found = confidences([double([[0.7, 0.3], [0.9, 0.1]]), double([[0.5, 0.2], [0.05, 0.0]])])
    torch.testing.assert_close(found, double([[0.7, 0.5], [0.9, 0.95]]))


def test_a_level_has_no_more_weight_than_those_above_it() -> None:
    found = only_as_deep(double([[0.2, 0.9, 0.1], [0.9, 0.5, 0.7]]))
    torch.testing.assert_close(found, double([[0.2, 0.2, 0.1], [0.9, 0.5, 0.5]]))


def test_golden_the_stored_label_gives_way_by_the_weight_at_its_end() -> None:
    """Two levels of two classes. The first image has a whole label, the second only the first level, the third none."""
    stored = [double([[1, 0], [1, 0], [0, 0]]), double([[0, 1], [0, 0], [0, 0]])]
    own = [double([[0.2, 0.8]] * 3), double([[0.3, 0.7]] * 3)]
    mass, at_end = revised(stored, own, double([[0.9, 0.5], [0.8, 0.25], [0.6, 0.4]]))
    torch.testing.assert_close(mass[0], double([[0.6, 0.4], [0.36, 0.64], [0.12, 0.48]]))
    torch.testing.assert_close(mass[1], double([[0.15, 0.85], [0.075, 0.175], [0.12, 0.28]]))
    torch.testing.assert_close(at_end, double([0.5, 0.8, 0.4]))


def test_golden_agreement_is_asked_at_the_deepest_level_of_the_stored_label() -> None:
    stored = [double([[1, 0], [1, 0], [0, 0], [0, 1]]), double([[0, 1], [0, 0], [0, 0], [1, 0]])]
    own = [double([[0.2, 0.8], [0.6, 0.4], [1, 0], [0, 1]]), double([[0.3, 0.7], [0, 1], [1, 0], [0.2, 0.8]])]
    # The first agrees below and not above, the second above, the third has no label, the fourth errs below.
    assert agreement(stored, own).tolist() == [3, 2]


def test_golden_running_means_begin_with_the_first_step_and_count_images_by_what_they_have() -> None:
    """Momentum .5: the second step counts .5 / (1 - .25) = 2/3."""
    moments = BeliefMoments([double([0.5, 0.5]), double([1.0])], 0.5)
    assert moments.said[0].tolist() == [0.5, 0.5]
    first = [double([[0.8, 0.2], [0.6, 0.4]]), double([[1.0], [1.0]])]
    there = [double([[0.7, 0.3], [0.6, 0.4]]), double([[0.5], [0.25]])]
    moments.take(moments.sums(first, there, double([[0.8, 0.5], [0.6, 0.75]])), 2)
    torch.testing.assert_close(moments.said[0], double([0.7, 0.3]))
    mean, variance = moments.confidence
    torch.testing.assert_close(mean, double([0.7, 0.625]))
    # (.1^2 + .1^2) / (2 - 1), and (.125^2 + .125^2) / (2 - 1).
    torch.testing.assert_close(variance, double([0.02, 0.03125]))

    second = [double([[0.1, 0.9]]), double([[1.0]])]
    moments.take(moments.sums(second, [second[0], double([[0.0]])], double([[1, 1]])), 1)
    torch.testing.assert_close(moments.said[0], double([0.7 / 3 + 0.2 / 3, 0.3 / 3 + 1.8 / 3]))
    assert moments.said[1].tolist() == [1.0], "a level that nobody has keeps its mean"
    torch.testing.assert_close(moments.confidence[0], double([0.9, 0.625 / 3 + 2 / 3]))


def test_an_image_that_lacks_a_level_does_not_count_in_its_mean() -> None:
    moments = BeliefMoments([double([0.5, 0.5])], 0.9)
    said = double([[1.0, 0.0], [0.0, 1.0]])
    moments.take(moments.sums([said], [double([[0.9, 0.0], [0.0, 0.3]])], double([[0.9], [0.7]])), 2)
    torch.testing.assert_close(moments.said[0], double([0.75, 0.25]))


def test_the_sums_of_two_processes_add_up_to_those_of_one() -> None:
    draw = np.random.default_rng(0)
    said = [torch.from_numpy(draw.dirichlet(np.ones(n), 6)) for n in (2, 3)]
    confidence = confidences(said)
    moments = BeliefMoments([double([0.5, 0.5]), double([0.3, 0.3, 0.4])], 0.9)
    whole = moments.sums(said, said, confidence)
    parts = [
        moments.sums([level[rows] for level in said], [level[rows] for level in said], confidence[rows])
        for rows in (slice(0, 2), slice(2, 6))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_running_means_go_through_a_checkpoint_bit_for_bit() -> None:
    shares = [torch.tensor([0.5, 0.5]), torch.tensor([0.2, 0.8])]
    one, two = BeliefMoments(shares, 0.9), BeliefMoments(shares, 0.9)
    draw = torch.Generator().manual_seed(0)
    steps = [[torch.rand(5, 2, generator=draw).softmax(dim=1) for _ in shares] for _ in range(6)]
    for number, said in enumerate(steps):
        if number == 3:
            two.load_state_dict(one.state_dict())
        for moments in (one, two) if number >= 3 else (one,):
            moments.take(moments.sums(said, said, confidences(said)), 5)
    assert all(torch.equal(a, b) for a, b in zip(one.said, two.said, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one.confidence, two.confidence, strict=True))


@given(ragged_trees(), st.sampled_from(["ignore", "class"]), st.integers(0, 1000))
def test_on_any_tree_the_mass_of_a_class_is_at_least_that_of_the_classes_below_it(
    tree: Taxonomy, absent: str, seed: int
) -> None:
    outputs = Outputs(tree, "class" if absent == "class" else "ignore")
    draw = np.random.default_rng(seed)
    num_levels, images = len(outputs.sizes), 7
    said = [torch.from_numpy(draw.dirichlet(np.full(size, 0.3), images).astype(np.float32)) for size in outputs.sizes]
    shares = [torch.from_numpy(draw.dirichlet(np.ones(size)).astype(np.float32)) for size in outputs.sizes]
    posterior = PathPosterior(outputs, Calibration((num_levels * 0.5,) * num_levels, (0.0,) * num_levels))
    own = posterior.marginals(
        [aligned(level, share, level.mean(dim=0)) for level, share in zip(said, shares, strict=True)]
    )
    labels = tree.terminal_rows[draw.integers(0, len(tree.terminal_rows), images)].copy()
    # Labels that are not sure enough are cut short, down to nothing at all.
    labels[np.arange(num_levels) >= draw.integers(0, num_levels + 1, images)[:, None]] = UNKNOWN
    stored = tuple(map(torch.from_numpy, GivenTargets(labels, outputs)(np.arange(images))))
    confidence = confidences(own)
    weights = only_as_deep(truncated_gaussian(confidence, confidence.mean(dim=0), confidence.var(dim=0), 2.0))
    share = float(draw.random())
    mass, _ = revised(stored, own, share * weights)

    assert all(bool((level > -1e-6).all() and (level.sum(dim=1) < 1 + 1e-5).all()) for level in mass)
    for number in range(1, num_levels):
        parents = torch.from_numpy(outputs.parents(number)).long()
        known = parents >= 0
        below = torch.zeros_like(mass[number - 1]).index_add_(1, parents[known], mass[number][:, known])
        assert bool((below <= mass[number - 1] + 1e-5).all())
    for number, (before, after) in enumerate(zip(stored, mass, strict=True)):
        taught = before.sum(dim=1) > 0
        if bool((own[number].sum(dim=1) > 1 - 1e-6).all()):
            torch.testing.assert_close(after[taught].sum(dim=1), torch.ones(int(taught.sum())))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_weight_of_nothing_leaves_the_stored_label_and_a_weight_of_one_replaces_it(weight: float) -> None:
    stored, own = [double([[1.0, 0.0]])], [double([[0.1, 0.9]])]
    (mass,), _ = revised(stored, own, double([[weight]]))
    torch.testing.assert_close(mass, own[0] if weight else stored[0])
