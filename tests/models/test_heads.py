import pytest
import torch
from nstudent.models.heads import build_head
from torch import nn

NUM_FEATURES, OUTPUTS, WIDTH = 6, (2, 3, 5), 4
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


@pytest.mark.parametrize("name", ["fine_to_coarse", "coarse_to_fine", "independent"])
def test_gives_one_logit_per_output_of_each_level(name: str, features: torch.Tensor) -> None:
    assert [tuple(level.shape) for level in head_of(name)(features)] == [(7, 2), (7, 3), (7, 5)]


@pytest.mark.parametrize("name", ["fine_to_coarse", "coarse_to_fine", "independent"])
def test_a_single_level_is_enough(name: str, features: torch.Tensor) -> None:
    assert [tuple(level.shape) for level in build_head(name, NUM_FEATURES, (4,), WIDTH)(features)] == [(7, 4)]


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
    target = torch.arange(7) % OUTPUTS[level]
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
