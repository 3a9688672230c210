"""Experts of ``hd_cnn`` that are not asked: what is said without them, and what that costs."""

from itertools import pairwise

import pytest
import torch
from nstudent.models.cost import gmacs
from nstudent.models.heads import HeadSettings, build_head, most_asked
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from torch import Tensor, nn
from trees import outputs_of

# A{a, b}, B{c, d}, C{e, f, g}: leaves in this order.
TREE = Taxonomy.from_tree({"A": ["a", "b"], "B": ["c", "d"], "C": ["e", "f", "g"]}, ("coarse", "fine"))
ROUTER = (0.6, 0.3, 0.1)
EXPERTS = ((0.9, 0.1), (0.8, 0.2), (0.7, 0.2, 0.1))
NUM_FEATURES, WIDTH = 6, 4


def head_of(threshold: float, router: tuple[float, ...] = ROUTER) -> tuple[nn.Module, Tensor]:
    """A head in double precision that says the same of any image, and the features of two images."""
    settings = HeadSettings(NUM_FEATURES, Outputs(TREE), WIDTH, routing_threshold=threshold)
    head = build_head("hd_cnn", settings).double().eval()
    with torch.no_grad():
        for layer, said in zip(head.classify, (router, *EXPERTS), strict=True):
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor(said, dtype=torch.float64).log())
    return head, torch.zeros(2, NUM_FEATURES, dtype=torch.float64)


def fine_of(threshold: float, router: tuple[float, ...] = ROUTER) -> list[float]:
    head, features = head_of(threshold, router)
    coarse, fine = head(features)
    assert coarse.exp()[0].tolist() == pytest.approx(router)
    assert torch.equal(fine[0], fine[1])
    found: list[float] = fine.exp()[0].tolist()
    return found


def test_golden_below_a_class_whose_expert_is_not_asked_all_leaves_are_equally_probable() -> None:
    all_asked = [0.54, 0.06, 0.24, 0.06, 0.07, 0.02, 0.01]
    assert fine_of(0.0) == pytest.approx(all_asked)
    assert fine_of(0.05) == pytest.approx(all_asked)
    assert fine_of(0.2) == pytest.approx([0.54, 0.06, 0.24, 0.06, 0.1 / 3, 0.1 / 3, 0.1 / 3])
    assert fine_of(0.4) == pytest.approx([0.54, 0.06, 0.15, 0.15, 0.1 / 3, 0.1 / 3, 0.1 / 3])


def test_the_expert_of_the_most_probable_class_is_asked_whatever_the_threshold() -> None:
    assert fine_of(1.0)[:3] == pytest.approx([0.54, 0.06, 0.15])
    assert fine_of(0.9, (0.4, 0.35, 0.25))[:3] == pytest.approx([0.36, 0.04, 0.175])


def random_head(threshold: float, outputs: Outputs) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        settings = HeadSettings(NUM_FEATURES, outputs, WIDTH, routing_threshold=threshold)
        head = build_head("hd_cnn", settings)
        nn.init.normal_(head.classify[0].weight, std=2.0)
    return head


class Counted:
    """Counts the images for which each expert is asked."""

    def __init__(self, head: nn.Module) -> None:
        self.images = [0] * len(head.project)
        for number, expert in enumerate(head.project):
            expert.register_forward_pre_hook(lambda _, given, number=number: self.add(number, len(given[0])))

    def add(self, number: int, images: int) -> None:
        self.images[number] += images


def test_an_expert_is_given_the_images_alone_for_which_it_is_asked() -> None:
    head, outputs = random_head(0.2, outputs_of(5, 20)).eval(), outputs_of(5, 20)
    features = torch.randn(30, NUM_FEATURES, generator=torch.Generator().manual_seed(0))
    routed = head.classify[0](features).softmax(dim=1)
    counted = Counted(head)
    said = head(features)
    wanted = (routed >= 0.2) | (routed == routed.max(dim=1, keepdim=True).values)
    # In blocks of 16, the last of which is filled up.
    assert counted.images == [-(-each // 16) * 16 for each in wanted.sum(dim=0).tolist()]
    assert sum(counted.images) < 30 * 5
    assert [level.shape[1] for level in said] == list(outputs.sizes)
    # One by one they get the same answers.
    alone = [head(features[row : row + 1])[1] for row in range(30)]
    torch.testing.assert_close(torch.cat(alone), said[1])


def test_what_is_said_of_an_image_does_not_depend_on_the_images_beside_it() -> None:
    """To the last bit: a labelling that was interrupted puts images together in other batches."""
    outputs = outputs_of(3, 24)
    settings = HeadSettings(512, outputs, 256, routing_threshold=0.4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = build_head("hd_cnn", settings).eval()
    images, first, second = torch.randn(3, 32, 512, generator=torch.Generator().manual_seed(0)).unbind()
    with torch.inference_mode():
        alone = [
            head(torch.cat([images[:8], others[8:]])) for others in (images, first, second, images[:1].expand(32, -1))
        ]
    for level in zip(*alone, strict=True):
        assert all(torch.equal(each[:8], level[0][:8]) for each in level)


def test_in_training_all_experts_are_asked_and_taught() -> None:
    plain, routed = (random_head(threshold, outputs_of(5, 20)).train() for threshold in (0.0, 0.5))
    features = torch.randn(4, NUM_FEATURES, generator=torch.Generator().manual_seed(0))
    for one, other in zip(plain(features), routed(features), strict=True):
        assert torch.equal(one, other)


def test_the_first_level_and_the_sum_below_each_class_do_not_depend_on_the_threshold() -> None:
    outputs = outputs_of(4, 9)
    features = torch.randn(50, NUM_FEATURES, generator=torch.Generator().manual_seed(1))
    all_asked = random_head(0.0, outputs).eval()(features)
    for threshold in (0.01, 0.1, 0.3, 0.9):
        coarse, fine = random_head(threshold, outputs).eval()(features)
        torch.testing.assert_close(coarse, all_asked[0])
        below = torch.zeros_like(coarse).index_add(1, torch.tensor(outputs.parents(1)).long(), fine.exp())
        torch.testing.assert_close(below, coarse.exp())


def test_a_lower_threshold_is_nearer_to_asking_all() -> None:
    features = torch.randn(200, NUM_FEATURES, generator=torch.Generator().manual_seed(1))
    outputs = outputs_of(4, 12)
    with torch.no_grad():
        wanted, *found = (
            random_head(threshold, outputs).eval()(features)[1].exp() for threshold in (0.0, 1e-9, 0.02, 0.1, 0.3)
        )
    gaps = [(each - wanted).abs().max().item() for each in found]
    assert gaps[0] == pytest.approx(0, abs=1e-6)
    assert all(one <= other for one, other in pairwise(gaps))
    # What is moved is within a class that is less probable than the threshold.
    assert gaps[1] <= 0.02 + 1e-6
    assert 0 < gaps[2] <= 0.1 + 1e-6


@pytest.mark.parametrize(("threshold", "most"), [(1.0, 1), (0.6, 1), (0.5, 2), (0.4, 2), (0.1, 10), (1 / 3, 3)])
def test_no_more_classes_reach_a_threshold_than_have_room_in_one(threshold: float, most: int) -> None:
    assert most_asked(threshold) == most


def test_the_cost_is_a_bound_the_dearest_experts_that_one_image_can_ask() -> None:
    """Leaves 2, 2 and 3: an expert costs 6 x 4 + 4 x leaves, the router 6 x 3."""

    def cost(threshold: float) -> float:
        settings = HeadSettings(NUM_FEATURES, Outputs(TREE), WIDTH, routing_threshold=threshold)
        head = build_head("hd_cnn", settings)
        network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, NUM_FEATURES), head)
        return gmacs([network], 8) * 1e9 - 3 * NUM_FEATURES

    assert cost(0.0) == pytest.approx(18 + 3 * 24 + 4 * 7)
    assert cost(0.3) == pytest.approx(18 + 3 * 24 + 4 * 7)
    assert cost(0.5) == pytest.approx(18 + 2 * 24 + 4 * 5)
    assert cost(0.51) == pytest.approx(18 + 24 + 4 * 3)
