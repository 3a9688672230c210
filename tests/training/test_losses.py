"""Losses of single images: golden values, and what a loss has to keep to so that parts of a batch add up."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from nstudent.config.schema import TrainingConfig
from nstudent.config.types import Absent
from nstudent.errors import ConfigError
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from nstudent.training.cross_entropy import CrossEntropy
from nstudent.training.losses import LOSSES, LossSettings, build_loss, even_weights
from nstudent.training.objective import Part, mean_loss

OUTPUTS = Outputs(Taxonomy.from_tree({"A": {"a": None, "b": None}, "B": {"c": None}}, ("coarse", "fine")))


# A class without classes below it, with and without an output that says that a path ends there.
TREE = Taxonomy.from_tree({"A": {"a": None, "b": None}, "B": {"c": None}, "C": None}, ("coarse", "fine"))
ALL_LOSSES = [
    pytest.param(name, Outputs(TREE, absent), id=f"{name}-{absent}")
    for name in LOSSES
    for absent in ("ignore", "class")
]
losses = pytest.mark.parametrize(("name", "outputs"), ALL_LOSSES)
IMAGES, SILENT_IMAGE, HALF_KNOWN = 7, 3, 5


def settings(name: str, smoothing: float = 0.1, outputs: Outputs = OUTPUTS) -> LossSettings:
    weights = [torch.linspace(0.5, 2.0, size) for size in outputs.sizes]
    return LossSettings(outputs, weights, TrainingConfig.model_construct(loss=name), smoothing)


def some_logits(outputs: Outputs = OUTPUTS) -> tuple[torch.Tensor, ...]:
    source = torch.Generator().manual_seed(7)
    return tuple(torch.randn(IMAGES, size, generator=source).requires_grad_() for size in outputs.sizes)


def some_mass(outputs: Outputs = OUTPUTS) -> list[torch.Tensor]:
    """Soft targets; one image teaches nothing, and one the coarse level alone."""
    source = torch.Generator().manual_seed(8)
    soft = [torch.randn(IMAGES, size, generator=source).softmax(dim=1) for size in outputs.sizes]
    for level in soft:
        level[SILENT_IMAGE] = 0
    soft[1][HALF_KNOWN] = 0
    return soft


def part_of(logits: Sequence[torch.Tensor], mass: Sequence[torch.Tensor], rows: slice = slice(None)) -> Part:
    """Some images of a batch."""
    return Part(
        tuple(level[rows] for level in logits),
        [level[rows] for level in mass],
        [level.sum(dim=0) for level in mass],
    )


@losses
def test_a_loss_is_one_number_an_image_and_nothing_is_learnt_where_nothing_is_taught(
    name: str, outputs: Outputs
) -> None:
    logits = some_logits(outputs)
    found = build_loss(settings(name, outputs=outputs))(logits, some_mass(outputs))
    taught = [image != SILENT_IMAGE for image in range(IMAGES)]
    for level in found:
        assert level.shape == (IMAGES,)
        assert level[SILENT_IMAGE] == 0
        assert (level < 50).all(), "more than logits as small as these can cost"
    assert (found[0][taught] > 0).all()
    torch.stack(list(found)).sum().backward()
    for each in logits:
        assert each.grad is not None
        assert not each.grad[SILENT_IMAGE].any()
        assert each.grad[0].any()


@losses
def test_what_images_count_can_be_asked_of_their_sum(name: str, outputs: Outputs) -> None:
    """Linear in the mass: portions and processes are divided by what the whole batch counts."""
    loss, mass = build_loss(settings(name, outputs=outputs)), some_mass(outputs)
    each, three = loss.weight(mass), loss.weight([3 * level for level in mass])
    together = loss.weight([level.sum(dim=0) for level in mass])
    assert len(each) == len(outputs.sizes)
    for level, thrice, whole in zip(each, three, together, strict=True):
        torch.testing.assert_close(level.sum(), whole)
        torch.testing.assert_close(thrice, 3 * level)
        assert level[SILENT_IMAGE] == 0


@losses
def test_the_loss_of_an_image_does_not_depend_on_those_beside_it(name: str, outputs: Outputs) -> None:
    loss, logits, mass = build_loss(settings(name, outputs=outputs)), some_logits(outputs), some_mass(outputs)
    alone = loss(tuple(level[:2] for level in logits), [level[:2] for level in mass])
    for here, there in zip(alone, loss(logits, mass), strict=True):
        torch.testing.assert_close(here, there[:2])


@losses
def test_the_losses_of_portions_add_up_to_that_of_the_batch(name: str, outputs: Outputs) -> None:
    loss, logits, mass = build_loss(settings(name, outputs=outputs)), some_logits(outputs), some_mass(outputs)
    portions = [mean_loss(loss, part_of(logits, mass, rows), (1, 2)) for rows in (slice(0, 2), slice(2, None))]
    torch.testing.assert_close(torch.stack(portions).sum(), mean_loss(loss, part_of(logits, mass), (1, 2)))


@losses
def test_a_batch_that_teaches_nothing_costs_nothing(name: str, outputs: Outputs) -> None:
    loss, nothing = build_loss(settings(name, outputs=outputs)), [torch.zeros(IMAGES, size) for size in outputs.sizes]
    assert mean_loss(loss, part_of(some_logits(outputs), nothing), (1, 1)) == 0


def test_the_cross_entropy_of_one_image_by_hand() -> None:
    logits = (torch.tensor([[0.0, 0.0]]), torch.tensor([[0.5, 0.25, 0.25]]).log())
    target = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])]
    loss = build_loss(settings("cross_entropy", smoothing=0.0))
    assert torch.stack(list(loss(logits, target))).flatten().tolist() == pytest.approx(
        [0.5 * math.log(2), 1.25 * math.log(4)]
    )
    # The image counts what its class does, .5, however its mass is smoothed; both classes have -ln .5.
    loss = build_loss(settings("cross_entropy", smoothing=0.1))
    assert loss(logits, target)[0].item() == pytest.approx(0.5 * math.log(2))
    assert loss.weight(target)[0].item() == pytest.approx(0.5)


def learnt_from(mass: list[float], weights: list[float], smoothing: float) -> torch.Tensor:
    """The distribution that an image alone draws its level's softmax to: 1/K minus the gradient at even logits."""
    logits = torch.zeros(1, len(mass), requires_grad=True)
    loss = CrossEntropy([torch.tensor(weights)], smoothing)
    part = part_of((logits,), [torch.tensor([mass])])
    mean_loss(loss, part, (1,)).backward()
    assert logits.grad is not None
    return 1 / len(mass) - logits.grad[0]


def test_smoothing_does_not_draw_an_image_towards_the_classes_that_weigh_more() -> None:
    """The second class is common, the first rare: if weights acted after smoothing, it would be (.256, .718, .026)."""
    drawn = learnt_from([0.0, 1.0, 0.0], [10.0, 1.0, 1.0], smoothing=0.1)
    torch.testing.assert_close(drawn, torch.tensor([0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3]))


def test_what_is_learnt_of_a_soft_label_does_not_depend_on_the_weights_of_its_classes() -> None:
    for smoothing in (0.0, 0.2):
        weighted = learnt_from([0.5, 0.25, 0.25], [4.0, 1.0, 0.5], smoothing)
        torch.testing.assert_close(weighted, learnt_from([0.5, 0.25, 0.25], [1.0, 1.0, 1.0], smoothing))


@pytest.mark.parametrize("absent", ["ignore", "class"])
def test_smoothing_and_class_weights_commute(absent: Absent) -> None:
    """The mean is that of the images' smoothed cross-entropies, each with the weight that it has without smoothing."""
    outputs = Outputs(TREE, absent)
    logits, mass = some_logits(outputs), some_mass(outputs)
    settled = settings("cross_entropy", 0.3, outputs)
    even = replace(settled, class_weights=even_weights(outputs, torch.device("cpu")))
    for level, weights in enumerate(settled.class_weights):
        counted = (mass[level] * weights).sum(dim=1)
        expected = counted * build_loss(even)(logits, mass)[level]
        torch.testing.assert_close(build_loss(settled)(logits, mass)[level], expected)
        torch.testing.assert_close(build_loss(settled).weight(mass)[level], counted)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_with_even_weights_it_is_the_smoothed_cross_entropy_of_torch(smoothing: float) -> None:
    logits = some_logits()[1]
    mass = torch.eye(3)[torch.arange(IMAGES) % 3]
    loss = CrossEntropy([torch.ones(3)], smoothing)
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(IMAGES) % 3, label_smoothing=smoothing)
    torch.testing.assert_close(mean_loss(loss, part_of((logits,), [mass]), (1,)), expected)


def test_a_loss_may_look_at_all_levels_and_have_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coarse labels teach the fine level, too: the sum of the fine probabilities under a class is that of the class."""

    class Upwards:
        def __init__(self, share: float) -> None:
            self.share = share

        def __call__(self, logits: Sequence[torch.Tensor], mass: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            fine = logits[1].softmax(dim=1)
            above = torch.stack([fine[:, :2].sum(dim=1), fine[:, 2]], dim=1)
            coarse = -(mass[0] * logits[0].log_softmax(dim=1)).sum(dim=1)
            return [coarse, self.share * -(mass[0] * above.log()).sum(dim=1)]

        def weight(self, mass: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            return [mass[0].sum(dim=-1), mass[0].sum(dim=-1)]

    monkeypatch.setitem(LOSSES, "upwards", lambda settings: Upwards(settings.config.clip_norm or 1.0))
    config = TrainingConfig.model_construct(loss="upwards", clip_norm=3.0)
    loss = build_loss(LossSettings(OUTPUTS, even_weights(OUTPUTS, torch.device("cpu")), config))
    logits, mass = some_logits(), some_mass()
    loss(logits, mass)[1].sum().backward()
    assert logits[1].grad is not None
    assert logits[1].grad[HALF_KNOWN].any()
    portions = [mean_loss(loss, part_of(logits, mass, rows), (1, 2)) for rows in (slice(0, 6), slice(6, None))]
    torch.testing.assert_close(torch.stack(portions).sum(), mean_loss(loss, part_of(logits, mass), (1, 2)))


def test_a_loss_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(ConfigError, match="loss: there is no 'hinge': choose from cross_entropy"):
        build_loss(settings("hinge"))


def test_even_weights_are_one_for_every_output() -> None:
    assert [level.tolist() for level in even_weights(OUTPUTS, torch.device("cpu"))] == [[1, 1], [1, 1, 1]]
