"""Formulas of Meta Pseudo Labels, in double precision, and the two mistakes of the published code."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from fitting import supervised
from nstudent.labels.targets import GivenTargets
from nstudent.models.heads import Logits
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import ABSENT, Taxonomy
from nstudent.training.checkpoint import as_kept
from nstudent.training.meta_feedback import (
    GainMean,
    HardLabels,
    StudentLoss,
    TeacherLoss,
    gain,
    signed_cross_entropy,
    uda_mass,
)
from nstudent.training.objective import Moment, Part
from torch import Tensor, nn

TAXONOMY = Taxonomy.from_tree({"A": ["a", "b"], "B": ["c"], "C": []}, ("coarse", "fine"))
"""A path may end at C."""
OUTPUTS = Outputs(TAXONOMY)
WEIGHTS = (1.0, 3.0)
CPU = torch.device("cpu")


class TwoLevels(nn.Module):
    """A small smooth network in double precision."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        sizes = [(6, 8), *((8, size) for size in OUTPUTS.sizes)]
        self.weights = nn.ParameterList(
            nn.Parameter(0.4 * torch.randn(size, dtype=torch.float64, generator=draw)) for size in sizes
        )

    def forward(self, seen: Tensor) -> Logits:
        hidden = torch.tanh(seen @ self.weights[0])
        return tuple(hidden @ weight for weight in self.weights[1:])


def images(number: int, seed: int) -> Tensor:
    return torch.randn((number, 6), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def part(logits: Logits, mass: Sequence[Tensor]) -> Part:
    return Part(logits, mass, [level.sum(dim=0) for level in mass])


def given(labels: list[list[int]]) -> list[Tensor]:
    found = GivenTargets(np.array(labels, dtype=np.int32), OUTPUTS)(np.arange(len(labels)))
    return [torch.from_numpy(level).double() for level in found]


def gradient(loss: Tensor, network: nn.Module) -> Tensor:
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(network.parameters()))])


def step_and_gain(student: TwoLevels, hard: Sequence[Tensor], rate: float) -> tuple[float, float]:
    """The gain of one plain gradient step on hard labels, and what it is to the first order in the rate."""
    loss = StudentLoss(supervised(OUTPUTS, WEIGHTS))
    labelled, truth, heap = images(5, 1), given([[0, 0], [0, 1], [1, 2], [2, ABSENT], [0, -2]]), images(7, 2)
    of_labelled = loss.of(part(student(labelled), truth), 0.0)
    of_heap = loss.of(part(student(heap), hard), 0.0)
    expected = rate * gradient(of_labelled, student).dot(gradient(of_heap, student))
    optimizer = torch.optim.SGD(student.parameters(), lr=rate)
    of_heap = loss.of(part(student(heap), hard), 0.0)
    of_heap.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    with torch.no_grad():
        found = gain(of_labelled, loss.of(part(student(labelled), truth), 0.0))
    return float(found), float(expected)


@pytest.mark.parametrize("seed", [3, 5, 9, 12])
def test_golden_the_gain_approaches_the_rate_times_the_product_of_the_gradients(seed: int) -> None:
    """The h of algorithm 1 of the paper; the published code has the difference the other way round.

    With these weights the gradients are not at right angles, where little of the first order would be left.
    """
    hard = HardLabels(OUTPUTS)(TwoLevels(seed + 10)(images(7, 2)))
    found, expected = step_and_gain(TwoLevels(seed), hard, 1e-3)
    assert abs(found - expected) < 1e-3 * abs(expected)
    nearer, smaller = step_and_gain(TwoLevels(seed), hard, 1e-4)
    assert abs(nearer / smaller - 1) < 0.2 * abs(found / expected - 1)


def test_a_gain_is_positive_where_the_student_has_become_better() -> None:
    loss, student = StudentLoss(supervised(OUTPUTS, WEIGHTS)), TwoLevels(3)
    seen, truth, wrong = images(4, 1), given([[0, 0], [0, 1], [1, 2], [0, 0]]), given([[1, 2], [1, 2], [0, 0], [1, 2]])
    gains = []
    for taught in (truth, wrong):
        student = TwoLevels(3)
        before = loss.of(part(student(seen), truth), 0.0)
        loss.of(part(student(seen), taught), 0.0).backward()  # type: ignore[no-untyped-call]
        torch.optim.SGD(student.parameters(), lr=0.1).step()
        gains.append(float(gain(before, loss.of(part(student(seen), truth), 0.0)).detach()))
    assert gains[0] > 0 > gains[1]


def teacher_moment(weak: Logits, signed: Sequence[Tensor], strong: Logits, consistent: Sequence[Tensor]) -> Moment:
    """A batch of the teacher without a labelled image."""
    mass = [torch.cat(both) for both in zip(consistent, signed, strict=True)]
    number = len(mass[0])
    return Moment(
        logits=tuple(torch.cat(both) for both in zip(strong, weak, strict=True)),
        mass=mass,
        num_labelled=0,
        rows=torch.arange(number),
        views={},
        believe=lambda images: (),
        done=0.0,
        whole_mass=[level.new_zeros((2, level.shape[1])) for level in mass],
        whole_images=(0, number),
    )


def feedback_gradients(feedback: float) -> tuple[Logits, Sequence[Tensor], tuple[Tensor, ...]]:
    """Logits of the weak view, the hard labels, and the gradient of the teacher's loss on these logits."""
    weak = tuple(level.detach().requires_grad_() for level in TwoLevels(13)(images(7, 2)))
    hard = HardLabels(OUTPUTS)(weak)
    nothing = tuple(torch.zeros_like(level) for level in weak)
    strong = tuple(level.detach() for level in TwoLevels(13)(images(7, 9)))
    loss = TeacherLoss(supervised(OUTPUTS, WEIGHTS))
    total = loss(teacher_moment(weak, [feedback * level for level in hard], strong, nothing))
    return weak, hard, torch.autograd.grad(total, weak)


def test_golden_the_feedback_has_a_gradient_on_the_logits_of_the_teacher() -> None:
    """h (softmax - label), a level by its weight; in the published code it is zero, whatever h is."""
    weak, hard, found = feedback_gradients(0.3)
    for level, label, weight, ours in zip(weak, hard, WEIGHTS, found, strict=True):
        reached = label.sum(dim=1, keepdim=True)
        expected = 0.3 * weight / sum(WEIGHTS) * (level.softmax(dim=1) * reached - label) / 7
        torch.testing.assert_close(ours, expected.detach(), atol=1e-12, rtol=0)
        assert ours.abs().max() > 1e-3


def test_its_own_softmax_as_a_label_would_teach_the_teacher_nothing() -> None:
    """The mistake of the published code, so that it is seen why labels are hard."""
    weak = tuple(level.detach().requires_grad_() for level in TwoLevels(13)(images(7, 2)))
    own = [0.3 * level.detach().softmax(dim=1) for level in weak]
    found = torch.autograd.grad(signed_cross_entropy(weak, own, WEIGHTS), weak)
    assert all(level.abs().max() < 1e-12 for level in found)
    for level in HardLabels(OUTPUTS)(weak):
        assert set(level.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(("feedback", "sign"), [(0.3, 1), (-0.3, -1)])
def test_labels_that_helped_become_more_probable_and_others_less(feedback: float, sign: int) -> None:
    weak, hard, found = feedback_gradients(feedback)
    for level, label, slope in zip(weak, hard, found, strict=True):
        moved = (level - 0.1 * slope).softmax(dim=1) - level.softmax(dim=1)
        changed = (sign * moved * label).sum(dim=1)
        assert (changed[label.sum(dim=1) > 0] > 0).all()


def test_golden_gains_are_held_against_the_mean_of_those_before() -> None:
    """With momentum 1/2 the means of 1; 1, 2; and 1, 2, 4 are 1, 5/3 and 3."""
    mean = GainMean(0.5, CPU)
    assert [float(mean.above(torch.tensor(number))) for number in (1.0, 2.0, 4.0)] == pytest.approx([1, 1, 7 / 3])
    resumed = GainMean(0.5, CPU)
    resumed.load_state_dict(as_kept(mean.state_dict()))
    assert float(resumed.above(torch.tensor(4.0))) == pytest.approx(1.0)
    assert float(mean.above(torch.tensor(4.0))) == pytest.approx(1.0)


def test_without_a_baseline_a_gain_counts_as_it_is() -> None:
    mean = GainMean(None, CPU)
    assert [float(mean.above(torch.tensor(number))) for number in (1.0, 2.0)] == [1, 2]


def test_hard_labels_are_one_path_and_end_where_it_ends() -> None:
    """The first image is C, below which there is nothing; of the second the levels disagree, and A/b wins."""
    coarse = torch.tensor([[0.0, 0.0, 9.0], [1.0, 1.2, 0.0]])
    fine = torch.tensor([[0.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    found = HardLabels(OUTPUTS)((coarse, fine))
    assert [level.tolist() for level in found] == [[[0, 0, 1], [1, 0, 0]], [[0, 0, 0], [0, 1, 0]]]


def test_hard_labels_name_nothing_where_there_is_an_output_for_it() -> None:
    outputs = Outputs(TAXONOMY, "class")
    coarse = torch.tensor([[0.0, 0.0, 9.0]])
    fine = torch.tensor([[0.0, 0.0, 0.0, 5.0]])
    assert [level.tolist() for level in HardLabels(outputs)((coarse, fine))] == [[[0, 0, 1]], [[0, 0, 0, 1]]]


def test_golden_consistency_is_sharpened_where_the_teacher_is_sure_and_only_so_deep() -> None:
    """Sure of A/a; unsure of A and sure of a; sure of C, whose path has ended."""
    coarse = torch.tensor([[2.0, 0.0, 0.0], [0.5, 0.4, 0.0], [0.0, 0.0, 4.0]], dtype=torch.float64)
    fine = torch.tensor([[3.0, 0.0, 0.0]] * 3, dtype=torch.float64)
    hard = given([[0, 0], [0, 0], [2, ABSENT]])
    mass, taught = uda_mass((coarse, fine), hard, temperature=0.5, threshold=0.6)
    assert taught.tolist() == [[1, 1], [0, 0], [1, 0]]
    e4, e6, e8 = np.exp(4), np.exp(6), np.exp(8)
    expected_coarse = [
        [e4 / (e4 + 2), 1 / (e4 + 2), 1 / (e4 + 2)],
        [0, 0, 0],
        [1 / (e8 + 2), 1 / (e8 + 2), e8 / (e8 + 2)],
    ]
    expected_fine = [[e6 / (e6 + 2), 1 / (e6 + 2), 1 / (e6 + 2)], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(mass[0].numpy(), expected_coarse, rtol=1e-12)
    np.testing.assert_allclose(mass[1].numpy(), expected_fine, rtol=1e-12)


def test_given_labels_and_consistency_add_up_in_the_loss_of_the_teacher() -> None:
    """A labelled image and one of the heap: the labels' own loss, and half of the sum over the two rows counts once."""
    loss = TeacherLoss(supervised(OUTPUTS, WEIGHTS, smoothing=0.0))
    logits = tuple(level.detach() for level in TwoLevels(3)(images(3, 4)))
    mass = given([[0, 0], [1, 2], [0, 1]])
    labelled = [level[:1] for level in mass]
    moment = Moment(
        logits=logits,
        mass=mass,
        num_labelled=1,
        rows=torch.arange(3),
        views={},
        believe=lambda images: (),
        done=0.0,
        whole_mass=[torch.stack([level.sum(dim=0), torch.zeros(level.shape[1])]) for level in labelled],
        whole_images=(1, 2),
    )
    rows = [
        float(signed_cross_entropy(tuple(a[n : n + 1] for a in logits), [b[n : n + 1] for b in mass], WEIGHTS))
        for n in range(3)
    ]
    assert float(loss(moment)) == pytest.approx(sum(rows))
