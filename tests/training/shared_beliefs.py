"""A few steps of a student that goes on learning, alone or as one of several processes: for test_own_beliefs.py.

Prints the epochs and the running means of its beliefs as JSON. The network has no batch normalisation, and no noise
that is drawn per process; the heap's part of a batch does not divide by two.
"""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from fitting import labels_and_heap, supervised
from nstudent.config.schema import ConsistencyConfig, ModelConfig, NoiseConfig, TrainingConfig
from nstudent.data.dataset import Dataset
from nstudent.distributed.ranks import connected
from nstudent.distributed.world import Alone, World
from nstudent.models.device import Placement
from nstudent.models.network import build_network
from nstudent.progress import Silence
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.outputs import Outputs
from nstudent.training.build import Lesson, Site, build_loop
from nstudent.training.loop import Length, Loop
from nstudent.training.own_beliefs import WEAK, OwnBeliefs, weak_noise

KEY = ("beliefs", 0)
CONFIG = ConsistencyConfig(begins=0.0, full=0.5)


def make(dataset: Dataset, world: World) -> Loop:
    outputs, placement = Outputs(dataset.taxonomy), Placement(torch.device("cpu"), "float32")
    given = dataset.labels[dataset.labelled]
    parts = labels_and_heap(dataset, outputs)
    noise = NoiseConfig(flip=True, operations=1)
    loss = replace(supervised(outputs, (1.0, 2.0, 1.0)), unlabelled_weight=1.0, heap_shares=(1.0, 0.9, 0.4))
    lesson = Lesson(
        parts,
        loss,
        Length(4, 2),
        views={WEAK: weak_noise(noise, CONFIG.weak)},
        revision=OwnBeliefs(CONFIG, outputs, given, placement, world),
    )
    network = build_network(ModelConfig(backbones=("test_convnext",)), outputs, KEY)
    site = Site(placement, dataset.pixels, dataset.taxonomy.levels, dataset.name, world=world)
    return build_loop(network, lesson, TrainingConfig(batch_size=7, noise=noise, optimizer="sgd"), site, KEY)


def main(data: Path, scratch: Path, several: bool) -> None:
    torch.set_num_threads(1)
    dataset = Dataset(Artifact(data))
    with connected("cpu") if several else nullcontext(Alone()) as world:
        loop = make(dataset, world)
        trained = loop.fit(scratch / "checkpoint.safetensors", Silence(), "beliefs")
        if world.leads:
            moments = loop.method.state_dict()["revision"]["moments"]
            numbers = [float(number) for name in ("said", "confidence") for number in moments[name].flatten()]
            print(json.dumps({"history": trained.history, "moments": numbers}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "several")
