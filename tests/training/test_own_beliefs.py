"""A student that goes on learning: what its own beliefs make of a batch, and that nothing is lost when it is killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from fitting import LENGTH, MILD, bytes_of, check_goes_on, fit, losses
from nstudent.config.schema import ConsistencyConfig
from nstudent.config.training import NoiseConfig
from nstudent.data.batches import Batch
from nstudent.data.dataset import Dataset
from nstudent.distributed.world import Alone
from nstudent.errors import TrainingError
from nstudent.labels.targets import GivenTargets
from nstudent.models.cost import gmacs
from nstudent.models.device import Placement
from nstudent.models.heads import Logits
from nstudent.noise.steps import Mixture, Prepared
from nstudent.progress import Silence
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from nstudent.training.loop import Length, Loop, Trained
from nstudent.training.own_beliefs import WEAK, OwnBeliefs, weak_noise
from torchrun_processes import said, torchrun

AT_ONCE = ConsistencyConfig(begins=0.0, full=0.01)
"""Own beliefs in full from the second step on."""
TAXONOMY = Taxonomy.from_tree({"A": ["a", "b"], "B": ["c"]}, ("coarse", "fine"))
OUTPUTS = Outputs(TAXONOMY)
LABELS = np.array([[0, 0], [1, 2], [0, 1], [1, 2], [0, -2]], dtype=np.int32)
"""Of two labelled images and of three of the heap: the last one has no fine label."""
CERTAIN = (torch.tensor([[9.0, 0.0]] * 3), torch.tensor([[0.0, 9.0, 0.0]] * 3))
"""Logits of three images that are all A/b."""


def beliefs(**changed: object) -> OwnBeliefs:
    config = AT_ONCE.model_copy(update={"align": False, "sigmas": 0.0, **changed})
    return OwnBeliefs(config, OUTPUTS, LABELS[:2], Placement(torch.device("cpu"), "float32"), Alone())


def batch_of(labels: np.ndarray = LABELS, num_labelled: int = 2) -> Prepared:
    """A batch whose weak view is full of the number of the image in it."""
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 8, 8, 3)
    targets = tuple(map(torch.from_numpy, GivenTargets(labels, OUTPUTS)(np.arange(len(labels)))))
    counts = num_labelled, len(labels) - num_labelled
    batch = Batch(255 - images, targets, num_labelled, torch.arange(len(labels)), counts, {WEAK: images})
    whole = tuple(torch.stack([level[:num_labelled].sum(0), level[num_labelled:].sum(0)]) for level in targets)
    return Prepared(batch, batch.images.permute(0, 3, 1, 2) / 255, targets, whole)


def certain(images: torch.Tensor) -> Logits:
    return tuple(level[: len(images)] for level in CERTAIN)


def test_the_weak_view_has_a_share_of_the_moves_and_no_other_noise() -> None:
    full = NoiseConfig(shift=0.1, zoom=0.2, rotate=8, flip=True, operations=2, erase=0.5, cutout=0.5, cutmix=1)
    assert weak_noise(full, 0.5) == NoiseConfig(shift=0.05, zoom=0.1, rotate=4, flip=True)
    assert weak_noise(full, 0.0) == NoiseConfig(shift=0, zoom=0, rotate=0, flip=True)


@pytest.mark.parametrize(("done", "share"), [(0, 0), (0.3, 0), (0.4, 0.2), (0.5, 0.4), (0.7, 0.8), (0.99, 0.8)])
def test_golden_the_share_rises_in_a_straight_line(done: float, share: float) -> None:
    assert beliefs(begins=0.3, full=0.7, share=0.8).share_at(done) == pytest.approx(share)


def test_until_it_begins_the_batch_is_left_as_it_is_and_nobody_is_asked() -> None:
    def nobody(images: torch.Tensor) -> Logits:
        raise AssertionError("the averaged network was asked")

    seen, own = batch_of(), beliefs(begins=0.3, full=0.7)
    left = own.revise(seen, 0.3, nobody)
    assert replace(left, batch=seen.batch) == seen
    assert (own.num_believed(seen, 0.3), own.num_believed(seen, 0.31)) == (0, 3)


@pytest.mark.parametrize("done", [0.3, 1.0])
def test_the_weak_view_goes_no_further_and_other_views_do(done: float) -> None:
    """Else every step would make floats of it for nothing, and one that a GPU repeats keep it in its memory."""
    seen = batch_of()
    seen = replace(seen, batch=replace(seen.batch, views={"clean": seen.batch.images, **seen.batch.views}))
    assert list(beliefs(begins=0.3, full=0.7).revise(seen, done, certain).batch.views) == ["clean"]
    assert WEAK in seen.batch.views


def test_golden_certain_beliefs_take_the_place_of_the_labels_of_the_heap_by_their_share() -> None:
    seen = batch_of()
    found = beliefs(begins=0.0, full=1.0).revise(seen, 0.75, certain)
    coarse, fine = found.targets
    assert torch.equal(coarse[:2], seen.targets[0][:2]), "labelled images keep what people have said"
    # Paths by their geometric mean, to the power of two: A/a e^9, A/b e^18, B/c 1.
    z = np.exp(9) + np.exp(18) + 1
    a, b, c = (0.75 * np.array([np.exp(9), np.exp(18), 1]) / z).tolist()
    torch.testing.assert_close(coarse[2:], torch.tensor([[a + b + 0.25, c], [a + b, c + 0.25], [a + b + 0.25, c]]))
    # The third has no fine label, so that nothing is there beside the belief.
    torch.testing.assert_close(fine[2:], torch.tensor([[a, b + 0.25, c], [a, b, c + 0.25], [a, b, c]]))


def test_the_averaged_network_is_shown_the_weak_view_of_the_heap_alone_at_the_size_of_the_batch() -> None:
    shown: list[torch.Tensor] = []

    def believe(images: torch.Tensor) -> Logits:
        shown.append(images)
        return certain(images)

    seen = batch_of()
    beliefs().revise(replace(seen, images=seen.images[..., ::2, ::2]), 0.5, believe)
    assert [images.shape for images in shown] == [(3, 3, 4, 4)]
    torch.testing.assert_close(shown[0].mean(dim=(1, 2, 3)), torch.tensor([2.0, 3.0, 4.0]) / 255)


def test_mass_is_summed_anew_and_mixed_as_the_images_were() -> None:
    seen, mixture = batch_of(), Mixture(torch.tensor([1, 0, 3, 4, 2]), 0.25)
    plain = beliefs().revise(seen, 0.5, certain)
    mixed = beliefs().revise(replace(seen, mixture=mixture, targets=mixture.of(seen.targets)), 0.5, certain)
    for number, (level, together, whole) in enumerate(zip(plain.targets, mixed.targets, mixed.whole_mass, strict=True)):
        torch.testing.assert_close(together, 0.75 * level + 0.25 * level[mixture.partner])
        torch.testing.assert_close(whole[1], level[2:].sum(dim=0))
        assert torch.equal(whole[0], seen.whole_mass[number][0])


def test_unsure_beliefs_leave_the_stored_label_more_of_its_place() -> None:
    unsure = tuple(torch.cat([level[:2], 0.1 * level[2:]]) for level in CERTAIN)
    seen = batch_of()
    coarse, _ = beliefs(sigmas=2.0).revise(seen, 0.5, lambda images: unsure).targets
    every, _ = beliefs(sigmas=0.0).revise(seen, 0.5, lambda images: unsure).targets
    torch.testing.assert_close(coarse[2:4], every[2:4], atol=1e-3, rtol=0)
    # The label is A, as is the belief, which is not sure of it: .89 alone, and more with the label beside it.
    assert coarse[4, 0] > every[4, 0] + 0.05


def test_an_image_whose_coarse_class_is_unsure_teaches_no_more_below_it() -> None:
    """The last one is A/a or B/c, and the others A: at the fine level alone it is surer than they are."""
    doubtful = (
        torch.tensor([[9.0, -9.0], [9.0, -9.0], [0.0, 0.0]]),
        torch.tensor([[0.0, 0.0, -9.0], [0.0, 0.0, -9.0], [0.2, -9.0, 0.0]]),
    )
    coarse, fine = beliefs(sigmas=2.0).revise(batch_of(), 0.5, lambda images: doubtful).targets
    assert 0.01 < fine[4, 2] <= coarse[4, 1] + 1e-6


def test_beliefs_in_a_class_that_is_believed_too_often_are_drawn_back() -> None:
    """Labels are half A and half B, and the network believes in A alone: from the second step on A loses."""
    doubtful = (torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[1.0, 0.0, 0.0]] * 3))
    own, plain = beliefs(align=True), beliefs()
    first, second = (own.revise(batch_of(), 0.5, lambda images: doubtful).targets[0][3, 0] for _ in range(2))
    torch.testing.assert_close(first, plain.revise(batch_of(), 0.5, lambda images: doubtful).targets[0][3, 0])
    assert second < first - 0.1


def test_no_gradient_flows_into_beliefs() -> None:
    believed = tuple(level.clone().requires_grad_() for level in CERTAIN)
    found = beliefs(align=True, sigmas=2.0).revise(batch_of(), 0.5, lambda images: believed)
    assert not any(level.requires_grad for level in (*found.targets, *found.whole_mass))


def test_where_memory_is_short_the_averaged_network_looks_at_pieces() -> None:
    looked: list[int] = []

    def small(images: torch.Tensor) -> Logits:
        looked.append(len(images))
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return certain(images)

    own = beliefs()
    found = own.revise(batch_of(), 0.5, small)
    assert looked == [3, 2, 1, 1, 1]
    for ours, whole in zip(found.targets, beliefs().revise(batch_of(), 0.5, certain).targets, strict=True):
        assert torch.equal(ours, whole)

    def never(images: torch.Tensor) -> Logits:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(TrainingError, match="one image of 8 px does not fit"):
        own.revise(batch_of(), 0.5, never)


def test_golden_an_epoch_says_share_weight_and_agreement_and_the_next_begins_anew() -> None:
    own = beliefs(begins=0.0, full=1.0)
    own.revise(batch_of(), 0.0, certain)
    assert own.epoch_figures() == {"own_share": 0.0}
    for done in (0.25, 0.75):
        own.revise(batch_of(), done, certain)
    # All are A/b: the first and the third are labelled so as deep as their label goes, the second is not.
    assert own.epoch_figures() == pytest.approx({"own_share": 0.5, "own_weight": 1.0, "own_agreement": 2 / 3})
    assert own.epoch_figures() == {"own_share": 0.0}


def test_a_process_without_an_image_of_the_heap_goes_along() -> None:
    seen = batch_of(LABELS[:2])
    alone = replace(seen, batch=replace(seen.batch, whole_images=(2, 3)))
    found = beliefs(align=True, sigmas=2.0).revise(alone, 0.5, certain)
    assert all(torch.equal(ours, given) for ours, given in zip(found.targets, seen.targets, strict=True))


@pytest.fixture(scope="module")
def whole(make_loop: Callable[..., Loop], tmp_path_factory: pytest.TempPathFactory) -> tuple[Loop, Trained]:
    """A training that nobody interrupts."""
    loop = make_loop(LENGTH, own_beliefs=AT_ONCE)
    return loop, fit(loop, tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", [1, 2, 6, 9, 12], ids=lambda steps: f"killed in step {steps} of 12")
def test_a_killed_training_goes_on_to_the_same_bits(
    killed_after: int,
    whole: tuple[Loop, Trained],
    make_loop: Callable[..., Loop],
    kill_after: Callable[[int], Silence],
    tmp_path: Path,
) -> None:
    """Weak views, running means, the average of the weights and the figures of an epoch that is half over."""
    make = partial(make_loop, LENGTH, own_beliefs=AT_ONCE)
    resumed = check_goes_on(make, kill_after(killed_after), tmp_path, whole, killed_after)
    assert bytes_of(resumed.method.network) == bytes_of(whole[0].method.network)
    ours, theirs = (each.method.state_dict()["revision"]["moments"] for each in (resumed, whole[0]))
    assert all(torch.equal(ours[name], theirs[name]) for name in ("said", "confidence"))


@pytest.mark.slow
def test_own_beliefs_change_what_is_learnt_and_are_counted_as_passes_forward(
    whole: tuple[Loop, Trained], make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    late = fit(make_loop(LENGTH, own_beliefs=ConsistencyConfig(begins=0.95, full=1.0)), tmp_path)
    loop, trained = whole
    assert trained.history != late.history
    one = gmacs([loop.method.network], 32)
    assert trained.spent.image_passes == late.spent.image_passes == 12 * 16
    assert late.spent.training_gmacs == pytest.approx(12 * 16 * 3 * one)
    # Of the heap's eight images, at every step but the first.
    assert trained.spent.training_gmacs == pytest.approx((12 * 16 * 3 + 11 * 8) * one)
    assert [entry["own_share"] for entry in trained.history] == [0.75, 1.0, 1.0]
    assert all(0 < entry["own_weight"] < 1 and 0 <= entry["own_agreement"] < 1 for entry in trained.history)
    assert [entry["own_share"] for entry in late.history] == [0, 0, 0]


@pytest.mark.slow
def test_until_they_count_own_beliefs_change_no_bit(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    never = ConsistencyConfig(begins=0.95, full=1.0)
    with_them = make_loop(LENGTH, own_beliefs=never)
    without = make_loop(LENGTH, own_beliefs=never, lesson={"revision": None, "views": {}})
    ours, theirs = fit(with_them, tmp_path / "with"), fit(without, tmp_path / "without")
    assert losses(ours) == losses(theirs)
    assert bytes_of(ours.network) == bytes_of(theirs.network)


@pytest.mark.slow
def test_portions_learn_from_the_same_beliefs(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    """Beliefs are those of the whole batch. Batch normalisation sees a portion at a time, so bits are not the same."""
    calm = NoiseConfig(shift=0, zoom=0, rotate=0, cutmix=0.5, cutmix_schedule="constant")
    one, two = (make_loop(Length(3, 1), calm, own_beliefs=AT_ONCE) for _ in range(2))
    two.method.gradient.num_portions = 2
    np.testing.assert_allclose(losses(fit(two, tmp_path / "two")), losses(fit(one, tmp_path / "one")), rtol=0.1)


@pytest.mark.slow
def test_in_bfloat16_it_trains_and_beliefs_are_float32(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    loop = make_loop(LENGTH, MILD, own_beliefs=AT_ONCE, placement=Placement(torch.device("cpu"), "bfloat16"))
    trained = fit(loop, tmp_path)
    assert all(np.isfinite(loss) for loss in losses(trained))
    moments = loop.method.state_dict()["revision"]["moments"]
    assert {moments[name].dtype for name in ("said", "confidence")} == {torch.float32}


@pytest.mark.slow
def test_two_processes_believe_what_one_does(digits: Dataset, tmp_path: Path) -> None:
    """Running means, sums of mass and the figures of the epochs are those of the whole batch."""
    script, data = Path(__file__).with_name("shared_beliefs.py"), digits.pixels._shards[0].parent
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = said(script, data, tmp_path / "one", "alone")
    two = said(*torchrun(2), script, data, tmp_path / "two", "several")
    assert one["history"][-1]["own_share"] == 1
    for ours, theirs in zip(two["history"], one["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    np.testing.assert_allclose(two["moments"], one["moments"], rtol=1e-4, atol=1e-6)
