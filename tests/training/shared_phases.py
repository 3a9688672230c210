"""A training in phases by several processes, in one go and in two: a script for tests/training/test_phases.py.

What is printed is what ``shared_resumption`` prints, of the weights.
"""

import sys
from pathlib import Path

import torch
from fitting import supervised
from nstudent.config.schema import ModelConfig, TrainingConfig
from nstudent.data.batches import Examples
from nstudent.data.dataset import Dataset
from nstudent.distributed.world import World
from nstudent.labels.targets import GivenTargets
from nstudent.models.device import Placement
from nstudent.models.network import build_network
from nstudent.progress import Silence
from nstudent.taxonomy.outputs import Outputs
from nstudent.training.build import Lesson, Site, build_loop
from nstudent.training.growth import Growth
from nstudent.training.loop import Length
from shared_resumption import main
from torch import nn

KEY = ("phases", 0)
LENGTH = Length(3, 2)
"""The process is interrupted after five steps, of which the last one is the first of the finish."""


def score(network: nn.Module) -> float:
    return float(next(network.parameters()).detach().sum().sin())


def trained(dataset: Dataset, checkpoint: Path, world: World, progress: Silence) -> torch.Tensor:
    outputs = Outputs(dataset.taxonomy)
    labelled = Examples(dataset.labelled, GivenTargets(dataset.labels[dataset.labelled], outputs))
    config = TrainingConfig(
        batch_size=8, train_image_size=24, finish_epochs=1, clip="agc", schedule="plateau", plateau_patience=0
    )
    growth = Growth.of(config, 32, LENGTH.epochs, LENGTH.steps_per_epoch)
    placement = Placement(torch.device("cpu"), "float32")
    site = Site(placement, dataset.pixels, dataset.taxonomy.levels, dataset.name, world=world)
    lesson = Lesson(
        [(labelled, 8)], supervised(outputs, (1.0, 1.0, 1.0)), LENGTH, weakened=growth.weakened, side_at=growth.side_at
    )
    loop = build_loop(build_network(ModelConfig(), outputs, KEY), lesson, config, site, KEY)
    network = loop.fit(checkpoint, progress, "shared", score).network
    return torch.cat([tensor.flatten().double() for tensor in network.state_dict().values()])


if __name__ == "__main__":
    main(trained, Path(sys.argv[1]), Path(sys.argv[2]))
