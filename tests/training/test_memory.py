"""What a training does where memory ends, and what it leaves when it is over."""

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fitting import LENGTH, MILD, bytes_of, fit, losses
from nstudent.config.schema import NoiseConfig
from nstudent.errors import TrainingError
from nstudent.noise.build import Noise
from nstudent.training.loop import Length, Loop, Trained
from torch import nn


class OutOfMemory:
    """A network's first layer refuses more images than a small device would hold."""

    def __init__(self, loop: Loop, most: int) -> None:
        self.handle = loop.method.network.backbones[0].register_forward_pre_hook(self.refuse)
        self.most = most

    def refuse(self, _module: nn.Module, images: tuple[torch.Tensor, ...]) -> None:
        if len(images[0]) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def refuse_once(self, _module: nn.Module, features: tuple[torch.Tensor, ...]) -> None:
        refused, self.refused = getattr(self, "refused", False), True
        if not refused:
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.slow
@pytest.mark.parametrize("self_ensemble", [False, True], ids=["supervised", "self-ensembling"])
def test_a_batch_that_does_not_fit_is_worked_on_in_portions_with_the_same_loss(
    self_ensemble: bool, make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    calm = NoiseConfig(shift=0, zoom=0, rotate=0)
    whole = fit(make_loop(Length(2, 1), calm, self_ensemble=self_ensemble), tmp_path / "whole")
    said = []
    loop = make_loop(Length(2, 1), calm, self_ensemble=self_ensemble, say=said.append)
    OutOfMemory(loop, most=4)
    parts = fit(loop, tmp_path / "parts")
    assert said[-1].endswith(f"in {4 if self_ensemble else 2} portions from here on")
    # Batch normalisation sees a portion at a time, so the bits are not the same; the loss and its scale are.
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=0.1)


def test_where_not_even_one_image_fits_it_says_what_would(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    loop = make_loop(Length(2, 1), MILD)
    OutOfMemory(loop, most=0)
    with pytest.raises(TrainingError, match=r"one image of 32 px does not fit in the memory of cpu.*image_size=16"):
        fit(loop, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("self_ensemble", [False, True], ids=["supervised", "self-ensembling"])
def test_a_training_that_is_over_keeps_no_weight_alive(
    self_ensemble: bool, make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    """On a GPU memory would otherwise be taken until Python counts enough objects to look for circles of them."""
    loop = make_loop(Length(1, 2), MILD, self_ensemble=self_ensemble)
    weights = weakref.ref(next(loop.method.network.parameters()))
    gc.collect()
    gc.disable()
    try:
        fit(loop, tmp_path)
        del loop
        assert weights() is None
    finally:
        gc.enable()


class ShortOfMemory:
    """An optimiser's step that finds no memory for its moments, so often."""

    def __init__(self, loop: Loop, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        optimizer = loop.method.optimizer
        self.step, self.left, self.optimizer = optimizer.step, times, optimizer
        monkeypatch.setattr(optimizer, "step", self)

    def __call__(self) -> None:
        if self.left:
            self.left -= 1
            # As torch leaves it: half a state of the first weight.
            weight = self.optimizer.param_groups[0]["params"][0]
            self.optimizer.state[weight]["step"] = torch.zeros(())
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.step()


@pytest.mark.slow
def test_an_optimiser_without_memory_for_its_moments_tries_again(
    uninterrupted: dict[bool, tuple[Loop, Trained]],
    make_loop: Callable[..., Loop],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = make_loop(LENGTH)
    ShortOfMemory(loop, monkeypatch, times=1)
    trained = fit(loop, tmp_path)
    assert bytes_of(trained.network) == bytes_of(uninterrupted[False][1].network)


@pytest.mark.parametrize(("first", "said"), [(True, "twice that of the weights"), (False, "a step of the optimiser")])
def test_an_optimiser_that_never_has_the_memory_says_so(
    first: bool, said: str, make_loop: Callable[..., Loop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(LENGTH)
    if not first:
        loop.take(next(loop.feed.between(0, 1)))
    ShortOfMemory(loop, monkeypatch, times=9)
    with pytest.raises(TrainingError, match=f"(?s)no memory for .*{said}|{said}"):
        fit(loop, tmp_path)


def test_noise_without_memory_says_what_to_lower(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    loop = make_loop(LENGTH)

    def noise(images: torch.Tensor, step: range) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    loop.feed.preparation._noise = Noise(pixels=(noise,))
    with pytest.raises(TrainingError, match=r"no memory to noise a batch of 8 images.*lower batch_size"):
        fit(loop, tmp_path)


def test_activations_are_let_go_before_the_batch_is_tried_in_portions(
    make_loop: Callable[..., Loop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an error is handled, its traceback holds all that the forward pass has made: nothing could be freed."""
    loop = make_loop(Length(1, 1), MILD)
    activations, alive = [], []

    def remember(_module: nn.Module, _images: tuple[torch.Tensor, ...], features: torch.Tensor) -> None:
        activations.append(weakref.ref(features))

    loop.method.network.backbones[0].register_forward_hook(remember)
    loop.method.network.head.register_forward_pre_hook(OutOfMemory(loop, most=8).refuse_once)
    forget = loop.method.gradient._forget_step

    def forgetting() -> None:
        alive.extend(each() is not None for each in activations)
        forget()

    monkeypatch.setattr(loop.method.gradient, "_forget_step", forgetting)
    fit(loop, tmp_path)
    assert alive == [False]


@pytest.mark.slow
def test_what_a_batch_has_taught_before_it_is_cut_is_forgotten(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    """Memory may run out at a later portion: the images of those before it would count twice."""
    averages = []
    for runs_out in (False, True):
        loop = make_loop(Length(1, 1), MILD, self_ensemble=True)
        loop.method.gradient.num_portions = 2 if runs_out else 4
        calls = iter([False, runs_out])

        def refuse(_module: nn.Module, _images: tuple[torch.Tensor, ...], calls: Iterator[bool] = calls) -> None:
            if next(calls, False):
                raise torch.OutOfMemoryError("CUDA out of memory")

        loop.method.network.backbones[0].register_forward_pre_hook(refuse)
        fit(loop, tmp_path / str(runs_out))
        assert loop.method.gradient.num_portions == 4
        averages.append(loop.method.objective.state_dict())
    assert averages[0].keys() == averages[1].keys()
    for name, average in averages[0].items():
        assert torch.equal(average, averages[1][name]), name


@pytest.mark.parametrize(("mode", "given"), [("none", [False] * 3), ("reduce-overhead", [True] * 3)])
def test_under_cuda_graphs_portions_are_added_up_in_memory_of_their_own(
    mode: str, given: list[bool], make_loop: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(Length(1, 1), MILD)
    gradient = loop.method.gradient
    gradient.num_portions = 3
    monkeypatch.setattr(gradient, "_placement", replace(gradient._placement, compile_mode=mode))
    backward, before = gradient._backward, []
    weights = list(loop.method.network.parameters())

    def watched(*arguments: Any) -> Any:
        before.append(all(weight.grad is not None for weight in weights))
        return backward(*arguments)

    monkeypatch.setattr(gradient, "_backward", watched)
    prepared = loop.feed.between(0, 1)
    loop.take(next(prepared))
    prepared.close()
    assert before[0] is given[0]
    assert all(before[1:])
    gradient.num_portions = 1
    gradient.clear()
    assert all(weight.grad is None for weight in weights), "a whole batch has nothing to add to"


def test_mixing_without_memory_says_what_to_lower(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    loop = make_loop(LENGTH)

    def mixing(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    loop.feed.preparation._noise = Noise(batch=(mixing,))
    with pytest.raises(TrainingError, match=r"no memory to noise a batch of 8 images.*lower batch_size"):
        fit(loop, tmp_path)


@pytest.mark.gpu
def test_a_gpu_gives_back_the_memory_of_a_training(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    fit(make_loop(Length(1, 2), MILD, device="cuda"), tmp_path / "first")
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    gc.disable()
    try:
        fit(make_loop(Length(1, 2), MILD, device="cuda"), tmp_path / "second")
        assert torch.cuda.memory_allocated() <= before
    finally:
        gc.enable()


@pytest.mark.gpu
def test_a_batch_beyond_a_gpus_memory_is_worked_on_in_portions(make_loop: Callable[..., Loop], tmp_path: Path) -> None:
    said = []
    loop = make_loop(Length(1, 2), MILD, device="cuda", say=said.append)
    hog = loop.method.network.backbones[0]

    def grab(_module: nn.Module, images: tuple[torch.Tensor, ...]) -> None:
        # As much as no GPU has, but for a few images.
        if len(images[0]) > 2:
            torch.empty(1 << 44, dtype=torch.uint8, device="cuda")

    hog.register_forward_pre_hook(grab)
    fit(loop, tmp_path)
    assert said[-1].endswith("in 4 portions from here on")
