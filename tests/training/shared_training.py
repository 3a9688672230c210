"""A few steps of a training, alone or as one of several processes: a script for tests/training/test_ranks.py.

Prints the loss of each step as JSON. The network has no batch normalisation, and no noise that is drawn per process.
"""

import json
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from fitting import supervised
from nstudent.config.schema import ModelConfig, NoiseConfig, TrainingConfig
from nstudent.data.batches import Examples
from nstudent.data.dataset import Dataset
from nstudent.distributed.ranks import connected, gathered_rows
from nstudent.distributed.world import Alone, World
from nstudent.labels.self_ensemble import RunningAverage
from nstudent.labels.targets import GivenTargets
from nstudent.models.device import Placement
from nstudent.models.network import build_network
from nstudent.progress import Silence
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.outputs import Outputs
from nstudent.training.build import Lesson, Site, build_loop
from nstudent.training.held_out import HeldOut
from nstudent.training.loop import Length, Loop
from nstudent.training.objective import CLEAN, SelfEnsembling

KEY = ("shared", 0)
NUM_LABELLED, NUM_HEAP = 7, 9
"""Neither divides by two."""


def make(dataset: Dataset, backbone: str, world: World) -> tuple[Loop, list[RunningAverage]]:
    """A training of the filter, and its running averages."""
    outputs = Outputs(dataset.taxonomy)
    labelled, heap = (
        Examples(ids, GivenTargets(dataset.labels[ids], outputs)) for ids in (dataset.labelled, dataset.unlabelled)
    )
    noise = NoiseConfig(flip=True, operations=1)
    averages = [RunningAverage(len(part.ids), outputs, 0.7) for part in (labelled, heap)]
    placement = Placement(torch.device("cpu"), "float32")
    held_out = HeldOut(
        RunningAverage(len(dataset.validation), outputs, 0.7),
        lambda rows: placement.images(torch.from_numpy(dataset.pixels[dataset.validation[rows]])),
        *(6 * 2, 2),
        KEY,
    )
    loss, gather = supervised(outputs, (1.0, 2.0, 1.0)), partial(gathered_rows, world)
    objective = SelfEnsembling(loss, *averages, 1.0, 0.3, held_out, gather=gather)
    averages.append(held_out.average)
    parts = [(labelled, NUM_LABELLED), (heap, NUM_HEAP)]
    network = build_network(ModelConfig(backbones=(backbone,)), outputs, KEY)
    config = TrainingConfig(batch_size=NUM_LABELLED, noise=noise, optimizer="sgd")
    site = Site(placement, dataset.pixels, dataset.taxonomy.levels, dataset.name, world=world)
    loop = build_loop(network, Lesson(parts, objective, Length(6, 2), views={CLEAN: None}), config, site, KEY)
    return loop, averages


def main(data: Path, scratch: Path, several: bool) -> None:
    torch.set_num_threads(1)
    dataset = Dataset(Artifact(data))
    with connected("cpu") if several else nullcontext(Alone()) as world:
        loop, averages = make(dataset, "test_convnext", world)
        trained = loop.fit(scratch / "checkpoint.safetensors", Silence(), "shared")
        if world.leads:
            average = [float(level.sum()) for part in averages for level in part.state_dict().values()]
            print(json.dumps({"losses": [entry["loss"] for entry in trained.history], "averages": average}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "several")
