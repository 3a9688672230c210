"""One network while it learns: its schedule, its average, numbers that are not finite, and what it costs."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fitting import LENGTH, MILD, fit, losses
from nstudent.config.schema import NoiseConfig
from nstudent.data.batches import Batch
from nstudent.data.dataset import Dataset
from nstudent.errors import TrainingError
from nstudent.models.cost import gmacs
from nstudent.models.heads import Logits
from nstudent.progress import Silence
from nstudent.training.loop import Length, Loop
from nstudent.training.objective import Moment

HEIGHT = 0.02


class Sick:
    """An objective that turns bad at its third step, and remembers the weights it saw there."""

    is_recordable = False
    average_passes = 0

    def __init__(self, cause: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.cause = cause
        self.member = None
        self.before = None
        self.calls = 0

    def __call__(self, moment: Moment) -> torch.Tensor:
        self.calls += 1
        healthy = moment.logits[0].square().mean()
        if self.calls < 3:
            return healthy
        self.before = {name: weight.detach().clone() for name, weight in self.member.named_parameters()}
        return self.cause(healthy)


@pytest.mark.parametrize(
    "cause",
    [
        lambda healthy: healthy * math.nan,
        lambda healthy: healthy * math.inf,
        # The root's slope at zero is infinite: the loss is a harmless 0, its gradient is not.
        lambda healthy: (healthy * 0).sqrt(),
    ],
    ids=["NaN", "infinite", "gradient alone"],
)
@pytest.mark.parametrize("clip_norm", [5.0, None])
def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_weights_take_it_in(
    cause: Callable[[torch.Tensor], torch.Tensor],
    clip_norm: float | None,
    make_loop: Callable[..., Loop],
    tmp_path: Path,
) -> None:
    objective = Sick(cause)
    loop = make_loop(Length(2, 4), MILD, objective=objective, clip_norm=clip_norm)
    objective.member = loop.method.network
    said = r"not a finite number in the \w+.* at step 2 .*8 of 8 images: .*learning_rate"
    with pytest.raises(TrainingError, match=said):
        fit(loop, tmp_path)
    after = dict(loop.method.network.named_parameters())
    assert objective.before
    assert all(torch.equal(weight, after[name]) for name, weight in objective.before.items())


@pytest.mark.parametrize("num_portions", [1, 3])
def test_the_images_whose_numbers_are_not_finite_are_named(
    num_portions: int,
    make_loop: Callable[..., Loop],
    digits: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = make_loop(Length(1, 3), MILD, self_ensemble=True)
    loop.method.gradient.num_portions = num_portions
    believed = loop.feed.batches.ids(1)
    poisoned, level = (2, 13), 1

    def load(first: int, last: int, *_: object, **__: object) -> Iterator[Batch]:
        for step in range(first, last):
            batch = loop.feed.batches[step]
            if step == 1:
                batch.targets[level][list(poisoned)] = math.nan
            yield batch

    monkeypatch.setattr(loop.feed.batches, "load", load)
    with pytest.raises(TrainingError) as caught:
        fit(loop, tmp_path)
    names = ", ".join(digits.name(believed[place]) for place in poisoned)
    assert f"in level {digits.taxonomy.levels[level]} at step 1 " in str(caught.value)
    assert f"2 of 16 images: {names})" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("warmup_steps", [0, 5, 10])
def test_a_warm_up_rises_and_then_a_cosine_falls_to_zero(
    warmup_steps: int, make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    # One step an epoch: the history then shows every step's rate.
    loop = make_loop(Length(25, 1), MILD, learning_rate=HEIGHT, warmup_epochs=warmup_steps)
    rates = [entry["learning_rate"] for entry in fit(loop, tmp_path).history]
    assert rates[0] == pytest.approx(0.01 * HEIGHT if warmup_steps else HEIGHT)
    assert rates[warmup_steps] == pytest.approx(HEIGHT * (1 + math.cos(math.pi * warmup_steps / 25)) / 2, rel=1e-3)
    assert max(rates) <= HEIGHT
    assert rates[-1] < 0.02 * HEIGHT
    rising, falling = np.diff(rates[:warmup_steps]), np.diff(rates[warmup_steps:])
    assert (rising > 0).all()
    assert (falling < 0).all()


@pytest.mark.slow
def test_the_length_of_a_warm_up_is_counted_in_epochs(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    loop = make_loop(Length(3, 3), MILD, learning_rate=HEIGHT, warmup_epochs=2)
    rates = [entry["learning_rate"] for entry in fit(loop, tmp_path).history]
    # The history shows the rate of the last step of an epoch. The warm-up takes the steps 0 to 5.
    assert rates[:2] == pytest.approx([HEIGHT * (0.01 + 0.99 * step / 6) for step in (2, 5)])
    assert rates[2] == pytest.approx(HEIGHT * (1 + math.cos(math.pi * 8 / 9)) / 2)


def test_all_steps_but_the_last_one_can_be_warm_up(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    loop = make_loop(Length(4, 1), MILD, learning_rate=HEIGHT, warmup_epochs=50)
    rates = [entry["learning_rate"] for entry in fit(loop, tmp_path).history]
    assert rates[:3] == pytest.approx([HEIGHT * (0.01 + 0.99 * step / 3) for step in range(3)])
    assert rates[3] == pytest.approx(HEIGHT * (1 + math.cos(math.pi * 3 / 4)) / 2)


def test_a_training_that_is_all_warm_up_still_trains(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    trained = fit(make_loop(Length(1, 2), MILD, warmup_epochs=50), tmp_path)
    assert math.isfinite(losses(trained)[0])


def test_what_is_kept_is_the_average_and_not_the_last_weights(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    """After one step the average is 2/11 start and 9/11 new weights: its decay is min(decay, (1 + t) / (10 + t))."""
    loop = make_loop(Length(1, 1), MILD, warmup_epochs=0, ema_decay=0.9)
    start = {name: weight.detach().clone() for name, weight in loop.method.network.named_parameters()}
    average = dict(fit(loop, tmp_path).network.named_parameters())
    moved = 0
    for name, weight in loop.method.network.named_parameters():
        torch.testing.assert_close(average[name], 2 / 11 * start[name] + 9 / 11 * weight)
        moved += int(not torch.equal(start[name], weight))
    assert moved > 10


def test_the_average_is_float32_and_comes_back_ready_to_label(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    network = fit(make_loop(Length(1, 1)), tmp_path).network
    assert not network.training
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize(("self_ensemble", "images", "forwards"), [(False, 8, 3), (True, 16, 4)])
def test_what_a_training_costs_is_counted_also_when_it_was_interrupted(
    self_ensemble: bool,
    images: int,
    forwards: int,
    make_loop: Callable[..., Loop],
    kill_after: Callable[[int], Silence],
    tmp_path: Path,
) -> None:
    """The self-ensemble's loss asks the averaged network as well, without gradient."""
    with pytest.raises(KeyboardInterrupt):
        fit(make_loop(LENGTH, self_ensemble=self_ensemble), tmp_path, kill_after(7))
    loop = make_loop(LENGTH, self_ensemble=self_ensemble)
    spent = fit(loop, tmp_path).spent
    assert spent.image_passes == LENGTH.steps * images
    one = gmacs([loop.method.network], 32)
    assert spent.training_gmacs == pytest.approx(LENGTH.steps * images * forwards * one)


@pytest.mark.slow
def test_activations_that_are_computed_twice_cost_a_forward_pass_more(
    make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    plain, again = (make_loop(LENGTH, checkpoint_activations=twice) for twice in (False, True))
    costs = [fit(loop, tmp_path / name).spent for loop, name in ((plain, "once"), (again, "twice"))]
    assert costs[0].image_passes == costs[1].image_passes
    assert costs[1].training_gmacs == pytest.approx(costs[0].training_gmacs * 4 / 3)


@pytest.mark.slow
def test_sizes_and_noise_may_follow_how_far_a_training_is(
    make_loop: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Half of the steps on images of half the side, which the mean teacher of a filter sees at that size, too."""
    asked, sides = [], []

    def weakened(noise: NoiseConfig, done: float) -> NoiseConfig:
        asked.append(done)
        return noise if done >= 0.5 else NoiseConfig(shift=0, zoom=0, rotate=0)

    def side_at(done: float) -> int:
        return 32 if done >= 0.5 else 16

    loop = make_loop(LENGTH, self_ensemble=True, lesson={"weakened": weakened, "side_at": side_at})
    believe = loop.method.gradient._believe

    def watched(images: torch.Tensor) -> Logits:
        # Not the held-out images, which are fewer.
        if len(images) == 16:
            sides.append(images.shape[-1])
        return believe(images)

    monkeypatch.setattr(loop.method.gradient, "_believe", watched)
    trained = fit(loop, tmp_path)
    assert sides == [16] * 6 + [32] * 6
    assert {0.0, 0.5} <= set(asked)
    small, large = (gmacs([loop.method.network], side) for side in (16, 32))
    # Forward and backward are three passes, and the mean teacher is one.
    assert trained.spent.training_gmacs == pytest.approx(6 * 16 * 4 * (small + large))


@pytest.mark.gpu
def test_what_is_not_finite_is_left_out_by_the_gpu_and_named_later(
    make_loop: Callable[..., Loop], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(Length(1, 40), MILD, device="cuda", checkpoint_seconds=1e9)
    place, level = 3, 1
    load = loop.feed.batches.load

    def poisoned(first: int, last: int, *arguments: Any, **words: Any) -> Iterator[Batch]:
        for step, batch in enumerate(load(first, last, *arguments, **words), first):
            if step == 5:
                batch.targets[level][place] = math.nan
            yield batch

    monkeypatch.setattr(loop.feed.batches, "load", poisoned)
    name = digits.name(loop.feed.batches.ids(5)[place])
    with pytest.raises(TrainingError, match=f"in level {digits.taxonomy.levels[level]} at step 5 .*1 of 8 .*{name}"):
        fit(loop, tmp_path)
    assert all(weight.isfinite().all() for weight in loop.method.network.parameters())
