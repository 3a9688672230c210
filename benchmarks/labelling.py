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
from nstudent.artifact import Artifact
from nstudent.config import Config, ModelConfig
from nstudent.data.dataset import Dataset, Ids
from nstudent.labels.store import Layout
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble, Recipe
from nstudent.models.inference import BatchSize
from nstudent.models.member import build_member
from nstudent.processes import available_cores
from nstudent.progress import Silence
from nstudent.stages.pseudolabel import _Labelling
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


def compare(config: Config, dataset: Dataset, arguments: argparse.Namespace, folder: Path) -> None:
    placement, model = Placement.from_config(config), ModelConfig(backbones=(arguments.net,))
    outputs = dataset.taxonomy.num_classes
    members = [build_member(model, outputs, ("benchmark", number)) for number in range(arguments.members)]
    sizes = (config.data.image_size, config.data.max_pixels)
    ensemble = Ensemble(Recipe((model,) * len(members), dataset.taxonomy, "ignore", *sizes), members, placement)
    layout = Layout.of(LEVELS, outputs, None)
    size = BatchSize.starting(None, ensemble)
    labelling = _Labelling(dataset, ensemble, layout, (1.2,) * len(outputs), size)
    shard = folder / "shard.h5"

    def label(ids: Ids) -> None:
        shard.unlink(missing_ok=True)
        with Silence().task("label", len(ids), "images") as task:
            labelling._shard(shard, ids, task)

    ids = np.resize(dataset.unlabelled, arguments.images // size.images * size.images)
    pixels = np.random.default_rng(0).integers(0, 256, (size.images, *sizes[:1] * 2, 3), dtype=np.uint8)
    turns: dict[str, Callable[[], None]] = {
        "bare": lambda: forward(ensemble, placement, pixels, len(ids) // size.images),
        "labelling": lambda: label(ids),
    }
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    for number in range(arguments.turns + 1):
        for name, work in turns.items():
            cost = measured(work, placement.device)
            # The first turn only warms up.
            costs[name] += [cost] if number else []
    wall, cpu = ({name: statistics.median(cost[i] for cost in costs[name]) for name in costs} for i in (0, 1))
    before = memory()["held"]
    growth = []
    for times in (1, 2, 4):
        label(np.resize(ids, times * len(ids)))
        growth.append((memory()["held"] - before) / MIB)
    print(
        f"{len(members)} x {arguments.net}, {sizes[0]} px, classes {list(outputs)}, batch {size.images}, "
        f"{len(ids)} images, {arguments.threads} threads; {arguments.device}, {available_cores()} cores "
        f"({platform.machine()}); torch {torch.__version__}; {arguments.turns} turns\n\n"
        "| wall: bare / labelling | CPU: bare / labelling | images a second | MiB more at 1, 2, 4 times the images |\n"
        "|---|---|---|---|\n"
        f"| {wall['bare'] / wall['labelling']:.2f} | {cpu['bare'] / cpu['labelling']:.2f} | "
        f"{len(ids) / wall['labelling']:,.0f} | {', '.join(f'{mib:.0f}' for mib in growth)} |"
    )


@torch.inference_mode()
def forward(ensemble: Ensemble, placement: Placement, pixels: np.ndarray, times: int) -> None:
    images = placement.images(torch.from_numpy(pixels))
    for _ in range(times):
        for member in ensemble.members:
            with placement.autocast(member):
                member(images)


if __name__ == "__main__":
    main()
