"""Predictions of a classifier: written while they are made, and read back as one table."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from nstudent.errors import ArtifactError
from nstudent.evaluation import predictions
from nstudent.evaluation.predictions import Predictions, PredictionWriter
from nstudent.labels.best_path import BestPath
from nstudent.storage.artifact import Artifact
from nstudent.storage.commit import commit, open_partial
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from trees import outputs_of

OUTPUTS = Outputs(Taxonomy.from_labels([("A", "a"), ("A", "b"), ("B", "-")], ("coarse", "fine")))
MANY = outputs_of(2, 300)
IMAGES = np.array([3, 9, 4, 11, 0, 7, 5], dtype=np.int64)
SPLIT = np.array([1, 0, 0, 1, 1, 1, 0, 2, 0, 1, 0, 2], dtype=np.int8)


class Data:
    """As much of a data set as predictions need."""

    split = SPLIT
    labels = np.arange(24, dtype=np.int32).reshape(12, 2) % 3 - 1

    def names(self, images: np.ndarray) -> np.ndarray:
        return np.array([f"bär {image}.png".encode() for image in images], dtype="S20")


def distributions(outputs: Outputs = OUTPUTS) -> list[torch.Tensor]:
    random = np.random.default_rng(1)
    return [torch.from_numpy(random.dirichlet(np.ones(n), len(IMAGES)).astype(np.float32)) for n in outputs.sizes]


def written(folder: Path, batch: int = 3, outputs: Outputs = OUTPUTS) -> Artifact:
    """Two classifiers, their predictions put in a few at a time."""
    partial = open_partial(folder, {"asked": {}, "inputs": {}})
    levels = distributions(outputs)
    for step in ("01-teacher", "14-student"):
        writer = PredictionWriter(partial, step, Data(), outputs)
        for first in range(0, len(IMAGES), batch):
            part = [level[first : first + batch] for level in levels]
            columns = writer.columns(part, BestPath(outputs).decode(part))
            writer.put(IMAGES[first : first + batch], {name: each.numpy() for name, each in columns.items()})
        writer.finish()
    fields = {"stage": "evaluate", "role": "scores", "round": 0, "asked": {}, "inputs": {}, "metrics": {}}
    return commit(folder, fields | {"seconds": 0.0})


def test_every_row_is_read_back_as_it_was_put_in(tmp_path: Path) -> None:
    found = Predictions.open(written(tmp_path / "08-evaluate"), "14-student")
    levels = distributions()
    assert found.levels == ("coarse", "fine")
    assert found.images.tolist() == IMAGES.tolist()
    assert found.names[0].decode() == "bär 3.png"
    assert np.array_equal(found.split, SPLIT[IMAGES])
    assert np.array_equal(found.truth, Data().labels[IMAGES])
    decoded = BestPath(OUTPUTS).decode(levels)
    assert np.array_equal(found.paths, decoded.paths.numpy())
    assert np.array_equal(found.confidence, decoded.confidence.numpy())
    for kept, level in zip(found.probabilities, levels, strict=True):
        assert np.array_equal(kept[np.arange(len(IMAGES))], level.half().numpy())
    assert found.images[found.rows_of(1)].tolist() == [3, 9, 4, 0, 5]


def test_the_steps_whose_predictions_are_there_are_known(tmp_path: Path) -> None:
    made = written(tmp_path / "08-evaluate")
    assert Predictions.steps(made) == ["01-teacher", "14-student"]
    with pytest.raises(ArtifactError, match="holds no predictions of 1-student: run `nstudent stage evaluate` again"):
        Predictions.open(made, "1-student")


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_files_are_cut_at_the_same_rows_whatever_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """So that memory does not grow with the images, and a step that is begun anew leaves no other files."""
    whole = Predictions.open(written(tmp_path / "whole"), "01-teacher")
    row_bytes = PredictionWriter(tmp_path, "x", Data(), OUTPUTS).row_bytes
    monkeypatch.setattr(predictions, "_FILE_BYTES", 3 * row_bytes)
    made = written(tmp_path / "cut", batch)
    assert [name for name in made.manifest.files if "teacher" in name] == [
        f"predictions-01-teacher-{first:09d}-{last:09d}.h5" for first, last in ((0, 3), (3, 6), (6, 7))
    ]
    cut = Predictions.open(made, "01-teacher")
    for name in ("images", "names", "split", "truth", "paths", "confidence"):
        assert np.array_equal(getattr(cut, name), getattr(whole, name))
    rows = np.array([6, 0, 4])
    assert all(np.array_equal(a[rows], b[rows]) for a, b in zip(cut.probabilities, whole.probabilities, strict=True))


def test_of_many_classes_the_most_probable_are_kept(tmp_path: Path) -> None:
    found = Predictions.open(written(tmp_path / "08-evaluate", outputs=MANY), "01-teacher")
    level, rows = distributions(MANY)[1].numpy(), np.arange(len(IMAGES))
    kept = found.probabilities[1][rows]
    assert kept.shape == (len(IMAGES), 300)
    assert np.array_equal(kept.argmax(axis=1), level.argmax(axis=1))
    assert kept.sum(axis=1) == pytest.approx(1, abs=1e-2)


def test_the_files_are_readable_with_plain_h5py_and_of_the_size_that_is_reserved(tmp_path: Path) -> None:
    made = written(tmp_path / "08-evaluate")
    with h5py.File(made.folder / "predictions-01-teacher-000000000-000000007.h5") as file:
        assert list(file.attrs["levels"]) == ["coarse", "fine"]
        num_bytes = sum(
            item.nbytes for item in (*file.values(), *file["probability"].values()) if hasattr(item, "nbytes")
        )
        assert file["truth"].dtype == np.int32
    assert num_bytes == len(IMAGES) * (PredictionWriter(tmp_path, "x", Data(), OUTPUTS).row_bytes + 20)
