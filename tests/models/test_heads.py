import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nstudent.config.schema import ModelConfig
from nstudent.errors import ConfigError
from nstudent.models.heads import HEADS, Logits, build_head, normalised
from nstudent.models.network import Network, build_network, is_of_classifier
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor, nn
from trees import outputs_of

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
        return build_head(name, NUM_FEATURES, OUTPUTS, WIDTH)


@pytest.mark.parametrize("name", HEADS)
def test_gives_one_logit_per_output_of_each_level(name: str, features: torch.Tensor) -> None:
    assert [tuple(level.shape) for level in head_of(name)(features)] == [(7, 2), (7, 3), (7, 5)]


@pytest.mark.parametrize("name", HEADS)
def test_a_single_level_is_enough(name: str, features: torch.Tensor) -> None:
    assert [tuple(level.shape) for level in build_head(name, NUM_FEATURES, outputs_of(4), WIDTH)(features)] == [(7, 4)]


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
    with pytest.raises(ConfigError, match="head: there is no 'flat': choose from fine_to_coarse, coarse_to_fine, ind"):
        build_head("flat", NUM_FEATURES, OUTPUTS, WIDTH)


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
    monkeypatch.setitem(HEADS, "leaves_up", lambda num_features, outputs, width: _LeavesUp(num_features, outputs))

    coarse, mid, fine = head_of("leaves_up")(features)

    # Of five fine classes 0, 3 are below the first of three mid classes, and that and the third below the first coarse.
    torch.testing.assert_close(mid[:, 0].exp(), fine[:, [0, 3]].exp().sum(dim=1))
    torch.testing.assert_close(coarse[:, 0].exp(), mid[:, [0, 2]].exp().sum(dim=1))


def test_normalised_logits_by_hand() -> None:
    """(3, 4) has the length 5: at a temperature of one half (1.2, 1.6), of which the softmax is 1 / (1 + e^.4)."""
    (found,) = normalised((torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float32),), 0.5)
    torch.testing.assert_close(found, torch.tensor([[1.2, 1.6], [0.0, 0.0]]))
    assert found.softmax(dim=1)[0, 0].item() == pytest.approx(1 / (1 + math.exp(0.4)))


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
