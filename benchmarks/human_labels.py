"""How well the filter finds the labels that people got wrong: CIFAR-10N, held against CIFAR-10's clean labels.

    python benchmarks/human_labels.py --data FOLDER
    python benchmarks/human_labels.py --data FOLDER --settings cifar10n_worse filter.epochs=30

Runs what `nstudent run-all filter.labelled=true` does up to the filter, and compares. No training of it sees a clean
label: those of validation are people's, too. Words at the end go on top of a setting's. Prints Markdown.
"""

import argparse
import time
from pathlib import Path

import core_data
import numpy as np
from checkouts import HERE
from core_data import found
from nstudent import load_config, run_stage
from nstudent.data.dataset import Dataset
from nstudent.labels.selection import load_given_keep
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.reading import ABSENT_ENTRY
from nstudent.taxonomy.tree import LabelArray
from settings import CIFAR10N, CIFAR10N_IS, SETTINGS, Data

NOISY = ("cifar10n", "cifar10n_worse")
BEFORE = ("data", "probe", "teacher", "baseline", "choose", "pseudolabel")
"""Stages before the filter."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder with files of the settings")
    parser.add_argument("--settings", nargs="+", default=list(NOISY), choices=NOISY)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--work", type=Path, default=HERE / "runs" / "human_labels", help="folder for the runs")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    data = Data.of([path.resolve() for path in arguments.data], arguments.work.resolve() / "data")
    print(
        "| setting | seed | level | wrong before | wrong after | right labels kept | wrong labels dropped | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for setting in arguments.settings:
        for seed in arguments.seeds:
            words = [*SETTINGS[setting].words(data, seed), "filter.labelled=true", f"seed={seed}", *arguments.overrides]
            for row in filtered(words, data, arguments.work.resolve() / f"{setting}-{seed}"):
                print(f"| {setting} | {seed} | {' | '.join(row)} |", flush=True)


def filtered(words: list[str], data: Data, run_dir: Path) -> list[tuple[str, ...]]:
    """What the table says of one run, a line for each level and one for the whole paths."""
    config = load_config(None, words)
    for stage in BEFORE:
        run_stage(config, stage, run_dir)
    began = time.perf_counter()
    made = Artifact(run_stage(config, "filter", run_dir))
    took = f"{time.perf_counter() - began:.0f}"
    dataset = Dataset(Artifact(run_dir / "00-data"))
    given, keep = dataset.labels[dataset.labelled], load_given_keep(made)
    truth = _clean(data, dataset)
    there = [(given[:, level] >= 0) for level in range(given.shape[1])]
    right = [(given[:, level] == truth[:, level]) for level in range(given.shape[1])]
    whole = (keep | (given < 0)).all(axis=1)
    columns = [*zip(dataset.taxonomy.levels, there, right, keep.T, strict=True)]
    columns.append(("whole path", given[:, 0] >= 0, (given == truth).all(axis=1), whole))
    return [(name, *_compared(mask, fits, kept), took) for name, mask, fits, kept in columns]


def _clean(data: Data, dataset: Dataset) -> LabelArray:
    """Clean labels of the labelled images, (images, levels); their names are the numbers they have in the file."""
    numbers = [int(name) for name in dataset.names(dataset.labelled)]
    with np.load(found(data.folders, CIFAR10N, CIFAR10N_IS), allow_pickle=False) as packed:
        clean = packed[core_data.CLEAN][numbers]
    paths = [[*path, *[ABSENT_ENTRY] * (3 - len(path))] for path in core_data.CIFAR_TREE.values()]
    return np.array([dataset.taxonomy.encode(path) for path in paths])[clean]


def _compared(there: np.ndarray, right: np.ndarray, kept: np.ndarray) -> tuple[str, ...]:
    right, kept = right[there], kept[there]
    shares = ((~right).mean(), (~right[kept]).mean(), kept[right].mean(), (~kept[~right]).mean())
    return tuple(f"{100 * share:.1f}" for share in shares)


if __name__ == "__main__":
    main()
