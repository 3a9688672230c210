"""Compare the rules by which the parts of a pool are weighed, on the classifiers of finished runs.

    python benchmarks/pool_rules.py RUN_DIR... [--members] [--draws 40] [--images 60 180]

The validation and test images of a run, from which nothing has learnt, are divided anew in each draw: on so many of
them shares and calibration are fitted, and the others say how good the pool is.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from nstudent.data.dataset import Dataset
from nstudent.evaluation.calibration import fit_calibration
from nstudent.evaluation.metrics import tally
from nstudent.evaluation.pool_weights import POOL_WEIGHTS, Weigh
from nstudent.evaluation.scores import HEADLINE
from nstudent.labels.decoders import build_decoder
from nstudent.labels.path_posterior import PathPosterior
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble, Probabilities
from nstudent.models.inference import predict
from nstudent.storage.artifact import Artifact, Manifest

RULES: dict[str, Weigh] = {**POOL_WEIGHTS, "equal": lambda raws, labels, outputs: (1 / len(raws),) * len(raws)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR")
    parser.add_argument("--members", action="store_true", help="each member of a classifier is a part of its own")
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--images", type=int, nargs="+", default=[60, 180], help="to fit to")
    arguments = parser.parse_args()
    for run in arguments.runs:
        steps = [made for made in sorted(run.glob("[0-9]*-*")) if Manifest.read(made).role == "classifier"]
        alone = [made for made in steps if not Manifest.read(made).round]
        for what, used in (("all", steps), ("labels alone", alone)):
            for images in arguments.images:
                for line in compare(run, used, arguments.members, arguments.draws, images):
                    print(f"{run.name}, {what}, {images} images: {line}", flush=True)


def compare(run: Path, steps: Sequence[Path], members: bool, draws: int, images: int) -> list[str]:
    """A line for each rule: level accuracy, mean log-probability of the finest label, and number of parts."""
    dataset = Dataset(Artifact(run / "00-data"))
    ids = np.concatenate([dataset.validation, dataset.test])
    labels, placement = dataset.labels[ids], Placement(torch.device("cpu"), "float32")
    ensembles = [Ensemble.load(Artifact(step), placement) for step in steps]
    recipe = ensembles[0].recipe
    outputs, finest = recipe.outputs, recipe.outputs.indices(labels)[:, -1]
    parts = [part for each in ensembles for part in (_members(each) if members else [each.calibrated(None)])]
    raws = [predict(part, dataset.pixels, ids, None) for part in parts]
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in RULES}
    random = np.random.default_rng(0)
    for _ in range(draws):
        order = random.permutation(len(ids))
        fitted, judged = order[:images], order[images:]
        known = judged[labels[judged, -1] >= 0]
        for name, rule in RULES.items():
            weights = rule([[level[fitted] for level in raw] for raw in raws], labels[fitted], outputs)
            pool = _pooled(raws, weights)
            calibration = fit_calibration([level[fitted] for level in pool], labels[fitted], outputs)
            levels = PathPosterior(outputs, calibration).marginals([torch.from_numpy(level) for level in pool])
            paths = build_decoder("expected_score", outputs).decode(tuple(level[judged] for level in levels)).paths
            ratio = tally(paths.numpy(), labels[judged], recipe.taxonomy.levels)[HEADLINE].sum(axis=0)
            likely = np.log(np.maximum(levels[-1].numpy()[known, finest[known]], 1e-12)).mean()
            found[name].append((100 * ratio[0] / ratio[1], likely, sum(weight > 0 for weight in weights)))
    first = np.array(found["likelihood"])
    lines = []
    for name, rows in found.items():
        each = np.array(rows)
        (score, likely, number), gain = each.mean(axis=0), (each - first).mean(axis=0)
        lines.append(f"{name:<11}{score:6.2f} % ({gain[0]:+.2f}){likely:9.4f} ({gain[1]:+.4f}), {number:.1f} parts")
    return lines


def _members(ensemble: Ensemble) -> list[Ensemble]:
    temperatures = ensemble.recipe.member_temperatures
    numbers = range(len(ensemble.members))
    return [ensemble.alone(each).with_member_temperatures(temperatures and [temperatures[each]]) for each in numbers]


def _pooled(raws: Sequence[Probabilities], weights: Sequence[float]) -> Probabilities:
    pairs = list(zip(raws, weights, strict=True))
    levels = range(len(raws[0]))
    return tuple(np.asarray(sum(w * raw[level] for raw, w in pairs), dtype=np.float32) for level in levels)


if __name__ == "__main__":
    main()
