"""How fast this machine trains a network, and computes what a probe reads: a few steps of it, timed."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from nstudent.config.members import ProbeConfig
from nstudent.config.schema import Config
from nstudent.models.device import Placement
from nstudent.models.network import build_network
from nstudent.models.probe import build_features
from nstudent.randomness import generator
from nstudent.training.optimizer import build_optimizer
from nstudent.training.trial import Conditions, PlannedTraining

_STEPS = 3
_LEAST_SECONDS = 0.5
_MOST_STEPS = 50
_ENOUGH_SECONDS = 5.0
"""Steps that take so long together are enough, be they fewer than ``_STEPS``: a busy machine is not waited for."""
_MOST_IMAGES = 128
"""Larger batches are timed by a part of them."""
_IMAGES_OF_A_PROBE = 16


def seconds_per_pass(planned: PlannedTraining, conditions: Conditions, config: Config) -> float:
    """Time that an image takes forward and backward through a network, with its share of the optimiser's step.

    The images are noise, and so are the weights: neither changes the time. Making the batches is not in it; a thread
    or processes do that meanwhile.

    Args:
        planned: The training that is asked about.
        conditions: Size of the images and outputs of the network.
        config: Configuration of the run: device, precision and threads are chosen by it.

    Raises:
        ConfigError: The network cannot be built, or the device is not there.
    """
    placement = Placement.from_config(config)
    noise = planned.training.noise
    network = build_network(
        planned.model,
        conditions.outputs,
        ("pace",),
        dropout=noise.dropout,
        drop_path=noise.drop_path,
        checkpointing=planned.training.checkpoint_activations,
        load_pretrained=False,
    )
    placed = placement.put(network).train()
    optimizer = build_optimizer(network, planned.training, placement.device)
    batch = min(_MOST_IMAGES, sum(planned.parts))
    pixels = _pixels(batch, conditions.image_size)

    def step() -> None:
        with placement.autocast(placed):
            levels = placed(placement.images(pixels))
        torch.stack([level.float().square().mean() for level in levels]).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        if placement.device.type == "cuda":
            torch.cuda.synchronize()

    with torch.random.fork_rng(devices=[]):
        return _seconds(step) / batch


def seconds_of_features(probe: ProbeConfig, image_size: int, config: Config) -> float:
    """Time that a probe takes to compute the features of an image; what it makes of them takes next to nothing.

    Args:
        probe: Settings of the probe.
        image_size: Side of the images, in pixels.
        config: Configuration of the run.

    Raises:
        ConfigError: A backbone cannot be built, or the device is not there.
    """
    placement = Placement.from_config(config)
    features = placement.put(build_features(probe, load_pretrained=False)).eval()
    pixels = _pixels(_IMAGES_OF_A_PROBE, image_size)

    def step() -> None:
        features(placement.images(pixels)).cpu()

    with torch.inference_mode():
        return _seconds(step) / _IMAGES_OF_A_PROBE


def _pixels(images: int, side: int) -> torch.Tensor:
    return torch.from_numpy(generator("pace").integers(0, 256, (images, side, side, 3), dtype=np.uint8))


def _seconds(step: Callable[[], None]) -> float:
    """Mean time of a step."""
    step()  # The first one allocates, and chooses kernels.
    began, done = time.monotonic(), 0
    while True:
        step()
        done += 1
        passed = time.monotonic() - began
        if passed >= _ENOUGH_SECONDS or (done >= _STEPS and (passed >= _LEAST_SECONDS or done >= _MOST_STEPS)):
            return passed / done
