import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nstudent.labels.self_ensemble import RunningAverage
from nstudent.labels.targets import GivenTargets
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from nstudent.training.cross_entropy import CrossEntropy
from nstudent.training.held_out import HeldOut
from nstudent.training.objective import CLEAN, CoarsePrior, Moment, SelfEnsembling, Supervised, mean_loss
from torch.nn.functional import cross_entropy, one_hot

TAXONOMY = Taxonomy.from_tree(
    {"A": {"A1": ["a", "b"]}, "B": {"B1": ["c", "d"], "B2": ["e"]}}, ("coarse", "mid", "fine")
)
OUTPUTS = Outputs(TAXONOMY)
Levels = tuple[torch.Tensor, ...]
EVEN = tuple(torch.ones(size) for size in OUTPUTS.sizes)
LABELS = np.array([[0, 0, 1], [1, 1, 2], [1, 2, -1], [0, -2, -2], [1, 1, 3], [-2, -2, -2]], dtype=np.int32)
TARGETS = tuple(map(torch.from_numpy, GivenTargets(LABELS, OUTPUTS)(np.arange(6))))


def moment(
    logits: Levels, num_labelled: int, *, targets: Levels = TARGETS, done: float = 0.0, belief: Levels | None = None
) -> Moment:
    rows = torch.cat([torch.arange(num_labelled), torch.arange(len(logits[0]) - num_labelled)])
    views = {CLEAN: torch.zeros(len(rows), 3, 4, 4)}
    whole = [torch.stack([level[:num_labelled].sum(0), level[num_labelled:].sum(0)]) for level in targets]
    images = (num_labelled, len(rows) - num_labelled)
    return Moment(logits, targets, num_labelled, rows, views, lambda images: belief, done, whole, images)


def level_cross_entropy(
    logits: Levels, targets: Levels, class_weights: Levels, level_weights: Sequence[float], smoothing: float
) -> torch.Tensor:
    """The loss of labelled images alone."""
    labelled = moment(logits, len(logits[0]), targets=targets).labelled
    return mean_loss(CrossEntropy(class_weights, smoothing), labelled, level_weights)


def supervised(
    class_weights: Levels = EVEN,
    smoothing: float = 0.0,
    unlabelled_weight: float = 1.0,
    heap_shares: Sequence[float] | None = None,
) -> Supervised:
    labelled, heap = CrossEntropy(class_weights, smoothing), CrossEntropy(EVEN)
    return Supervised(labelled, heap, (1, 1, 1), unlabelled_weight, heap_shares)


def random_logits(rows: int = 6, seed: int = 0) -> Levels:
    source = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(rows, size, generator=source).requires_grad_() for size in OUTPUTS.sizes)


def torchs_own(
    logits: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    smoothing: float = 0.0,
    weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = (None,) * 3,
) -> torch.Tensor:
    """torch's cross-entropy per level, with absent and unknown ones ignored, averaged over levels."""
    known = [torch.from_numpy(np.where(LABELS[:, i] >= 0, LABELS[:, i], -100)).long() for i in range(3)]
    return torch.stack(
        [
            cross_entropy(level, target, weight=weight, ignore_index=-100, label_smoothing=smoothing)
            for level, target, weight in zip(logits, known, weights, strict=True)
        ]
    ).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_on_hard_labels_it_is_torchs_cross_entropy(smoothing: float) -> None:
    logits = random_logits()
    loss = level_cross_entropy(logits, TARGETS, EVEN, (1, 1, 1), smoothing)
    torch.testing.assert_close(loss, torchs_own(logits, smoothing))


def test_with_class_weights_it_is_torchs_cross_entropy() -> None:
    logits = random_logits()
    weights = tuple(torch.linspace(0.5, 3, size) for size in OUTPUTS.sizes)
    loss = level_cross_entropy(logits, TARGETS, weights, (1, 1, 1), 0.0)
    torch.testing.assert_close(loss, torchs_own(logits, weights=weights))


def test_gradients_are_torchs_too() -> None:
    ours, theirs = random_logits(), random_logits()
    level_cross_entropy(ours, TARGETS, EVEN, (1, 1, 1), 0.1).backward()
    torchs_own(theirs, 0.1).backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_where_every_label_is_unknown_it_is_zero_where_torch_is_nan() -> None:
    logits = random_logits()
    nothing = tuple(torch.zeros_like(level) for level in TARGETS)
    loss = level_cross_entropy(logits, nothing, EVEN, (1, 1, 1), 0.1)
    assert loss.item() == 0
    loss.backward()
    assert all((level.grad == 0).all() for level in logits)
    assert torch.isnan(cross_entropy(logits[0], torch.full((6,), -100)))


def test_unknown_levels_get_no_gradient_and_do_not_thin_out_the_others() -> None:
    logits = random_logits()
    level_cross_entropy(logits, TARGETS, EVEN, (1, 1, 1), 0.1).backward()
    for level, gradient in enumerate(each.grad for each in logits):
        assert torch.equal(gradient.abs().sum(dim=1) > 0, torch.from_numpy(LABELS[:, level] >= 0))
    few = level_cross_entropy(
        tuple(level[:2] for level in logits), tuple(level[:2] for level in TARGETS), EVEN, (1, 1, 1), 0.0
    )
    padded = tuple(torch.cat([level[:2], torch.zeros(4, level.shape[1])]) for level in TARGETS)
    torch.testing.assert_close(level_cross_entropy(logits, padded, EVEN, (1, 1, 1), 0.0), few)


def test_soft_targets_are_torchs_too() -> None:
    logits = random_logits()
    soft = tuple(level.detach().softmax(dim=1) for level in random_logits(seed=1))
    expected = torch.stack([cross_entropy(a, b) for a, b in zip(logits, soft, strict=True)]).mean()
    torch.testing.assert_close(level_cross_entropy(logits, soft, EVEN, (1, 1, 1), 0.0), expected)


def test_levels_count_as_their_weights_say() -> None:
    logits = random_logits()
    alone = [level_cross_entropy((a,), (b,), (w,), (1,), 0.0) for a, b, w in zip(logits, TARGETS, EVEN, strict=True)]
    loss = level_cross_entropy(logits, TARGETS, EVEN, (1, 2, 5), 0.0)
    torch.testing.assert_close(loss, (alone[0] + 2 * alone[1] + 5 * alone[2]) / 8)


def test_a_known_value() -> None:
    # -ln softmax of (ln 1, ln 3) at the second class is ln(4/3).
    logits, target = (torch.tensor([[0.0, np.log(3.0)]]),), (torch.tensor([[0.0, 1.0]]),)
    assert level_cross_entropy(logits, target, (torch.ones(2),), (1,), 0.0).item() == pytest.approx(np.log(4 / 3))


def test_the_parts_of_a_batch_are_averaged_apart_and_weighed() -> None:
    logits = random_logits()
    soft = tuple(level.detach().softmax(dim=1) for level in random_logits(seed=1))
    parts = [
        level_cross_entropy(tuple(x[part] for x in logits), tuple(x[part] for x in soft), EVEN, (1, 1, 1), smoothing)
        for part, smoothing in ((slice(None, 2), 0.1), (slice(2, None), 0.0))
    ]
    for weight in (0.0, 0.5, 2.0):
        objective = supervised(smoothing=0.1, unlabelled_weight=weight)
        torch.testing.assert_close(objective(moment(logits, 2, targets=soft)), parts[0] + weight * parts[1])


def test_class_weights_serve_the_given_labels_only() -> None:
    logits = random_logits()
    rare = tuple(torch.linspace(0.5, 3, size) for size in OUTPUTS.sizes)
    plain, weighted = (supervised(weights)(moment(logits, 0)) for weights in (EVEN, rare))
    torch.testing.assert_close(plain, weighted)


SOFT = tuple(level.detach().softmax(dim=1) for level in random_logits(seed=1))


def kept_by(*images: int) -> Levels:
    """Soft labels of six images; only some keep the fine level."""
    fine = torch.zeros_like(SOFT[2])
    fine[list(images)] = SOFT[2][list(images)]
    return (*SOFT[:2], fine)


def fine_gradient(targets: Levels, shares: Sequence[float] | None, num_labelled: int = 0) -> torch.Tensor:
    """Length of the gradient of each image's fine logits."""
    logits = random_logits()
    supervised(heap_shares=shares)(moment(logits, num_labelled, targets=targets)).backward()
    gradient = logits[2].grad
    assert gradient is not None
    return gradient.norm(dim=1)


@given(st.sets(st.integers(0, 5), min_size=1), st.sets(st.integers(0, 5)), st.integers(0, 2))
def test_no_heap_image_counts_more_because_others_lose_their_label(
    kept: set[int], lost: set[int], num_labelled: int
) -> None:
    shares = (1.0, 1.0, 1.0)
    before, after = (fine_gradient(kept_by(*images), shares, num_labelled) for images in (kept, kept - lost))
    for image in kept - lost:
        if image >= num_labelled:
            torch.testing.assert_close(after[image], before[image])


def test_one_label_in_a_batch_weighs_as_much_as_one_of_many() -> None:
    """Divided by what is kept, the only label of a batch would weigh six times as much."""
    alone, all_kept = fine_gradient(kept_by(4), (1, 1, 1))[4], fine_gradient(SOFT, (1, 1, 1))[4]
    torch.testing.assert_close(alone, all_kept)
    torch.testing.assert_close(fine_gradient(kept_by(4), None)[4], 6 * all_kept)


def test_where_every_label_is_kept_the_heap_is_divided_by_what_is_kept() -> None:
    torch.testing.assert_close(fine_gradient(SOFT, (1, 1, 1)), fine_gradient(SOFT, None))


def test_images_whose_path_ends_above_a_level_are_not_among_those_that_could_have_it() -> None:
    """Half of the heap's paths reach the fine level: one kept label is divided by three of six images."""
    torch.testing.assert_close(fine_gradient(kept_by(4), (1, 1, 0.5)), 2 * fine_gradient(kept_by(4), (1, 1, 1)))
    # A batch that happens to keep more than that is divided by what it keeps.
    torch.testing.assert_close(fine_gradient(SOFT, (1, 1, 0.5)), fine_gradient(SOFT, None))


def test_given_labels_are_divided_by_those_that_there_are() -> None:
    torch.testing.assert_close(fine_gradient(kept_by(1), (1, 1, 1), 6), fine_gradient(kept_by(1), None, 6))


def test_the_share_is_of_the_whole_batch_and_not_of_the_images_that_are_here() -> None:
    """Two of the six heap images, as in a portion or in one of several processes."""
    whole = supervised(heap_shares=(1, 1, 1))
    parts = []
    for rows in (slice(0, 2), slice(2, 6)):
        here = moment(tuple(level[rows] for level in random_logits()), 0, targets=tuple(t[rows] for t in kept_by(4)))
        everything = moment(random_logits(), 0, targets=kept_by(4))
        parts.append(whole(replace(here, whole_mass=everything.whole_mass, whole_images=everything.whole_images)))
    torch.testing.assert_close(sum(parts), whole(moment(random_logits(), 0, targets=kept_by(4))))


def test_a_level_that_no_path_reaches_costs_nothing() -> None:
    assert not fine_gradient(kept_by(), (1, 1, 0)).any()


@pytest.fixture
def self_ensembling() -> Callable[..., Any]:
    def make(weight: float = 1.0, held_out: HeldOut | None = None) -> SelfEnsembling:
        averages = [RunningAverage(rows, OUTPUTS, 0.75) for rows in (2, 4)]
        return SelfEnsembling(supervised(), *averages, weight=weight, ramp=1.0, held_out=held_out)

    return make


BELIEF = tuple(level.detach() for level in random_logits(seed=2))


def test_the_consistency_loss_is_the_squared_gap_of_probabilities_at_its_ramp(
    self_ensembling: Callable[..., Any],
) -> None:
    logits = random_logits()
    gap = torch.stack(
        [
            (mine.softmax(dim=1) - taught.softmax(dim=1)).square().sum(dim=1).mean()
            for mine, taught in zip(logits, BELIEF, strict=True)
        ]
    ).mean()
    supervised = self_ensembling().supervised(moment(logits, 2))
    for done, ramp in ((0.0, 0.0067379), (0.6, 0.4493290), (1.0, 1.0)):
        loss = self_ensembling(weight=3.0)(moment(logits, 2, done=done, belief=BELIEF))
        torch.testing.assert_close(loss, supervised + 3.0 * ramp * gap)


def test_the_mean_teachers_predictions_are_averaged_by_image(self_ensembling: Callable[..., Any]) -> None:
    objective = self_ensembling()
    # A step that ran out of memory and is tried again counts once.
    objective(moment(random_logits(), 2, belief=random_logits()))
    objective.forget()
    objective(moment(random_logits(), 2, belief=BELIEF))
    objective.settle()
    state = objective.state_dict()
    for level, belief in enumerate(each.softmax(dim=1) for each in BELIEF):
        torch.testing.assert_close(state[f"labelled.level-{level}"], belief[:2])
        torch.testing.assert_close(state[f"unlabelled.level-{level}"], belief[2:])
    before = {name: value.clone() for name, value in state.items()}
    other = tuple(level.flip(0) for level in BELIEF)
    objective(moment(random_logits(), 2, belief=other))
    objective.settle()
    for level, belief in enumerate(each.softmax(dim=1) for each in other):
        expected = (0.75 * before[f"labelled.level-{level}"] + belief[:2]) / 1.75
        torch.testing.assert_close(objective.state_dict()[f"labelled.level-{level}"], expected)


def held_out_images(num_images: int = 5, steps_per_pass: int = 2, passes: int = 3) -> HeldOut:
    """Image ``row`` is full of that number."""
    average = RunningAverage(num_images, OUTPUTS, 0.75)
    fetch = lambda rows: torch.from_numpy(rows).float()[:, None, None, None].expand(-1, 3, 4, 4)  # noqa: E731
    return HeldOut(average, fetch, steps_per_pass * passes, steps_per_pass, ("held out",))


def believing(images: torch.Tensor) -> Levels:
    """A mean teacher that tells the number of an image by its logits."""
    return tuple(images[:, 0, 0, :1] * torch.arange(size) for size in OUTPUTS.sizes)


def test_held_out_images_are_predicted_once_a_pass_and_nothing_is_learnt_from_them(
    self_ensembling: Callable[..., Any],
) -> None:
    held_out = held_out_images()
    objective, plain = self_ensembling(held_out=held_out), self_ensembling()
    for step in range(6):
        now = moment(random_logits(), 2, done=step / 6, belief=BELIEF)
        seen = dataclasses.replace(now, believe=lambda images: BELIEF if len(images) == 6 else believing(images))
        torch.testing.assert_close(objective(seen), plain(now))
        objective.settle()
        assert held_out.average.has_seen().all() == (step > 0)
    for level, said in enumerate(believing(held_out.fetch(np.arange(5)))):
        torch.testing.assert_close(torch.from_numpy(held_out.average.distributions()[level]), said.softmax(dim=1))
    assert held_out.average.state_dict()["seen"].tolist() == [3] * 5


def test_held_out_images_are_looked_at_in_the_size_of_those_that_are_learnt_from(
    self_ensembling: Callable[..., Any],
) -> None:
    """Else their averages would not mean the same in a training whose images are smaller, or grow."""
    sides = []

    def believe(images: torch.Tensor) -> Levels:
        sides.append(tuple(images.shape[2:]))
        return BELIEF if len(images) == 6 else believing(images)

    for side in (2, 4):
        now = moment(random_logits(), 2)
        now = dataclasses.replace(now, believe=believe, views={CLEAN: torch.zeros(6, 3, side, side)})
        self_ensembling(held_out=held_out_images())(now)
    assert sides == [(2, 2)] * 2 + [(4, 4)] * 2


def test_a_held_out_image_has_another_step_in_every_pass() -> None:
    held_out = held_out_images(num_images=50, steps_per_pass=5)
    passes = [[set(held_out.due(5 * number + step)) for step in range(5)] for number in range(3)]
    assert all(set().union(*each) == set(range(50)) for each in passes)
    assert all(len(due) == 10 for each in passes for due in each)
    assert passes[0] != passes[1]


def test_the_portions_of_a_step_and_one_that_is_tried_again_predict_them_once() -> None:
    held_out = held_out_images()
    calls = []

    def believe(images: torch.Tensor) -> Levels:
        calls.append(len(images))
        return believing(images)

    held_out.look(0.0, believe, 2, 4)
    held_out.look(0.0, believe, 2, 4)
    assert calls == [2, 1], "three of five are due, two at a time, and one portion is enough"
    held_out.forget()
    held_out.settle()
    assert not held_out.average.has_seen().any()
    held_out.look(0.0, believe, 2, 4)
    held_out.settle()
    held_out.settle()
    assert held_out.average.state_dict()["seen"].sum() == 3


def test_the_average_of_held_out_images_goes_through_a_checkpoint(self_ensembling: Callable[..., Any]) -> None:
    first, second = (self_ensembling(held_out=held_out_images()) for _ in range(2))
    first.held_out.look(0.0, believing, 6, 4)
    first.settle()
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    assert second.held_out.average.has_seen().sum() == 3
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_no_gradient_reaches_the_mean_teacher(self_ensembling: Callable[..., Any]) -> None:
    believed = tuple(level.clone().requires_grad_() for level in BELIEF)
    logits = random_logits()
    self_ensembling()(moment(logits, 2, done=1.0, belief=tuple(level.detach() for level in believed))).backward()
    assert all(level.grad is None for level in believed)
    assert all(level.grad.any() for level in logits)


def test_the_running_averages_go_through_a_checkpoint(self_ensembling: Callable[..., Any]) -> None:
    objective, other = self_ensembling(), self_ensembling()
    objective(moment(random_logits(), 2, belief=BELIEF))
    other.load_state_dict({name: value.clone() for name, value in objective.state_dict().items()})
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in objective.state_dict().items())


def test_one_hot_targets_are_those_of_the_labels() -> None:
    assert torch.equal(TARGETS[0][:3], one_hot(torch.tensor([0, 1, 1]), 2).float())
    assert TARGETS[2].sum(dim=1).tolist() == [1, 1, 0, 0, 1, 0]


def part_of_first_level(probabilities: list[list[float]]) -> Levels:
    """Logits of all levels, of which the first says this."""
    first = torch.tensor(probabilities).log()
    return (first, *(torch.zeros(len(first), size) for size in OUTPUTS.sizes[1:]))


def test_golden_the_coarse_prior_is_half_the_squared_distance_of_the_means() -> None:
    """Of the labels .4 are A and .6 B; the network says .7 and .3 in the mean: 20 / 2 x (.3^2 + .3^2) = 1.8."""
    prior = CoarsePrior.of(20.0, LABELS, OUTPUTS, torch.device("cpu"))
    assert prior is not None
    torch.testing.assert_close(prior.shares, torch.tensor([0.4, 0.6]))
    here = moment(part_of_first_level([[0.9, 0.1], [0.5, 0.5]]), 2, targets=tuple(level[:2] for level in TARGETS))

    assert prior(here.labelled, 2).item() == pytest.approx(1.8)
    # One of two portions, of as many images each, counts a half.
    assert prior(here.labelled, 4).item() == pytest.approx(0.9)


def test_the_coarse_prior_moves_the_mean_of_the_first_level_alone_and_of_labelled_images() -> None:
    logits = random_logits()
    with_prior = replace(supervised(), coarse_prior=CoarsePrior(torch.tensor([0.4, 0.6]), 5.0))
    loss = with_prior(moment(logits, 3)) - supervised()(moment(logits, 3))
    loss.backward()

    assert loss.item() == pytest.approx(
        2.5 * (logits[0][:3].softmax(dim=1).mean(dim=0) - torch.tensor([0.4, 0.6])).square().sum().item(), rel=1e-4
    )
    assert logits[0].grad is not None
    assert logits[0].grad[:3].abs().max() > 1e-3
    torch.testing.assert_close(logits[0].grad[3:], torch.zeros(3, 2))
    for level in logits[1:]:
        assert level.grad is not None
        torch.testing.assert_close(level.grad, torch.zeros_like(level))


def test_a_portion_without_labelled_images_has_no_coarse_prior_to_keep() -> None:
    found = CoarsePrior(torch.tensor([0.4, 0.6]), 5.0)(moment(random_logits(), 0).labelled, 6)

    assert found.item() == 0


def test_without_a_weight_there_is_no_coarse_prior() -> None:
    assert CoarsePrior.of(0.0, LABELS, OUTPUTS, torch.device("cpu")) is None


def test_a_schedule_moves_the_weights_of_the_levels_also_for_the_heap() -> None:
    logits = random_logits()
    given = replace(supervised(), level_weights=(1.0, 2.0, 1.0))
    moving = replace(given, level_schedule=lambda done, levels: (1 - done, done, 0.0) if levels == 3 else ())
    for done, weights in ((0.0, (1, 0, 0)), (0.25, (0.75, 0.5, 0)), (1.0, (0, 2, 0))):
        expected = replace(given, level_weights=weights)(moment(logits, 3))
        torch.testing.assert_close(moving(moment(logits, 3, done=done)), expected)


def test_a_schedule_of_levels_cannot_be_recorded() -> None:
    assert supervised().is_recordable
    assert not replace(supervised(), level_schedule=lambda done, levels: (1.0,) * levels).is_recordable
