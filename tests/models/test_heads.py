import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.config.schema import ModelConfig
from nstudent.config.types import Absent
from nstudent.errors import ConfigError
from nstudent.models.heads import HEADS, HeadSettings, Logits, build_head, normalised
from nstudent.models.network import Network, build_network, is_of_classifier
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from torch import Tensor, nn
from trees import outputs_of, ragged_trees

NUM_FEATURES, OUTPUTS, WIDTH = 6, outputs_of(2, 3, 5), 4
COARSE, MID, FINE = range(3)

# Which projections each level's logits read: its own, and the detached ones of the levels before it.
READS = {
    "fine_to_coarse": {FINE: {FINE}, MID: {FINE, MID}, COARSE: {FINE, MID, COARSE}},
    "coarse_to_fine": {COARSE: {COARSE}, MID: {COARSE, MID}, FINE: {COARSE, MID, FINE}},
}
cascades = pytest.mark.parametrize("name", READS)
levels = pytest.mark.parametrize("level", [COARSE, MID, FINE])


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(7, NUM_FEATURES, generator=torch.Generator().manual_seed(0))


def head_of(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return build_head(name, HeadSettings(NUM_FEATURES, OUTPUTS, WIDTH))


@pytest.mark.parametrize("name", HEADS)
def test_gives_one_logit_per_output_of_each_level(name: str, features: torch.Tensor) -> None:
    assert [tuple(level.shape) for level in head_of(name)(features)] == [(7, 2), (7, 3), (7, 5)]


@pytest.mark.parametrize("name", HEADS)
def test_a_single_level_is_enough(name: str, features: torch.Tensor) -> None:
    head = build_head(name, HeadSettings(NUM_FEATURES, outputs_of(4), WIDTH))
    assert [tuple(level.shape) for level in head(features)] == [(7, 4)]


@cascades
@levels
def test_a_levels_logits_read_the_levels_before_it(name: str, level: int, features: torch.Tensor) -> None:
    read = set()
    for other in (COARSE, MID, FINE):
        head = head_of(name)
        before = head(features)[level]
        with torch.no_grad():
            head.project[other][0].weight.add_(torch.eye(WIDTH, NUM_FEATURES))
        if not torch.equal(head(features)[level], before):
            read.add(other)
    assert read == READS[name][level]


@cascades
@levels
def test_a_levels_loss_trains_only_its_own_projection(name: str, level: int, features: torch.Tensor) -> None:
    head = head_of(name)
    target = torch.arange(7) % OUTPUTS.sizes[level]
    torch.nn.functional.cross_entropy(head(features)[level], target).backward()
    trained = {
        other
        for other in (COARSE, MID, FINE)
        if any(weight.grad is not None and weight.grad.any() for weight in head.project[other].parameters())
    }
    assert trained == {level}


@levels
def test_independent_levels_share_nothing_but_the_features(level: int, features: torch.Tensor) -> None:
    head = head_of("independent")
    head(features)[level].square().sum().backward()
    touched = {other for other in (COARSE, MID, FINE) if head.classify[other].weight.grad is not None}
    assert touched == {level}


@pytest.mark.parametrize("name", HEADS)
def test_the_layers_that_give_the_logits_are_known_by_their_name(name: str, features: Tensor) -> None:
    network = Network([nn.Identity()], head_of(name), dropout=0.0)
    last = [weight for key, weight in network.named_parameters() if is_of_classifier(key)]
    with torch.no_grad():
        for weight in last:
            weight.zero_()
    assert last
    for level in network.head(features):
        torch.testing.assert_close(level, level[:1].expand_as(level), msg="a layer that gives logits has another name")


def test_a_head_that_there_is_not_is_an_error_that_lists_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="head: there is no 'steep': choose from fine_to_coarse, coarse_to_fine, ind"):
        build_head("steep", HeadSettings(NUM_FEATURES, OUTPUTS, WIDTH))


class _LeavesUp(nn.Module):
    """Logits of leaves alone; an inner node has the sum of the probabilities below it."""

    def __init__(self, num_features: int, outputs: Outputs) -> None:
        super().__init__()
        self._parents = [torch.tensor(outputs.parents(level), dtype=torch.int64) for level in range(len(outputs.sizes))]
        self.classify = nn.Linear(num_features, outputs.sizes[-1])

    def forward(self, features: Tensor) -> Logits:
        """(batch, features) -> logits per level."""
        levels = [self.classify(features).log_softmax(dim=1)]
        for above in reversed(self._parents[1:]):
            below = levels[0]
            sums = below.new_zeros(len(below), int(above.max()) + 1).index_add(1, above, below.exp())
            levels.insert(0, sums.log())
        return tuple(levels)


def test_a_head_of_another_file_is_a_row_in_the_table_and_reads_the_tree(
    monkeypatch: pytest.MonkeyPatch, features: Tensor
) -> None:
    monkeypatch.setitem(HEADS, "leaves_up", lambda settings: _LeavesUp(settings.num_features, settings.outputs))

    coarse, mid, fine = head_of("leaves_up")(features)

    # Of five fine classes 0, 3 are below the first of three mid classes, and that and the third below the first coarse.
    torch.testing.assert_close(mid[:, 0].exp(), fine[:, [0, 3]].exp().sum(dim=1))
    torch.testing.assert_close(coarse[:, 0].exp(), mid[:, [0, 2]].exp().sum(dim=1))


# A{A1{a,b},A2{c}}, B{B1{d,e}}; labels may also end at A2 and at B. In ascending order the places where one may end are
# A/A1/a, A/A1/b, A/A2, A/A2/c, B, B/B1/d and B/B1/e.
TREE = Taxonomy.from_labels(
    [
        ("A", "A1", "a"),
        ("A", "A1", "b"),
        ("A", "A2", "-"),
        ("A", "A2", "c"),
        ("B", "-", "-"),
        ("B", "B1", "d"),
        ("B", "B1", "e"),
    ],
    ("coarse", "mid", "fine"),
)
MASSES = (0.10, 0.20, 0.05, 0.15, 0.25, 0.10, 0.15)


def flat_head(tree: Taxonomy, absent: Absent, leaf_logits: Tensor) -> tuple[nn.Module, Tensor]:
    """A head in double precision, and features of images whose leaves have these logits, (images, leaves)."""
    head = build_head("flat", HeadSettings(leaf_logits.shape[1], Outputs(tree, absent), WIDTH)).double()
    with torch.no_grad():
        head.classify.weight.copy_(torch.eye(leaf_logits.shape[1], dtype=torch.float64))
        head.classify.bias.zero_()
    return head, leaf_logits.double().requires_grad_()


@pytest.mark.parametrize(
    ("absent", "wanted"),
    [
        # The last output of mid and fine is 'nothing': .25 end at B, and .05 at A2.
        ("class", [[0.5, 0.5], [0.3, 0.2, 0.25, 0.25], [0.1, 0.2, 0.15, 0.1, 0.15, 0.3]]),
        # Among the labels that have a class there: .75 at mid, .7 at fine.
        ("ignore", [[0.5, 0.5], [0.4, 4 / 15, 1 / 3], [1 / 7, 2 / 7, 3 / 14, 1 / 7, 3 / 14]]),
    ],
)
def test_golden_levels_of_the_flat_head_are_marginals_of_its_leaves(absent: Absent, wanted: list[list[float]]) -> None:
    # A softmax does not depend on what is added to all logits.
    head, features = flat_head(TREE, absent, torch.tensor([MASSES], dtype=torch.float64).log() + 3)

    for level, masses in zip(head(features), wanted, strict=True):
        torch.testing.assert_close(level.softmax(dim=1), torch.tensor([masses], dtype=torch.float64))


def test_logits_of_the_flat_head_are_log_probabilities() -> None:
    head, features = flat_head(TREE, "ignore", torch.tensor([MASSES], dtype=torch.float64).log())

    assert head(features)[1].exp().sum().item() == pytest.approx(0.75)


def test_a_label_that_is_known_at_a_coarse_level_alone_keeps_the_proportions_below_it() -> None:
    """The gradient of -log P(A) is p - p / P(A) at the leaves below A, and p at the others."""
    head, features = flat_head(TREE, "class", torch.tensor([MASSES], dtype=torch.float64).log())
    torch.nn.functional.cross_entropy(head(features)[0], torch.tensor([0])).backward()

    below = torch.tensor([1, 1, 1, 1, 0, 0, 0], dtype=torch.float64)
    masses = torch.tensor(MASSES, dtype=torch.float64)
    assert features.grad is not None
    torch.testing.assert_close(features.grad[0], masses - below * masses / 0.5)


def test_a_label_that_ends_early_teaches_its_own_leaf_and_the_levels_above() -> None:
    """A2 with nothing below it: mid pulls the leaves of A2 up together, fine those that end above the level."""
    head, features = flat_head(TREE, "class", torch.tensor([MASSES], dtype=torch.float64).log())
    logits = head(features)
    masses = torch.tensor(MASSES, dtype=torch.float64)

    (of_mid,) = torch.autograd.grad(-logits[1][0, 1], features, retain_graph=True)
    (of_fine,) = torch.autograd.grad(-logits[2][0, 5], features)

    torch.testing.assert_close(of_mid[0], masses - torch.tensor([0, 0, 0.25, 0.75, 0, 0, 0], dtype=torch.float64))
    torch.testing.assert_close(of_fine[0], masses - torch.tensor([0, 0, 1 / 6, 0, 5 / 6, 0, 0], dtype=torch.float64))


def test_what_is_next_to_impossible_still_has_a_logit_and_a_gradient() -> None:
    head, features = flat_head(TREE, "class", torch.tensor([[0.0, 0, 0, 0, -900, -900, -900]]))
    coarse = head.float()(features.float())[0]

    assert coarse[0, 1].item() == pytest.approx(-900 + torch.tensor(3 / 4).log().item())
    (gradient,) = torch.autograd.grad(-coarse[0, 1], features)
    torch.testing.assert_close(gradient[0, 4:], torch.full((3,), -1 / 3, dtype=torch.float64))


def routed_head(tree: Taxonomy, absent: Absent, router: list[float], *experts: list[float]) -> tuple[nn.Module, Tensor]:
    """A head in double precision whose layers give these logits for any image, and the features of an image."""
    head = build_head("hd_cnn", HeadSettings(NUM_FEATURES, Outputs(tree, absent), WIDTH)).double()
    with torch.no_grad():
        for layer, said in zip(head.classify, (router, *experts), strict=True):
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor(said, dtype=torch.float64))
    return head, torch.zeros(1, NUM_FEATURES, dtype=torch.float64)


@pytest.mark.parametrize(
    ("absent", "wanted"),
    [
        ("class", [[0.5, 0.5], [0.3, 0.2, 0.25, 0.25], [0.1, 0.2, 0.15, 0.1, 0.15, 0.3]]),
        ("ignore", [[0.5, 0.5], [0.4, 4 / 15, 1 / 3], [1 / 7, 2 / 7, 3 / 14, 1 / 7, 3 / 14]]),
    ],
)
def test_golden_a_leaf_is_as_probable_as_its_expert_says_times_the_router(
    absent: Absent, wanted: list[list[float]]
) -> None:
    """The router says 1/2 : 1/2; A's expert .2, .4, .1, .3 and B's .5, .2, .3: the same leaves as above."""
    of_a, of_b = torch.tensor([0.2, 0.4, 0.1, 0.3]).double().log() + 2, torch.tensor([0.5, 0.2, 0.3]).double().log()
    head, features = routed_head(TREE, absent, [0.7, 0.7], of_a.tolist(), of_b.tolist())

    for level, masses in zip(head(features), wanted, strict=True):
        torch.testing.assert_close(level.softmax(dim=1), torch.tensor([masses], dtype=torch.float64), rtol=1e-6, atol=0)


def test_the_first_level_of_hd_cnn_is_the_routers_and_a_fine_label_teaches_the_expert_of_its_class_alone() -> None:
    features = torch.randn(4, NUM_FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def taught(level: int, output: int) -> tuple[set[int], Tensor]:
        """Experts that a label at a level teaches, and the gradient of the router."""
        head = build_head("hd_cnn", HeadSettings(NUM_FEATURES, Outputs(TREE, "class"), WIDTH)).double()
        torch.nn.functional.cross_entropy(head(features)[level], torch.full((4,), output)).backward()
        router, *experts = head.classify
        found = {i for i, expert in enumerate(experts) if expert.bias.grad.abs().max() > 1e-12}
        projecting = {i for i, each in enumerate(head.project) if each[0].weight.grad.abs().max() > 1e-12}
        assert found == projecting
        return found, router.bias.grad

    assert taught(0, 1)[0] == set()
    experts, router = taught(2, 1)
    assert experts == {0}
    assert router.abs().max() > 1e-3


def test_a_coarse_class_with_nothing_below_it_has_an_expert_with_one_answer() -> None:
    tree = Taxonomy.from_labels([("A", "a"), ("A", "b"), ("B", "-")], ("coarse", "fine"))
    head, features = routed_head(tree, "class", [0.0, 0.0], [0.0, 0.0], [5.0])

    assert head(features)[1].exp()[0].tolist() == pytest.approx([0.25, 0.25, 0.5])


@pytest.mark.parametrize(("name", "threshold"), [("flat", 0.0), ("hd_cnn", 0.0), ("hd_cnn", 0.3)])
def test_levels_are_distributions_to_many_digits_also_where_a_cpu_computes_in_bfloat16(
    name: str, threshold: float
) -> None:
    """Of 200 leaves each has a logarithm near -5, which bfloat16 knows to a hundredth or two."""
    settings = HeadSettings(NUM_FEATURES, outputs_of(3, 20, 200), WIDTH, routing_threshold=threshold)
    head = build_head(name, settings).eval()
    features = torch.randn(5, NUM_FEATURES, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        levels = head(features)

    for level in levels:
        assert level.dtype == torch.float32
        torch.testing.assert_close(level.exp().sum(dim=1), torch.ones(5), rtol=0, atol=1e-5)


@settings(max_examples=40, deadline=None, database=None)
@given(tree=ragged_trees(), absent=st.sampled_from(["ignore", "class"]), seed=st.integers(0, 1000))
def test_on_any_tree_a_class_of_the_flat_head_has_what_those_below_it_have_and_ending_there(
    tree: Taxonomy, absent: Absent, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    leaves = torch.randn(3, len(tree.terminals), generator=random, dtype=torch.float64)
    head, features = flat_head(tree, absent, leaves)
    levels = [level.exp() for level in head(features)]
    own = dict(zip(tree.terminals, leaves.softmax(dim=1).T, strict=True))

    assert [level.shape[1] for level in levels] == list(Outputs(tree, absent).sizes)
    torch.testing.assert_close(levels[0][:, : tree.num_classes[0]].sum(dim=1), torch.ones(3, dtype=torch.float64))
    for number, level in enumerate(levels):
        for c in range(tree.num_classes[number]):
            path = tree.ancestors(number, c)
            below = [mass for end, mass in own.items() if end[: number + 1] == path]
            torch.testing.assert_close(level[:, c], torch.stack(below).sum(dim=0))
        if absent == "class":
            torch.testing.assert_close(level.sum(dim=1), torch.ones(3, dtype=torch.float64))


def test_weights_of_the_flat_head_are_those_of_its_one_layer_alone() -> None:
    """What follows from the tree is not kept: a file of a stranger could hold another tree."""
    head = build_head("flat", HeadSettings(NUM_FEATURES, OUTPUTS, WIDTH))

    assert set(head.state_dict()) == {"classify.weight", "classify.bias"}


def test_normalised_logits_by_hand() -> None:
    """(3, 4) has the length 5: at a temperature of one half (1.2, 1.6), of which the softmax is 1 / (1 + e^.4)."""
    (found,) = normalised((torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64),), 0.5)
    torch.testing.assert_close(found, torch.tensor([[1.2, 1.6], [0.0, 0.0]], dtype=torch.float64), rtol=0, atol=1e-15)
    assert found.softmax(dim=1)[0, 0].item() == pytest.approx(1 / (1 + math.exp(0.4)), abs=1e-15)
    assert normalised((torch.ones(1, 2, dtype=torch.bfloat16),), 0.5)[0].dtype == torch.float32


@given(seed=st.integers(0, 999), longer=st.floats(1e-3, 1e3), temperature=st.floats(0.01, 2))
def test_a_network_with_normalised_logits_is_not_surer_for_longer_ones(
    seed: int, longer: float, temperature: float
) -> None:
    (logits,) = (torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)),)
    (once,), (scaled,) = normalised((logits,), temperature), normalised((longer * logits,), temperature)
    torch.testing.assert_close(once, scaled)
    torch.testing.assert_close(once.norm(dim=1), torch.full((4,), 1 / temperature))
    assert torch.equal(once.argmax(dim=1), logits.argmax(dim=1))


def test_the_gradient_of_normalised_logits_is_finite_also_where_they_are_zero() -> None:
    logits = torch.tensor([[0.0, 0.0], [1e4, -1e4], [1e-6, 0.0]], requires_grad=True)
    (found,) = normalised((logits,), 0.04)
    found.log_softmax(dim=1)[:, 0].sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_network_normalises_what_its_head_gives() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain, normed = (build_network(ModelConfig(logit_norm=value), OUTPUTS, ("key",)).eval() for value in (None, 0.1))
    with torch.no_grad():
        for found, expected in zip(normed(images), normalised(plain(images), 0.1), strict=True):
            torch.testing.assert_close(found, expected)
        assert not torch.allclose(plain(images)[FINE].norm(dim=1), torch.tensor(10.0))
