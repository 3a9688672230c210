"""How fast this machine trains a network: a few steps of it, timed."""

from __future__ import annotations

import time

import numpy as np
import torch
from nstudent.config.schema import Config
from nstudent.models.device import Placement
from nstudent.models.network import build_network
from nstudent.randomness import generator
from nstudent.training.optimizer import build_optimizer
from nstudent.training.trial import Conditions, PlannedTraining

_STEPS = 3
_LEAST_SECONDS = 0.5
_MOST_STEPS = 50
_MOST_IMAGES = 128
"""Larger batches are timed by a part of them."""


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
    side = conditions.image_size
    pixels = torch.from_numpy(generator("pace").integers(0, 256, (batch, side, side, 3), dtype=np.uint8))

    def step() -> None:
        with placement.autocast(placed):
            levels = placed(placement.images(pixels))
        torch.stack([level.float().square().mean() for level in levels]).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        if placement.device.type == "cuda":
            torch.cuda.synchronize()

    with torch.random.fork_rng(devices=[]):
        step()  # The first one allocates, and chooses kernels.
        began, done = time.monotonic(), 0
        while done < _STEPS or (time.monotonic() - began < _LEAST_SECONDS and done < _MOST_STEPS):
            step()
            done += 1
    return (time.monotonic() - began) / (done * batch)
