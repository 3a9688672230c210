"""Losses that know the tree, and one yes or no for every class: their formulas by hand, and what they must keep to."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nstudent.config.schema import TrainingConfig
from nstudent.config.types import Absent
from nstudent.models.links import LINKS, MaxConstraint
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from nstudent.training.binary_cross_entropy import BinaryCrossEntropy, MaxConstrained
from nstudent.training.branches import branches, distances
from nstudent.training.cross_entropy import CrossEntropy
from nstudent.training.losses import LOSSES, Loss, LossSettings, build_loss, even_weights
from nstudent.training.objective import Part, mean_loss
from nstudent.training.tree_losses import HierarchicalCrossEntropy, SoftLabels, TreePathKL
from torch import Tensor
from trees import ragged_trees

CPU = torch.device("cpu")
TREE = Taxonomy.from_tree({"A": {"A1": ["a", "b"], "A2": ["c"]}, "B": {"B1": ["d", "e"]}}, ("coarse", "mid", "fine"))
OUTPUTS = Outputs(TREE)
FINE = 2
trees = st.builds(Outputs, ragged_trees(), st.sampled_from(["ignore", "class"]))


def doubles(outputs: Outputs) -> list[Tensor]:
    """The weight 1 for every class, in double precision."""
    return [torch.ones(size, dtype=torch.float64) for size in outputs.sizes]


def path(*classes: int) -> list[Tensor]:
    """Mass of one image of the toy tree; -1: nobody said which."""
    sizes = zip(classes, OUTPUTS.sizes, strict=True)
    return [
        torch.zeros(1, size, dtype=torch.float64) if named < 0 else torch.eye(size, dtype=torch.float64)[[named]]
        for named, size in sizes
    ]


def drawn(outputs: Outputs, seed: int, rows: int = 4, scale: float = 2.0) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Logits and soft targets; each level of the second image is unknown with probability one half."""
    source = torch.Generator().manual_seed(seed)
    kwargs: dict[str, Any] = {"generator": source, "dtype": torch.float64}
    logits = tuple(scale * torch.randn(rows, size, **kwargs) for size in outputs.sizes)
    mass = [torch.randn(rows, size, **kwargs).softmax(dim=1) for size in outputs.sizes]
    for level in mass:
        level[1:2] *= (torch.rand(1, generator=source) > 0.5).double()
    return logits, mass


def evenly() -> tuple[Tensor, ...]:
    return tuple(torch.zeros(1, size, dtype=torch.float64) for size in OUTPUTS.sizes)


# Of class a among five classes that are equally probable: p(A), p(A1 | A) and p(a | A1).
EDGES = [math.log(5 / 3), math.log(3 / 2), math.log(2)]


@pytest.mark.parametrize(
    ("alpha", "first", "expected"),
    [
        (0.0, "top", math.log(5)),
        (0.0, "bottom", math.log(5)),
        (0.5, "top", 1.011747),
        (0.5, "bottom", 1.126996),
    ],
)
def test_the_hierarchical_cross_entropy_of_one_image_by_hand(alpha: float, first: Any, expected: float) -> None:
    loss = HierarchicalCrossEntropy(OUTPUTS, doubles(OUTPUTS), alpha=alpha, first=first)
    found = loss(evenly(), path(0, 0, 0))
    order = EDGES if first == "top" else EDGES[::-1]
    assert found[FINE].item() == pytest.approx(expected, abs=5e-7)
    exact = sum(math.exp(-alpha * k) * edge for k, edge in enumerate(order))
    assert found[FINE].item() == pytest.approx(exact, abs=1e-14)
    assert found[0].item() == pytest.approx(math.log(2)), "one edge, from the root, weighs 1"


def test_its_weights_follow_the_class_also_where_the_label_is_soft() -> None:
    """Half a, half d: the mean of what the two cost. p(B) = 2/5, p(B1 | B) = 1, p(d | B1) = 1/2."""
    loss = HierarchicalCrossEntropy(OUTPUTS, doubles(OUTPUTS), alpha=0.5)
    half = [level / 2 + other / 2 for level, other in zip(path(0, 0, 0), path(1, 2, 3), strict=True)]
    of_a = sum(math.exp(-0.5 * k) * edge for k, edge in enumerate(EDGES))
    of_d = math.log(5 / 2) + math.exp(-1) * math.log(2)
    assert loss(evenly(), half)[FINE].item() == pytest.approx((of_a + of_d) / 2)


@pytest.mark.parametrize("first", ["top", "bottom"])
def test_golden_nothing_is_one_edge_below_the_root_whichever_edge_comes_first(first: Any) -> None:
    """Labels may end at B: of four even fine outputs nothing has 1/4, and no class of the path weighs less for it."""
    outputs = Outputs(Taxonomy.from_tree({"A": {"a": None, "b": None}, "B": {"c": None}}, ("coarse", "fine")))
    outputs = Outputs(outputs.taxonomy.including(np.array([[1, -1]], dtype=np.int32)), "class")
    loss = HierarchicalCrossEntropy(outputs, doubles(outputs), alpha=0.7, first=first)
    logits = tuple(torch.zeros(1, size, dtype=torch.float64) for size in outputs.sizes)
    fine = loss(logits, [torch.eye(2).double()[[1]], torch.eye(4).double()[[3]]])[1]
    assert fine.item() == pytest.approx(math.log(4))
    # Of a: p(A) = 1/2 and p(a | A) = 1/2.
    near, far = math.log(2), math.exp(-0.7) * math.log(2)
    assert loss(logits, [torch.eye(2).double()[[0]], torch.eye(4).double()[[0]]])[1].item() == pytest.approx(near + far)


@given(
    outputs=trees,
    seed=st.integers(0, 999),
    first=st.sampled_from(["top", "bottom"]),
    smoothing=st.sampled_from([0, 0.2]),
)
def test_without_alpha_it_is_the_cross_entropy_on_every_tree(
    outputs: Outputs, seed: int, first: Any, smoothing: float
) -> None:
    logits, mass = drawn(outputs, seed)
    loss = HierarchicalCrossEntropy(outputs, doubles(outputs), smoothing, 0.0, first)
    for one, other in zip(loss(logits, mass), CrossEntropy(doubles(outputs), smoothing)(logits, mass), strict=True):
        torch.testing.assert_close(one, other)


@given(outputs=trees, seed=st.integers(0, 999))
def test_the_further_down_a_mistake_is_the_less_it_costs(outputs: Outputs, seed: int) -> None:
    """With alpha, of two answers that give the label the same probability the one with nearer classes is better."""
    level = len(outputs.sizes) - 1
    far = distances(outputs, level)
    loss = HierarchicalCrossEntropy(outputs, doubles(outputs), alpha=1.0)
    rows = [row for row in range(outputs.sizes[level]) if len(set(far[row].round(6))) > 2]
    for row in rows:
        costs = []
        for other in np.argsort(far[row], kind="stable")[1:]:
            logits = [torch.zeros(1, size, dtype=torch.float64) for size in outputs.sizes]
            logits[level] = torch.full((1, outputs.sizes[level]), -30.0, dtype=torch.float64)
            logits[level][0, [row, other]] = 0.0
            mass = [torch.zeros(1, size, dtype=torch.float64) for size in outputs.sizes]
            mass[level][0, row] = 1.0
            costs.append((float(far[row, other]), loss(tuple(logits), mass)[level].item()))
        for (near, low), (distant, high) in itertools.pairwise(costs):
            assert low < high if near < distant - 1e-9 else low == pytest.approx(high)


def test_a_branch_that_is_next_to_impossible_has_a_finite_logarithm() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, -3000.0, -3001.0]], requires_grad=True)
    found = branches(OUTPUTS, FINE, CPU)[0].log_sums(logits.log_softmax(dim=1))
    expected = math.log1p(math.exp(-1)) - 3000 - math.log(3)
    assert found[0].tolist() == pytest.approx([0, 0, 0, expected, expected], abs=1e-3)
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@given(outputs=trees, seed=st.integers(0, 999))
def test_a_branch_has_the_probability_of_what_lies_in_it(outputs: Outputs, seed: int) -> None:
    for level, logits in enumerate(drawn(outputs, seed)[0]):
        probabilities = logits.softmax(dim=1)
        for depth, grouped in enumerate(branches(outputs, level, CPU)):
            above = np.arange(outputs.sizes[level])
            for between in range(level, depth, -1):
                above = np.array([outputs.parents(between)[c] if c >= 0 else -1 for c in above])
            if outputs.nothing(level) is not None:
                above[-1] = -1
            expected = torch.stack([probabilities[:, torch.from_numpy(above == c)].sum(dim=1) for c in above], dim=1)
            torch.testing.assert_close(grouped.log_sums(logits.log_softmax(dim=1)).exp(), expected)


def test_distances_are_the_heights_of_the_lowest_common_ancestors() -> None:
    heights = 3 * distances(OUTPUTS, FINE)
    for row, expected in ((0, [0, 1, 2, 3, 3]), (2, [2, 2, 0, 3, 3]), (3, [3, 3, 3, 0, 1])):
        assert heights[row].tolist() == pytest.approx(expected)
    assert distances(OUTPUTS, 0).tolist() == [[0, 1], [1, 0]]


def test_nothing_is_as_far_as_can_be_from_every_class() -> None:
    outputs = Outputs(Taxonomy.from_tree({"A": {"a": None, "b": None}, "B": None}, ("coarse", "fine")), "class")
    assert distances(outputs, 1).tolist() == [[0, 0.5, 1], [0.5, 0, 1], [1, 1, 0]]


def test_soft_labels_by_hand() -> None:
    loss = SoftLabels(OUTPUTS, doubles(OUTPUTS), beta=4.0)
    golden = [0.730081, 0.192447, 0.050729, 0.013372, 0.013372]
    assert loss.shares[FINE][0].tolist() == pytest.approx(golden, abs=5e-7)
    logits = tuple(torch.arange(size, dtype=torch.float64)[None] for size in OUTPUTS.sizes)
    normaliser = math.log(sum(math.exp(k) for k in range(5)))
    expected = sum(share * (normaliser - k) for k, share in enumerate(golden))
    assert loss(logits, path(0, 0, 0))[FINE].item() == pytest.approx(expected, abs=1e-5)


@given(outputs=trees, seed=st.integers(0, 999), beta=st.floats(0.1, 50))
def test_soft_labels_teach_near_classes_more_and_become_hard_as_beta_grows(
    outputs: Outputs, seed: int, beta: float
) -> None:
    logits, mass = drawn(outputs, seed)
    loss = SoftLabels(outputs, doubles(outputs), beta=beta)
    for level, shares in enumerate(loss.shares):
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(len(shares), dtype=torch.float64))
        far = torch.from_numpy(distances(outputs, level))
        nearer = far[:, :, None] < far[:, None, :] - 1e-9
        assert (shares[:, :, None] > shares[:, None, :])[nearer].all()
    hard = SoftLabels(outputs, doubles(outputs), beta=1e4)
    for one, other in zip(hard(logits, mass), CrossEntropy(doubles(outputs))(logits, mass), strict=True):
        torch.testing.assert_close(one, other)


def test_the_binary_cross_entropy_of_one_image_by_hand() -> None:
    """Sigmoids 1/2 and 1/4 of a coarse level; the second class is right: -ln 1/2 - ln 1/4."""
    logits = (torch.tensor([[0.0, -math.log(3)]]).double(), *evenly()[1:])
    found = BinaryCrossEntropy(doubles(OUTPUTS))(logits, path(1, -1, 4))
    assert found[0].item() == pytest.approx(math.log(2) + math.log(4))
    assert found[1].item() == 0, "nobody has named a class, which is not to say that the answer is no"
    assert found[2].item() == pytest.approx(5 * math.log(2))


@given(outputs=trees, seed=st.integers(0, 999))
def test_the_binary_cross_entropy_is_torchs_where_a_level_is_known(outputs: Outputs, seed: int) -> None:
    logits, mass = drawn(outputs, seed)
    for said, level, found in zip(logits, mass, BinaryCrossEntropy(doubles(outputs))(logits, mass), strict=True):
        expected = torch.nn.functional.binary_cross_entropy_with_logits(said, level, reduction="none").sum(dim=1)
        torch.testing.assert_close(found, expected * level.sum(dim=1))


@given(size=st.integers(1, 6), seed=st.integers(0, 999))
def test_the_softmax_of_its_logits_is_the_probability_of_a_class_given_that_it_is_exactly_one(
    size: int, seed: int
) -> None:
    """How a network that answers yes or no for every class is read: by enumeration of all answers."""
    logits = 3 * torch.randn(1, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    yes = logits.sigmoid()[0]
    alone = [math.prod((yes[c] if c == only else 1 - yes[c]).item() for c in range(size)) for only in range(size)]
    assert LINKS["softmax"](OUTPUTS, CPU)([logits])[0][0].tolist() == pytest.approx(
        [each / sum(alone) for each in alone]
    )


def logits_of(*sigmoids: list[float]) -> tuple[Tensor, ...]:
    """Logits of one image, by the sigmoids of each level."""
    return tuple(torch.tensor([level]).double().logit() for level in sigmoids)


def test_the_max_constrained_loss_of_one_image_by_hand() -> None:
    """The label is A, A1, a. That b is likely, wrongly, does not speak for A, and speaks against nobody but itself."""
    loss = MaxConstrained(OUTPUTS, doubles(OUTPUTS))
    said = logits_of([0.2, 0.1], [0.3, 0.4, 0.1], [0.6, 0.9, 0.1, 0.2, 0.3])
    coarse, mid, fine = (level.item() for level in loss(said, path(0, 0, 0)))
    # For A speaks the largest of A, A1 and a; against B the largest of all below it.
    assert coarse == pytest.approx(-math.log(0.6) - math.log(1 - 0.3))
    assert mid == pytest.approx(-math.log(0.6) - math.log(1 - 0.4) - math.log(1 - 0.3))
    assert fine == pytest.approx(-sum(map(math.log, (0.6, 1 - 0.9, 1 - 0.1, 1 - 0.2, 1 - 0.3))))


def test_who_names_the_coarse_class_alone_says_no_to_what_lies_below_the_others() -> None:
    logits = tuple(
        level.requires_grad_() for level in logits_of([0.2, 0.1], [0.3, 0.4, 0.1], [0.6, 0.9, 0.1, 0.2, 0.3])
    )
    found = MaxConstrained(OUTPUTS, doubles(OUTPUTS))(logits, path(0, -1, -1))
    assert found[0].item() == pytest.approx(-math.log(0.2) - math.log(1 - 0.3))
    found[0].sum().backward()
    assert logits[0].grad is not None
    assert logits[FINE].grad is not None
    assert logits[0].grad[0].tolist() == pytest.approx([0.2 - 1, 0])
    assert logits[FINE].grad[0].tolist() == pytest.approx([0, 0, 0, 0, 0.3])


@given(outputs=trees, seed=st.integers(0, 999))
def test_a_class_is_at_least_as_likely_as_those_below_it_and_levels_are_distributions(
    outputs: Outputs, seed: int
) -> None:
    logits = drawn(outputs, seed)[0]
    bounded = MaxConstraint(outputs, CPU)(logits)
    for level in range(1, len(logits)):
        for output, parent in enumerate(outputs.parents(level)):
            if parent >= 0:
                assert (bounded[level - 1][:, parent] >= bounded[level][:, output]).all()
    # Every bound is met by some class below, or by the class itself.
    for level, own in enumerate(logits):
        least = [0.0] if level == len(logits) - 1 else []
        assert not least or torch.equal(bounded[level], own)
        assert torch.isin(bounded[level], torch.cat([below.flatten() for below in logits[level:]])).all()
    for said in LINKS["max_constrained"](outputs, CPU)(logits):
        torch.testing.assert_close(said.sum(dim=1), torch.ones(len(said), dtype=torch.float64))


@given(seed=st.integers(0, 999))
def test_on_one_level_the_max_constrained_loss_is_the_binary_cross_entropy(seed: int) -> None:
    outputs = Outputs(Taxonomy.from_tree({"a": None, "b": None, "c": None}, ("only",)))
    logits, mass = drawn(outputs, seed)
    for smoothing in (0.0, 0.2):
        one = MaxConstrained(outputs, doubles(outputs), smoothing)(logits, mass)[0]
        torch.testing.assert_close(one, BinaryCrossEntropy(doubles(outputs), smoothing)(logits, mass)[0])


def test_the_tree_path_divergence_of_one_image_by_hand() -> None:
    """Ten outputs of even logits: q is 1/10 everywhere, and t 1/3 on three of them."""
    loss = TreePathKL(doubles(OUTPUTS), strength=0.5)
    divergence = math.log(10 / 3)
    for found, size in zip(loss(evenly(), path(0, 0, 0)), OUTPUTS.sizes, strict=True):
        assert found.item() == pytest.approx(math.log(size) + 0.5 * divergence, abs=1e-14)


def test_an_unknown_level_is_no_part_of_the_path() -> None:
    """Two levels, of two and three outputs: q is 1/5, and t 1/2 on two of them."""
    found = TreePathKL(doubles(OUTPUTS))(evenly(), path(0, 0, -1))
    assert found[0].item() == pytest.approx(math.log(2) + math.log(5 / 2))
    assert found[FINE].item() == 0


@given(outputs=trees, seed=st.integers(0, 999))
def test_the_divergence_of_a_path_is_never_negative_and_zero_where_it_is_met(outputs: Outputs, seed: int) -> None:
    logits, mass = drawn(outputs, seed)
    base = CrossEntropy(doubles(outputs))
    for found, least in zip(TreePathKL(doubles(outputs))(logits, mass), base(logits, mass), strict=True):
        assert (found >= least - 1e-12).all()
    # Logits that are those of the target itself; every level has the same part of the whole.
    met = tuple(level.log() for level in drawn(outputs, seed, rows=1)[1])
    known = [level.exp() for level in met]
    for found, least in zip(TreePathKL(doubles(outputs))(met, known), base(met, known), strict=True):
        torch.testing.assert_close(found, least)


def adjusted(outputs: Outputs, shares: list[Tensor], tau: float) -> Loss:
    config = TrainingConfig(loss="cross_entropy")
    return build_loss(LossSettings(outputs, doubles(outputs), config, 0.0, [tau * share.log() for share in shares]))


def test_the_adjusted_cross_entropy_of_one_image_by_hand() -> None:
    """Even logits, shares 3/4 and 1/4, tau 2: the rare class has 1/10 of the softmax, (1/16) / (9/16 + 1/16)."""
    shares = [torch.tensor([0.75, 0.25]).double(), torch.ones(3).double() / 3, torch.ones(5).double() / 5]
    assert adjusted(OUTPUTS, shares, 2.0)(evenly(), path(1, 0, 0))[0].item() == pytest.approx(math.log(10))
    assert adjusted(OUTPUTS, shares, 2.0)(evenly(), path(0, 0, 0))[0].item() == pytest.approx(math.log(10 / 9))


@given(seed=st.integers(0, 999))
def test_who_knows_the_frequencies_alone_is_taught_even_logits(seed: int) -> None:
    """Images that all look alike: without adjustment their logits become those of the frequencies, with it even."""
    shares = drawn(OUTPUTS, seed, rows=1)[1]
    logits = tuple(level.requires_grad_() for level in evenly())
    torch.stack(list(adjusted(OUTPUTS, [share[0] for share in shares], 1.0)(logits, shares))).sum().backward()
    for level in logits:
        assert level.grad is not None
        assert level.grad.abs().max() < 1e-12


EXTREMES = [0.0, 80.0, -80.0, 1e4, -1e4, 3e38, -3e38]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("absent", ["ignore", "class"])
def test_gradients_are_finite_at_extreme_logits(name: str, absent: Absent) -> None:
    outputs = Outputs(
        Taxonomy.from_tree({"A": {"a": None, "b": None}, "B": {"c": None}, "C": None}, ("one", "two")), absent
    )
    loss = build_loss(LossSettings(outputs, even_weights(outputs, CPU), TrainingConfig(loss=name), 0.1))
    for extreme, place in itertools.product(EXTREMES, range(2)):
        logits = tuple(torch.zeros(3, size) for size in outputs.sizes)
        for level in logits:
            level[:, place] = extreme
            level.requires_grad_()
        mass = [torch.eye(size)[[0, 1, 0]] for size in outputs.sizes]
        mass[1][2] = 0
        part = Part(logits, mass, [level.sum(dim=0) for level in mass])
        mean_loss(loss, part, (1.0, 1.0)).backward()
        for level in logits:
            assert level.grad is not None
            assert level.grad.isfinite().all(), (extreme, place)


@pytest.mark.gpu
@pytest.mark.parametrize("name", LOSSES)
def test_on_a_gpu_a_loss_is_what_it_is_on_the_cpu_also_with_kernels_that_repeat(name: str) -> None:
    found = []
    torch.use_deterministic_algorithms(True)
    try:
        for device in (CPU, torch.device("cuda")):
            loss = build_loss(LossSettings(OUTPUTS, even_weights(OUTPUTS, device), TrainingConfig(loss=name), 0.1))
            logits, mass = drawn(OUTPUTS, 3)
            there = tuple(level.float().to(device).requires_grad_() for level in logits)
            torch.stack(list(loss(there, [level.float().to(device) for level in mass]))).sum().backward()
            found.append([level.grad for level in there])
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip(*found, strict=True):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other.cpu(), rtol=1e-4, atol=1e-6)
