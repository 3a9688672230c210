"""Labelling a heap against nothing but the forward passes of the same networks.

    python benchmarks/labelling.py                                       # the digits at 32 px, two test_resnet
    python benchmarks/labelling.py --net resnet18 --members 1
    python benchmarks/labelling.py --classes 10 300 10000                # many classes: the most probable are stored
    python benchmarks/labelling.py --device cuda --net tf_efficientnetv2_s --image-size 300 --images 20000

The bare loop gives random images that lie on the device to the ensemble, in the batch that labelling takes, and throws
the probabilities away. Labelling fetches pixels, calibrates, decodes paths, and writes a shard. Both take turns;
printed are ratios of medians, bare / labelling. Memory is what labelling one, two and four times as many images adds to
the process. Prints Markdown. Linux: reads /proc.
"""

import argparse
import platform
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from nstudent import load_config, run_stage
from nstudent.config.schema import Config, ModelConfig
from nstudent.data.dataset import Dataset, Ids
from nstudent.labels.path_posterior import Calibration
from nstudent.labels.store import Layout
from nstudent.machine import available_cores
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import BatchSize
from nstudent.models.network import build_network
from nstudent.models.recipe import Recipe
from nstudent.progress import Silence
from nstudent.stages.pseudolabel import _Labelling, _Unfinished
from nstudent.storage.artifact import Artifact
from nstudent.storage.sealed import SealedFiles
from nstudent.taxonomy.outputs import Outputs
from step import measured
from store import LEVELS, MIB, memory, tree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="test_resnet", help="a timm network")
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--classes", type=int, nargs=3, help="of each level; default: those of the digits")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()
    words = [f"data.image_size={arguments.image_size}", f"device={arguments.device}", f"threads={arguments.threads}"]
    config = load_config(None, words)
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(Artifact(run_stage(config, "data", Path(folder) / "run")), config.data)
        if arguments.classes:
            dataset.taxonomy = tree(arguments.classes)
        compare(config, dataset, arguments, Path(folder))


class Heap:
    """A heap of images, a labeller, and the bare forward passes to hold its labelling against."""

    def __init__(self, config: Config, dataset: Dataset, net: str, num_members: int, images: int, folder: Path) -> None:
        self._placement, model = Placement.from_config(config), ModelConfig(backbones=(net,))
        outputs = Outputs(dataset.taxonomy)
        networks = [build_network(model, outputs, ("benchmark", number)) for number in range(num_members)]
        self._side = config.data.image_size
        recipe = Recipe.of(config, dataset.taxonomy, [model] * num_members)
        calibration = Calibration((1.2,) * len(LEVELS), (-0.5, -0.5, 0.0))
        self._ensemble = Ensemble.of_networks(recipe, networks, self._placement).calibrated(calibration)
        self.size = BatchSize.starting(None, self._ensemble)
        self._labelling = _Labelling(dataset, self._ensemble, Layout.of(outputs, None), self.size)
        self._folder, self._shard_rows = folder, config.pseudolabel.shard_rows
        self.ids: Ids = np.resize(dataset.unlabelled, max(1, images // self.size.images) * self.size.images)
        pixels = np.random.default_rng(0).integers(0, 256, (self.size.images, self._side, self._side, 3), np.uint8)
        self._images = self._placement.images(torch.from_numpy(pixels))

    def label(self, times: int = 1) -> None:
        """Label all of the heap, or several of its size."""
        ids = np.resize(self.ids, times * len(self.ids))
        for shard in self._folder.glob("shard-*.h5"):
            shard.unlink()
        sealed, rows = SealedFiles(self._folder), self._shard_rows
        shards = [
            _Unfinished(sealed, f"shard-{first}.h5", ids[first : first + rows]) for first in range(0, len(ids), rows)
        ]
        with Silence().task("label", len(ids), "images") as task:
            self._labelling.shards(shards, task)

    @torch.inference_mode()
    def forward(self) -> None:
        """The forward passes alone, over images that lie on the device."""
        for _ in range(len(self.ids) // self.size.images):
            for member in self._ensemble.members:
                with self._placement.autocast(member.network):
                    member.network(self._images)

    def timed(self, turns: int) -> tuple[dict[str, float], dict[str, float]]:
        """Median seconds of wall clock and of CPU, of "bare" and "labelling", which take turns."""
        work: dict[str, Callable[[], None]] = {"bare": self.forward, "labelling": self.label}
        costs: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
        for number in range(turns + 1):
            for name, each in work.items():
                cost = measured(each, self._placement.device)
                # The first turn only warms up.
                costs[name] += [cost] if number else []
        wall, cpu = ({name: statistics.median(cost[i] for cost in costs[name]) for name in costs} for i in (0, 1))
        return wall, cpu


def compare(config: Config, dataset: Dataset, arguments: argparse.Namespace, folder: Path) -> None:
    heap = Heap(config, dataset, arguments.net, arguments.members, arguments.images, folder)
    wall, cpu = heap.timed(arguments.turns)
    before = memory()["held"]
    growth = []
    for times in (1, 2, 4):
        heap.label(times)
        growth.append((memory()["held"] - before) / MIB)
    print(
        f"{arguments.members} x {arguments.net}, {config.data.image_size} px, classes "
        f"{list(dataset.taxonomy.num_classes)}, batch {heap.size.images}, {len(heap.ids)} images, {arguments.threads} "
        f"threads; {arguments.device}, {available_cores()} cores ({platform.machine()}); torch {torch.__version__}; "
        f"{arguments.turns} turns\n\n"
        "| wall: bare / labelling | CPU: bare / labelling | images a second | MiB more at 1, 2, 4 times the images |\n"
        "|---|---|---|---|\n"
        f"| {wall['bare'] / wall['labelling']:.2f} | {cpu['bare'] / cpu['labelling']:.2f} | "
        f"{len(heap.ids) / wall['labelling']:,.0f} | {', '.join(f'{mib:.0f}' for mib in growth)} |"
    )


if __name__ == "__main__":
    main()
