"""What the labels give in a minute on the core settings: the probe alone, scored on test.

    python benchmarks/probes.py --data FOLDER                                   # all settings, 3 seeds
    python benchmarks/probes.py --data FOLDER --settings newcomer_pretrained data.image_size=128

Words at the end go on top of a setting's. Nothing is trained, and no row is kept: a run takes a minute.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from checkouts import HERE
from nstudent import load_config
from nstudent.data.dataset import Dataset
from nstudent.evaluation.assess import assess
from nstudent.evaluation.metrics import scores
from nstudent.evaluation.scores import COMPARED
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.runs.run import run_stage
from nstudent.storage.artifact import Artifact
from settings import CORE, SETTINGS, Data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder with files of the settings")
    parser.add_argument("--settings", nargs="+", default=list(CORE), choices=list(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--made", type=Path, default=HERE / "runs" / "benchmarks" / "data", help="folder for data")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    data = Data.of([path.resolve() for path in arguments.data], arguments.made.resolve())
    print(f"| setting | {' | '.join(f'{name}, test' for name in COMPARED)} | validation | seconds |")
    print("|---|" + "---|" * (len(COMPARED) + 2))
    for setting in arguments.settings:
        found = [probed([*SETTINGS[setting].words(data, seed), *arguments.overrides], seed) for seed in arguments.seeds]
        columns = [_mean(column) for column in zip(*found, strict=True)]
        print(f"| {setting} | {' | '.join(columns)} |", flush=True)


def probed(words: list[str], seed: int) -> list[float]:
    """Scores of the probe on test, in percent, the headline score on validation, and the seconds it took."""
    config = load_config(None, [*words, f"seed={seed}", "device=cpu"])
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder)
        run_stage(config, "data", run_dir)
        began = time.perf_counter()
        made = Artifact(run_stage(config, "probe", run_dir))
        took = time.perf_counter() - began
        dataset = Dataset(Artifact(run_dir / "00-data"))
        probe = Ensemble.load(made, Placement.from_config(config))
        test, validation = (
            scores(assess(probe, dataset, ids, None).tallies) for ids in (dataset.test, dataset.validation)
        )
    return [*(100 * (test[name] or 0.0) for name in COMPARED), 100 * (validation[COMPARED[0]] or 0.0), took]


def _mean(column: tuple[float, ...]) -> str:
    spread = statistics.stdev(column) if len(column) > 1 else 0.0
    return f"{statistics.mean(column):.1f} ± {spread:.1f}"


if __name__ == "__main__":
    main()
