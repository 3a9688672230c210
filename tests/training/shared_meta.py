"""A few steps of Meta Pseudo Labels, alone or as one of several processes: for test_meta_learner.py.

Prints the epochs as JSON. The networks have no batch normalisation, and no noise that is drawn per process; the heap's
part of a batch does not divide by two.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from fitting import labels_and_heap, supervised
from nstudent.config.schema import MetaConfig, ModelConfig, NoiseConfig, TrainingConfig
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
from nstudent.training.meta_learner import MetaPseudoLabels
from nstudent.training.own_beliefs import WEAK, weak_noise

KEY = ("meta", 0)
CONFIG = MetaConfig(uda_threshold=0.2, uda_ramp=0.0)
MODEL = ModelConfig(backbones=("test_convnext",))


def make(dataset: Dataset, world: World) -> Loop:
    outputs, placement = Outputs(dataset.taxonomy), Placement(torch.device("cpu"), "float32")
    parts = labels_and_heap(dataset, outputs)
    noise = NoiseConfig(flip=True, operations=1)
    loss = supervised(outputs, (1.0, 2.0, 1.0))
    method = MetaPseudoLabels(CONFIG, outputs, loss, 7, lambda key: build_network(MODEL, outputs, key))
    lesson = Lesson(parts, loss, Length(4, 2), views={WEAK: weak_noise(noise, CONFIG.weak)}, method=method)
    network = build_network(MODEL, outputs, KEY)
    site = Site(placement, dataset.pixels, dataset.taxonomy.levels, dataset.name, world=world)
    return build_loop(network, lesson, TrainingConfig(batch_size=7, noise=noise, optimizer="sgd"), site, KEY)


def main(data: Path, scratch: Path, several: bool) -> None:
    torch.set_num_threads(1)
    dataset = Dataset(Artifact(data))
    with connected("cpu") if several else nullcontext(Alone()) as world:
        trained = make(dataset, world).fit(scratch / "checkpoint.safetensors", Silence(), "meta")
        if world.leads:
            print(json.dumps({"history": trained.history}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "several")
