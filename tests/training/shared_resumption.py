"""A filter's training in several processes, in one go and in two: a script for tests/training/test_ranks.py.

The network has batch normalisation, and each process sees its own images. Printed is, as JSON, how many numbers of the
weights and of the running averages there are, and how many of them depend on the interruption.
"""

import json
import sys
from contextlib import suppress
from pathlib import Path

import torch
from nstudent.data.dataset import Dataset
from nstudent.distributed.ranks import connected
from nstudent.distributed.world import World
from nstudent.progress import Silence
from nstudent.storage.artifact import Artifact
from shared_training import make

INTERRUPTED_AFTER = 5


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


def main(data: Path, scratch: Path) -> None:
    torch.set_num_threads(1)
    dataset = Dataset(Artifact(data))
    with connected("cpu") as world:
        whole = trained(dataset, scratch / "whole.safetensors", world, Silence())
        with suppress(KeyboardInterrupt):
            trained(dataset, scratch / "cut.safetensors", world, Interrupted())
        # The leader has written the checkpoint.
        world.agree()
        resumed = trained(dataset, scratch / "cut.safetensors", world, Silence())
        if world.leads:
            print(json.dumps({"numbers": len(whole), "different": int((whole != resumed).sum())}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
