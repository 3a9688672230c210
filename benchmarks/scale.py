"""One process against several: how much faster they train and label, and how closely they agree.

    python benchmarks/scale.py                              # 1 and 2 processes on the digits, a thread each
    python benchmarks/scale.py --processes 1 2 4 8 --config configs/grocery.yaml data.root=PATH/grocery_64.h5
    python benchmarks/scale.py --processes 1 2 4 device=cuda teacher.batch_size=512     # a GPU each

Without a device in the configuration the processes compute on GPUs if there is one for each, otherwise all on the CPU.
Each number of processes makes the teacher of the same packed data; the labels are then made by each of them with the
teacher of the first number. Turns alternate. Printed are ratios of medians of the seconds that the steps themselves
took (imports left out), the efficiency (ratio a process), the difference of the loss curves, and whether the labels are
the same bytes. Prints Markdown.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from nstudent.config.file import load_config
from nstudent.runs.step_metrics import TrainedMetrics
from nstudent.storage.artifact import Manifest

THREADS = ("threads=1", "workers=0", "rounds=1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    device = device_for(max(arguments.processes), load_config(arguments.config, arguments.overrides).device)
    page = ["--config", str(arguments.config)] if arguments.config else []
    words = [*page, *THREADS, *arguments.overrides, f"device={device}"]
    print(f"device={device}, {os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}", end=", ")
    print(f"{arguments.turns} turns\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        _stage("data", 1, words, start)
        trained = _trainings(Path(folder), start, arguments, words)
        _label(Path(folder), trained, arguments, words)


def device_for(processes: int, asked: str) -> str:
    """Device of every measurement: the one asked for, otherwise GPUs if the most processes have one each."""
    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.device_count() >= processes else "cpu"


def _stage(stage: str, processes: int, words: list[str], run_dir: Path) -> None:
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *several, "-m", "nstudent", "stage", stage, *words, "--run-dir", str(run_dir)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def _made(
    stage: str, folder: Path, start: Path, arguments: argparse.Namespace, words: list[str]
) -> tuple[dict[int, float], dict[int, Manifest]]:
    """Median seconds of a stage, and what it made, by the number of processes; every turn from a copy of ``start``."""
    seconds: dict[int, list[float]] = {number: [] for number in arguments.processes}
    made = {}
    for turn in range(arguments.turns):
        for number in arguments.processes:
            run_dir = Path(shutil.copytree(start, folder / f"{stage}-{number}-{turn}"))
            _stage(stage, number, words, run_dir)
            made[number] = Manifest.read(next(run_dir.glob(f"*-{stage}")))
            seconds[number].append(made[number].seconds)
    return {number: statistics.median(times) for number, times in seconds.items()}, made


def _trainings(folder: Path, start: Path, arguments: argparse.Namespace, words: list[str]) -> Path:
    """Print the table of trainings; returns a run folder that the first number of processes has trained in."""
    seconds, made = _made("teacher", folder, start, arguments, words)
    losses = {n: np.array([epoch["loss"] for epoch in TrainedMetrics.of(each).history[0]]) for n, each in made.items()}
    first = arguments.processes[0]
    print("| training | x the first | efficiency | loss curve: largest difference | mean |\n|---|---|---|---|---|")
    for number in arguments.processes:
        ratio = seconds[first] / seconds[number]
        apart = np.abs(losses[number] / losses[first] - 1)
        efficiency = ratio * first / number
        print(f"| {number} | {ratio:.2f} | {efficiency:.2f} | {apart.max():.1%} | {apart.mean():.1%} |")
    return folder / f"teacher-{first}-0"


def _label(folder: Path, trained: Path, arguments: argparse.Namespace, words: list[str]) -> None:
    seconds, made = _made("pseudolabel", folder, trained, arguments, [*words, "pseudolabel.shard_rows=100"])
    first = arguments.processes[0]
    print("\n| labelling | x the first | the same bytes |\n|---|---|---|")
    for number in arguments.processes:
        same = "yes" if made[number].id == made[first].id else "no"
        print(f"| {number} | {seconds[first] / max(seconds[number], 0.1):.2f} | {same} |")


if __name__ == "__main__":
    main()
