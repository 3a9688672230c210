"""Our training and labelling against timm's own train.py and inference.py.

    git clone https://github.com/huggingface/pytorch-image-models PATH
    python benchmarks/versus_timm.py --timm PATH                              # digits at 32 px, photos at 224 px
    python benchmarks/versus_timm.py --timm PATH --sizes 32 --config configs/fashion_mnist.yaml --images 4096
    python benchmarks/versus_timm.py --timm PATH --device cuda --net resnet50 --batch 256 --workers 8

The same images, network, batch, precision, optimiser and number of threads; timm reads them from folders of PNG (32 px)
or JPEG (224 px) files, we from what the data stage packed of these folders. Each measurement is two processes, of few
and of many epochs (or images to label): their difference is work without start. Processes take turns; printed are
ratios of medians, ours / timm's, of images a second of wall clock, and of images a CPU second with loaders, which other
programs disturb least. timm's train.py needs a loader process; ours takes what it takes by itself, at 32 px a thread.
Ours also keeps the average of the weights and checks every step, timm does not by default. inference.py needs pandas.
Prints Markdown.
"""

import argparse
import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from nstudent import load_config, run_stage
from nstudent.config.schema import Config, ModelConfig
from nstudent.data.batches import Examples
from nstudent.data.dataset import Dataset
from nstudent.labels.targets import GivenTargets
from nstudent.machine import available_cores
from nstudent.models.device import Placement, loader_workers, noises_in_batches
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import predict
from nstudent.models.network import build_network
from nstudent.models.recipe import Recipe
from nstudent.progress import Silence
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.outputs import Outputs
from nstudent.training.build import Lesson, Site, build_loop
from nstudent.training.cross_entropy import CrossEntropy
from nstudent.training.loop import Length
from nstudent.training.losses import even_weights
from nstudent.training.objective import Supervised
from nstudent.training.pixels import training_pixels
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images

NOISE = {
    "none": ["flip=false", "shift=0", "zoom=0", "rotate=0", "operations=0"],
    "flip, crop or affine, 2 operations": ["flip=true", "operations=2"],
}
THEIR_NOISE = {
    "none": ["--no-aug"],
    "flip, crop or affine, 2 operations": ["--scale", "0.8", "1.0", "--aa", "rand-m5-n2", "--color-jitter", "0"],
}
KEY = ("benchmark", 0)


@dataclass(frozen=True)
class Cost:
    """What a process took, its loaders included."""

    wall: float
    cpu: float
    peak_mib: float


def cost_of(command: list[str], threads: int, folder: Path) -> Cost:
    """Run a command to its end.

    Raises:
        SystemExit: it failed; the message ends with what it said last.
    """
    with (folder / "said.txt").open("wb") as said:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=folder, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{(folder / 'said.txt').read_text()[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def write_images(folder: Path, arguments: argparse.Namespace, side: int) -> int:
    """Fill ``folder/train`` with images in a folder a class; returns the number of classes."""
    if side > 64:
        pixels, labels, ending = *_photos(arguments.images, side), ".jpg"
    else:
        pixels, labels, ending = *_packed(arguments, side), ".png"
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        place = folder / "train" / f"class-{label:02d}"
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / f"{number:06d}{ending}"), image[..., ::-1])
    return len(set(labels.tolist()))


def _photos(number: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Squares cut from scikit-learn's two photographs, at several scales."""
    random, photos = np.random.default_rng(0), load_sample_images().images
    labels = np.arange(number) % len(photos)
    squares = []
    for label in labels:
        photo = photos[label]
        cut = int(random.integers(side, min(photo.shape[:2]) + 1))
        top, left = (int(random.integers(0, size - cut + 1)) for size in photo.shape[:2])
        square = photo[top : top + cut, left : left + cut]
        squares.append(cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA))
    return np.stack(squares), labels


def _packed(arguments: argparse.Namespace, side: int) -> tuple[np.ndarray, np.ndarray]:
    words = [f"data.image_size={side}", "data.labelled=all", "data.unlabelled=1"]
    with tempfile.TemporaryDirectory() as scratch:
        data = run_stage(load_config(arguments.config, [*words, "rounds=0"]), "data", Path(scratch) / "run")
        dataset = Dataset(Artifact(data))
        ids = dataset.labelled[: arguments.images]
        return dataset.pixels[ids], dataset.labels[ids, -1] + 1


def their_words(arguments: argparse.Namespace, script: str, side: int, classes: int) -> list[str]:
    """What timm's two scripts are both told."""
    precision = ["--amp", "--amp-dtype", "bfloat16"] if arguments.precision == "bfloat16" else []
    return [
        *(sys.executable, str(arguments.timm / script)),
        *("--model", arguments.net, "--num-classes", str(classes), "--input-size", "3", str(side), str(side)),
        *("-b", str(arguments.batch), "--device", arguments.device, "--channels-last"),
        *("--workers", str(arguments.workers), *precision),
    ]


def their_training(arguments: argparse.Namespace, folder: Path, side: int, classes: int, noise: str) -> list[str]:
    return [
        *their_words(arguments, "train.py", side, classes),
        *("--data-dir", str(folder), "--val-split", "train", "--val-interval", "100000"),
        *("--opt", "adamw", "--lr", "0.003", "--clip-grad", "5", "--warmup-epochs", "0"),
        *("--output", str(folder / "timm"), *THEIR_NOISE[noise]),
        "--epochs",
    ]  # timm counts so many epochs; the number comes last


def their_labelling(arguments: argparse.Namespace, folder: Path, side: int, classes: int) -> list[str]:
    return [
        *their_words(arguments, "inference.py", side, classes),
        *("--split", "", "--results-dir", str(folder / "timm"), "--results-format", "csv", "--topk", "1"),
        *("--crop-pct", "1.0", "--label-type", "none", "--checkpoint", str(folder / "network.safetensors")),
        "--data-dir",
    ]  # the folder comes last


def our_config(folder: Path, side: int, arguments: argparse.Namespace, noise: str = "none") -> Config:
    words = [
        "data.source=folder",
        f"data.root={folder / 'train'}",
        "data.levels=[fine]",
        f"data.image_size={side}",
        f"data.storage={arguments.storage}",
        "data.validation=2",
        "data.test=2",
        "data.near_duplicates=ignore",
        "data.conflicting_labels=drop",
        "rounds=0",
        f"device={arguments.device}",
        f"precision={arguments.precision}",
        f"threads={arguments.threads}",
        f"workers={arguments.our_workers}",
        f"augment={arguments.augment}",
        *(f"teacher.noise.{word}" for word in NOISE[noise]),
    ]
    return load_config(None, words)


def our_work(arguments: argparse.Namespace) -> None:
    """What a process of ours does: train so many epochs, or label all images so many times."""
    folder, side = arguments.folder, arguments.sizes[0]
    config = our_config(folder, side, arguments, arguments.noise)
    dataset = Dataset(Artifact(folder / "run" / "00-data"), config.data)
    placement, model = Placement.from_config(config), ModelConfig(backbones=(arguments.net,))
    network = build_network(model, Outputs(dataset.taxonomy), KEY)
    ids = dataset.labelled
    if arguments.work == "label":
        recipe = Recipe.of(config, dataset.taxonomy, [model])
        ids = np.resize(ids, arguments.amount)
        batch = None if arguments.our_batch == "null" else int(arguments.our_batch or arguments.batch)
        predict(Ensemble.of_networks(recipe, [network], placement), dataset.pixels, ids, batch)
        return
    training = config.teacher.model_copy(update={"batch_size": arguments.batch})
    examples = Examples(ids, GivenTargets(dataset.labels[ids], Outputs(dataset.taxonomy)))
    even = even_weights(Outputs(dataset.taxonomy), placement.device)
    objective = Supervised(CrossEntropy(even, 0.1), CrossEntropy(even), (1.0,))
    site = Site(
        placement,
        training_pixels(config, dataset, placement.device),
        dataset.taxonomy.levels,
        dataset.name,
        noises_in_batches=noises_in_batches(config),
        workers=loader_workers(config),
        checkpoint_seconds=3600,
    )
    length = Length(arguments.amount, len(ids) // arguments.batch)
    loop = build_loop(network, Lesson([(examples, arguments.batch)], objective, length), training, site, KEY)
    with tempfile.TemporaryDirectory() as scratch:
        loop.fit(Path(scratch) / "checkpoint.safetensors", Silence(), "training")


def our_command(arguments: argparse.Namespace, folder: Path, side: int, work: str, noise: str = "none") -> list[str]:
    return [
        sys.executable,
        str(Path(__file__).resolve()),
        "--timm",
        str(arguments.timm),
        "--net",
        arguments.net,
        "--batch",
        str(arguments.batch),
        "--device",
        arguments.device,
        "--precision",
        arguments.precision,
        "--our-workers",
        arguments.our_workers,
        f"--our-batch={arguments.our_batch}",
        "--threads",
        str(arguments.threads),
        "--augment",
        arguments.augment,
        "--storage",
        arguments.storage,
        "--folder",
        str(folder),
        "--sizes",
        str(side),
        "--work",
        work,
        "--noise",
        noise,
        "--amount",
    ]


def compare(
    ours: list[list[str]], theirs: list[list[str]], work: int, arguments: argparse.Namespace, folder: Path
) -> str:
    """A row of the table. Each side is a command for little work and one for more; ``work`` is between, in images."""
    rates: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    peaks = {}
    for _ in range(arguments.turns):
        for name, (little, much) in (("ours", ours), ("theirs", theirs)):
            few, many = cost_of(little, arguments.threads, folder), cost_of(much, arguments.threads, folder)
            rates[name].append((work / max(1e-9, many.wall - few.wall), work / max(1e-9, many.cpu - few.cpu)))
            peaks[name] = many.peak_mib
    wall, cpu = ({name: statistics.median(r[i] for r in rates[name]) for name in rates} for i in (0, 1))
    return (
        f"{wall['ours'] / wall['theirs']:.2f} | {cpu['ours'] / cpu['theirs']:.2f} | {cpu['ours']:,.0f} / "
        f"{cpu['theirs']:,.0f} | {peaks['ours']:,.0f} / {peaks['theirs']:,.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timm", type=Path, required=True, help="work tree of pytorch-image-models")
    parser.add_argument("--config", type=Path, help="where small images come from; default: the digits")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 224], help="px; above 64: photographs as JPEG")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--label-images", type=int, default=16_384)
    parser.add_argument("--net", default="test_resnet")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4, help="between the two processes of a measurement")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--augment", default="auto", choices=["auto", "image", "batch"])
    parser.add_argument("--storage", default="auto", choices=["auto", "jpeg", "original"], help="original: unpacked")
    parser.add_argument("--workers", type=int, default=1, help="timm's loader processes; train.py needs one")
    parser.add_argument("--our-workers", default="null", help="null: what nstudent takes by itself")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--our-batch", default="", help="to label with; null: what nstudent takes by itself")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--skip", nargs="*", default=[], choices=["train", "label"])
    for word in ("--work", "--noise"):
        parser.add_argument(word, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--amount", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.timm = arguments.timm.resolve()
    if arguments.work:
        our_work(arguments)
        return
    print(
        f"{arguments.net}, batch {arguments.batch}, {arguments.precision}, {arguments.threads} threads, "
        f"workers: timm {arguments.workers}, ours {arguments.our_workers}; augment={arguments.augment}, "
        f"storage={arguments.storage}, "
        f"{arguments.images} images, {arguments.device}; "
        f"{available_cores()} cores ({platform.machine()}); torch {torch.__version__}; {arguments.turns} turns\n\n"
        "| work | wall: ours / timm | CPU: ours / timm | images a CPU second | peak MiB, main process |\n"
        "|---|---|---|---|---|"
    )
    for side in arguments.sizes:
        with tempfile.TemporaryDirectory() as scratch:
            _measure(side, Path(scratch), arguments)


def _measure(side: int, folder: Path, arguments: argparse.Namespace) -> None:
    classes = write_images(folder, arguments, side)
    run_stage(our_config(folder, side, arguments), "data", folder / "run")
    dataset = Dataset(Artifact(folder / "run" / "00-data"))
    batches = len(dataset.labelled) // arguments.batch
    for noise in NOISE if "train" not in arguments.skip else ():
        ours, theirs = (
            [[*command, str(epochs)] for epochs in (1, 1 + arguments.epochs)]
            for command in (
                our_command(arguments, folder, side, "train", noise),
                their_training(arguments, folder, side, classes, noise),
            )
        )
        row = compare(ours, theirs, batches * arguments.batch * arguments.epochs, arguments, folder)
        print(f"| training, {side} px, noise: {noise} | {row}", flush=True)
    if "label" not in arguments.skip:
        _measure_labelling(side, folder, classes, arguments)


def _measure_labelling(side: int, folder: Path, classes: int, arguments: argparse.Namespace) -> None:
    """One batch against many, of the same images again and again."""
    files = sorted((folder / "train").rglob("*.*"))
    amounts = {"little": arguments.batch, "much": arguments.batch + arguments.label_images}
    for name, count in amounts.items():
        for number, path in enumerate(itertools.islice(itertools.cycle(files), count)):
            place = folder / name / path.parent.name
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}-{path.name}").symlink_to(path)
    # Without a file of weights it would fetch some.
    save_file(timm.create_model(arguments.net, num_classes=classes).state_dict(), folder / "network.safetensors")
    ours = [[*our_command(arguments, folder, side, "label"), str(count)] for count in amounts.values()]
    command = their_labelling(arguments, folder, side, classes)
    theirs = [[*command, str(folder / name)] for name in amounts]
    row = compare(ours, theirs, arguments.label_images, arguments, folder)
    print(f"| labelling, {side} px | {row}", flush=True)


if __name__ == "__main__":
    main()
