"""CIFAR-10 with 4,000 labels by WRN-28-2 on one GPU, as far as it comes in a few minutes (320 seconds by default).

    python benchmarks/gpu/accuracy.py cifar10.npz                    # what benchmarks/gpu/cifar10.py pack has written
    python benchmarks/gpu/accuracy.py --device cpu --toy             # a rehearsal on noise, at sizes that mean nothing

The page is configs/cifar10.yaml; only lengths are set here, from the speed of a step on this machine and the time that
is left: for the teacher's members, every student and the labels-only baseline, which makes as many passes as a student.
Where the time runs out before the end, what was trained by then is scored all the same. Prints Markdown; --out keeps
the scores and the curves.
"""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import cifar10  # noqa: E402
from nstudent import Session, load_config, run_all, run_stage  # noqa: E402
from nstudent.config.schema import Config  # noqa: E402
from nstudent.data.dataset import Dataset  # noqa: E402
from nstudent.errors import StoppedError  # noqa: E402
from nstudent.evaluation.assess import assess  # noqa: E402
from nstudent.evaluation.bootstrap import interval  # noqa: E402
from nstudent.evaluation.scores import HEADLINE, SCORES, Scores, read_scores  # noqa: E402
from nstudent.models.device import Placement  # noqa: E402
from nstudent.models.ensemble import Ensemble  # noqa: E402
from nstudent.runs.step_metrics import TrainedMetrics  # noqa: E402
from nstudent.runs.verdict import points  # noqa: E402
from nstudent.screen.bars import Screen  # noqa: E402
from nstudent.signals import StopRequest  # noqa: E402
from nstudent.storage.artifact import Artifact, Manifest  # noqa: E402
from step import Bench, Variant  # noqa: E402

CLASSIFIERS = ("classifier",)
"""Roles of the steps that are scored."""
SCORING_S = 30
"""Kept for labels, scores, and whatever a machine takes to begin."""


@dataclass(frozen=True)
class Scale:
    labelled: int
    validation: int
    probe_steps: int
    words: tuple[str, ...]


FULL = Scale(4000, 1000, 60, ())
TOY = Scale(
    200,
    100,
    2,
    (
        *("teacher.members=[{backbones: [test_resnet]}]", "student.model={backbones: [test_resnet]}"),
        *("teacher.batch_size=50", "student.batch_size=16", "rounds=1", "threads=1", "evaluate.resamples=50"),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", help="CIFAR-10 as one file")
    parser.add_argument("--seconds", type=float, default=320)
    parser.add_argument("--teacher-share", type=float, default=0.2, help="share of the time for the teacher's members")
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--toy", action="store_true", help="sizes of a rehearsal")
    parser.add_argument("--out", type=Path, help="folder for scores and curves")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    if arguments.file is not None and "=" in str(arguments.file):
        arguments.overrides, arguments.file = [str(arguments.file), *arguments.overrides], None
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        measure(arguments, TOY if arguments.toy else FULL, Path(folder), began)


def measure(arguments: argparse.Namespace, scale: Scale, folder: Path, began: float) -> None:
    heap, run_dir = folder / "cifar10.h5", folder / "run"
    if arguments.file is None:
        noise(folder / "noise.npz")
    cifar10.unpack(arguments.file or folder / "noise.npz", heap, scale.labelled, scale.validation, 0, levels=1)
    words = [f"data.root={heap}", f"device={arguments.device}", *scale.words]
    config = load_config(ROOT / "configs" / "cifar10.yaml", [*words, *arguments.overrides])
    run_stage(config, "data", run_dir, Session(progress=Screen()))
    dataset = Dataset(Artifact(run_dir / "00-data"), config.data)
    words += lengths(config, dataset, arguments, scale, began)
    config = load_config(ROOT / "configs" / "cifar10.yaml", [*words, *arguments.overrides])
    stop = StopRequest()
    limit = threading.Timer(max(1.0, began + arguments.seconds - SCORING_S / 2 - time.monotonic()), stop.note, (15,))
    limit.daemon = True
    limit.start()
    try:
        run_all(config, run_dir, Session(progress=Screen(), stop=stop))
    except StoppedError:
        print("\nThe time was over before the run was: scored is what there is.\n")
    limit.cancel()
    report(config, dataset, run_dir)
    print(f"\n{time.monotonic() - began:.0f} s in all")
    if arguments.out:
        keep(run_dir, arguments.out)


def lengths(config: Config, dataset: Dataset, arguments: argparse.Namespace, scale: Scale, began: float) -> list[str]:
    """Epochs of the teacher and of a student, by the speed of their steps and the time that is left."""
    student, teacher = config.student, config.teacher
    heap = round(student.batch_size * student.unlabelled_ratio)
    trainings = config.rounds + 1
    seconds = {
        "teacher": speed(config, dataset, teacher.batch_size, scale.probe_steps),
        "student": speed(config, dataset, student.batch_size + heap, scale.probe_steps),
    }
    left = began + arguments.seconds - SCORING_S - time.monotonic()
    for_teacher = arguments.teacher_share * left / len(teacher.members)
    for_student = (1 - arguments.teacher_share) * left / trainings
    epochs = {
        "teacher": for_teacher / seconds["teacher"] / -(-len(dataset.labelled) // teacher.batch_size),
        "student": for_student / seconds["student"] / -(-len(dataset.unlabelled) // heap),
    }
    print(
        f"\n{time.monotonic() - began:.0f} s used; a step takes {1000 * seconds['teacher']:.2f} ms (batch "
        f"{teacher.batch_size}) and {1000 * seconds['student']:.2f} ms (batch {student.batch_size + heap}: "
        f"{(student.batch_size + heap) / seconds['student']:,.0f} images/s)\n",
        flush=True,
    )
    return [f"{name}.epochs={max(1, int(number))}" for name, number in epochs.items()]


def speed(config: Config, dataset: Dataset, batch: int, steps: int) -> float:
    """Seconds a step, of the student's network with its noise."""
    (net,) = config.student.model.backbones
    bench = Bench(config, dataset, argparse.Namespace(net=net, batch=batch, workers=0))
    turns = bench.ours(Variant())
    turns.take(steps)
    turns.take(steps)
    return turns.wall[-1]


def report(config: Config, dataset: Dataset, run_dir: Path) -> None:
    """Accuracy of every classifier that is there, what it cost, and how right the labels were."""
    device = torch.cuda.get_device_name() if config.device == "cuda" else "CPU"
    print(f"\n{device}; torch {torch.__version__}; images through JPEG (PSNR 43 dB)\n")
    print("| | test accuracy, % | validation | training passes | GMACs | seconds |\n|---|---|---|---|---|---|")
    placement = Placement.from_config(config)
    for folder in sorted(run_dir.glob("[0-9][0-9]-*")):
        if folder.suffix or (manifest := Manifest.read(folder)).role not in CLASSIFIERS:
            continue
        ensemble = Ensemble.load(Artifact(folder), placement)
        tallies = assess(ensemble, dataset, dataset.test, None).tallies
        found = interval(tallies[HEADLINE], config.evaluate.resamples, config.evaluate.confidence)
        assert found is not None
        metrics = TrainedMetrics.of(manifest)
        print(
            f"| {folder.name} | {100 * found.value:.2f} [{100 * found.low:.2f}, {100 * found.high:.2f}] | "
            f"{100 * (metrics.validation[HEADLINE] or 0.0):.1f} | {metrics.image_passes:,} | {metrics.gmacs:.3f} | "
            f"{manifest.seconds:.0f} |",
            flush=True,
        )
    for path in run_dir.glob(f"[0-9][0-9]-*/{SCORES}"):
        scores = read_scores(Scores, path)
        print(f"\nFinal: {scores.final.name}. Paired differences on test, points:")
        gains = {"with the heap against the labels alone": scores.heap_gain and scores.heap_gain.difference}
        gains["last student against one network of its architecture and passes"] = scores.equal_passes
        for what, difference in gains.items():
            if difference:
                print(f"- {what}: {points(difference[HEADLINE])}")
        print(f"\nLabels of the heap: {json.dumps(scores.to_json()['pseudo_labels'])}")


def keep(run_dir: Path, out: Path) -> None:
    """Keep what is small: scores and manifests, with the curves, in one file, and the picture."""
    out.mkdir(parents=True, exist_ok=True)
    found = sorted(run_dir.glob("[0-9][0-9]-*/*.json"))
    said = {f"{path.parent.name}/{path.name}": json.loads(path.read_text()) for path in found}
    (out / "accuracy.json").write_text(json.dumps(said))
    for picture in run_dir.glob("*/scores.png"):
        shutil.copy(picture, out / "accuracy.png")


def noise(out: Path) -> None:
    """A file like that of CIFAR-10, of ten colours under noise: 2,000 training and 200 test images."""
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    colour = random.integers(0, 256, (10, 3))
    for part, number in (("train", 2000), ("test", 200)):
        label = np.arange(number, dtype=np.uint8) % 10
        images = colour[label][:, None, None, :] + random.normal(0, 60, (number, 32, 32, 3))
        arrays[f"{part}_label"] = label
        strip = cifar10._jpeg(images.clip(0, 255).astype(np.uint8))
        arrays[f"{part}_00"] = np.frombuffer(strip, np.uint8)
    np.savez(out, **arrays)


if __name__ == "__main__":
    main()
