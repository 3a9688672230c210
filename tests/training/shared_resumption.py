"""A filter's training in several processes, in one go and in two: a script for tests/training/test_ranks.py.

The network has batch normalisation, and each process sees its own images. Printed is, as JSON, how many numbers of the
weights and of the running averages there are, how many of them depend on the interruption, and whether every process
has the same ones.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from nstudent.data.dataset import Dataset
from nstudent.distributed.ranks import connected, gathered_rows
from nstudent.distributed.world import World
from nstudent.progress import Silence
from nstudent.storage.artifact import Artifact
from shared_training import make

INTERRUPTED_AFTER = 5

Trained = Callable[[Dataset, Path, World, Silence], torch.Tensor]
"""Trains to the end from a checkpoint, or from the beginning where there is none, and gives all numbers in one row."""


class Interrupted(Silence):
    """Progress that ends the training in every process after the same step."""

    def __init__(self) -> None:
        self._left = INTERRUPTED_AFTER

    def advance(self, amount: int, **shown: float) -> None:
        self._left -= amount
        if self._left == 0:
            raise KeyboardInterrupt


def trained(dataset: Dataset, checkpoint: Path, world: World, progress: Silence) -> torch.Tensor:
    loop, averages = make(dataset, "test_resnet", world)
    network = loop.fit(checkpoint, progress, "shared").network
    states = [network.state_dict(), *(part.state_dict() for part in averages)]
    return torch.cat([tensor.flatten().double() for state in states for tensor in state.values()])


def main(trained: Trained, data: Path, scratch: Path) -> None:
    """Print how a training in one go and one in two compare, and whether all processes have the same weights."""
    torch.set_num_threads(1)
    dataset = Dataset(Artifact(data))
    with connected("cpu") as world:
        whole = trained(dataset, scratch / "whole.safetensors", world, Silence())
        with suppress(KeyboardInterrupt):
            trained(dataset, scratch / "cut.safetensors", world, Interrupted())
        # The leader has written the checkpoint.
        world.agree()
        resumed = trained(dataset, scratch / "cut.safetensors", world, Silence())
        every = gathered_rows(world, resumed[None])
        if world.leads:
            different, alike = int((whole != resumed).sum()), bool((every == every[0]).all())
            print(json.dumps({"numbers": len(whole), "different": different, "alike": alike}))


if __name__ == "__main__":
    main(trained, Path(sys.argv[1]), Path(sys.argv[2]))
