"""How far the probabilities of finished runs are off on images like the labels, and on the test images.

    python benchmarks/calibration.py RUN_DIR...                         # the source knows the truth of the heap
    python benchmarks/calibration.py RUN_DIR... --pack grocery_64.h5    # the heap is a folder, files named by number

Where test images come from elsewhere than the labels, a calibration that is right for the one is wrong for the other.
Two classifiers of a run are asked: the first that was chosen, which has not seen the heap, about heap and test, and the
final one about the test. The heap is drawn as the labels are; it stands for images of the same kind. Each is calibrated
as it is in the run; to every second image of the heap; or to every second image of the test, which no run may do, to
show what is in reach. It is scored on the other images. The numbers are points above what perfect probabilities show.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import h5py
import numpy as np
import torch
from nstudent.data.dataset import Dataset
from nstudent.evaluation.calibration import calibration_error, fit_calibration
from nstudent.labels.decoders import build_decoder
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble, Probabilities
from nstudent.models.inference import predict
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.reading import ABSENT_ENTRY
from nstudent.taxonomy.tree import LabelArray, Taxonomy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("--pack", type=Path, help="HDF5 file whose images lie in the folders, named by their number")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| run | classifier | calibrated to | asked about | points above perfect, by level |")
    print("|---|---|---|---|---|")
    for run_dir in arguments.runs:
        for row in rows(run_dir, arguments.pack):
            print(f"| {run_dir.name} | {' | '.join(row)} |", flush=True)


@dataclass(frozen=True, eq=False)
class Asked:
    """What a classifier says of some images before it is calibrated, and their labels."""

    raw: Probabilities
    labels: LabelArray

    def half(self, first: int) -> "Asked":
        """Every second image from the ``first`` on."""
        return Asked(tuple(level[first::2] for level in self.raw), self.labels[first::2])


def rows(run_dir: Path, pack: Path | None) -> list[tuple[str, ...]]:
    """What the table says of a run, a line for each classifier and each way to calibrate it."""
    dataset = Dataset(Artifact(run_dir / "00-data"))
    final = json.loads((run_dir / "final.json").read_text())["step"]
    labeller = sorted(path.name for path in run_dir.glob("*-choose"))[0]
    found = []
    for step, of in ((labeller, ("heap", "test")), (final, ("test",))):
        ensemble = Ensemble.load(Artifact(run_dir / step), Placement(torch.device("cpu"), "auto"))
        asked = {name: _asked(ensemble, dataset, name, pack) for name in of}
        found += [(step, how, name, _errors(one, said)) for how, name, one, said in _ways(ensemble, asked)]
    return found


def _ways(ensemble: Ensemble, asked: Mapping[str, Asked]) -> list[tuple[str, str, Ensemble, Asked]]:
    ways = [("validation", name, ensemble, said) for name, said in asked.items()]
    for fitted, halved in asked.items():
        half = halved.half(0)
        calibration = fit_calibration(half.raw, half.labels, ensemble.recipe.outputs)
        for name, said in asked.items():
            rest = said.half(1) if name == fitted else said
            ways.append((f"half of the {fitted}", name, ensemble.calibrated(calibration), rest))
    return ways


def _asked(ensemble: Ensemble, dataset: Dataset, name: str, pack: Path | None) -> Asked:
    ids = dataset.test if name == "test" else dataset.unlabelled
    if name == "test":
        labels = dataset.labels[ids]
    elif pack is None:
        labels = dataset.hidden_truth()[ids]
    else:
        labels = _labels_of_pack(pack, [dataset.name(int(image)) for image in ids], ensemble.recipe.taxonomy)
    return Asked(predict(ensemble.calibrated(None), dataset.pixels, ids, None), labels)


def _labels_of_pack(pack: Path, names: list[str], taxonomy: Taxonomy) -> LabelArray:
    """Labels of images whose files are named by their number in an HDF5 pack, (images, levels)."""
    with h5py.File(pack) as file:
        numbers = [int(PurePosixPath(name.split(":")[-1]).stem) for name in names]
        labels, classes = file["label"][:][numbers], json.loads(file.attrs["meta"])["levels"]
    paths = [[classes[level][entry] for level, entry in enumerate(row) if entry >= 0] for row in labels.tolist()]
    return np.array([taxonomy.encode([*path, *[ABSENT_ENTRY] * (labels.shape[1] - len(path))]) for path in paths])


def _errors(ensemble: Ensemble, said: Asked) -> str:
    """By level the calibration error of the classes that are named, above that of perfect probabilities, in points."""
    levels = ensemble.calibrate(tuple(map(torch.from_numpy, said.raw)))
    decoded = build_decoder(ensemble.recipe.decoder, ensemble.recipe.outputs).decode(levels)
    paths, confidence = decoded.paths.numpy(), decoded.confidence.numpy()
    errors = []
    for level in range(paths.shape[1]):
        named = paths[:, level] >= 0
        right = paths[named, level] == said.labels[named, level]
        error = calibration_error(confidence[named, level], right)
        errors.append(f"{100 * (error.value - error.by_chance):.1f}")
    return " ".join(errors)


if __name__ == "__main__":
    main()
