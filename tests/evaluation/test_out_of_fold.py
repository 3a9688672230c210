"""Predictions for folds are kept with the classifier, and read back if they fit it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nstudent.errors import ArtifactError
from nstudent.evaluation.out_of_fold import OutOfFold
from nstudent.storage.artifact import Artifact
from nstudent.storage.commit import commit, open_partial
from nstudent.storage.hdf5 import mapped, write
from trees import outputs_of

OUTPUTS = outputs_of(2, 3)
SAID = OutOfFold(
    np.array([4, 7, 9, 12]),
    np.array([1, 0, 2, 1], dtype=np.int16),
    (
        np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]], dtype=np.float32),
        np.array([[0.1, 0.2, 0.7], [0.2, 0.2, 0.6], [1, 0, 0], [0, 1, 0]], dtype=np.float32),
    ),
)
FIELDS = {
    "stage": "teacher",
    "role": "classifier",
    "round": 0,
    "asked": {},
    "inputs": {},
    "metrics": {},
    "seconds": 0.0,
}


def kept(folder: Path, **changes: Any) -> Artifact:
    """A committed step with the predictions, of whose file some arrays are changed, or left out (``None``)."""
    partial = open_partial(folder / "01-teacher", {})
    SAID.save(partial)
    arrays = {name.replace("-", "_"): array for name, array in mapped(partial / "out_of_fold.h5").items()} | changes
    if changes:
        held = {name.replace("_", "-"): array for name, array in arrays.items() if array is not None}
        write(partial / "out_of_fold.h5", held, {})
    return commit(folder / "01-teacher", FIELDS)


def test_what_was_kept_is_read_back(tmp_path: Path) -> None:
    found = OutOfFold.read(kept(tmp_path), OUTPUTS)

    assert np.array_equal(found.images, SAID.images)
    assert np.array_equal(found.members, SAID.members)
    assert all(np.array_equal(one, other) for one, other in zip(found.levels, SAID.levels, strict=True))
    assert found.num_bytes == SAID.num_bytes == 4 * (8 + 2 + 4 * (2 + 3))


def test_what_one_member_says_is_found_in_the_order_of_the_images() -> None:
    images, (coarse, fine) = SAID.by(1)
    assert images.tolist() == [4, 12]
    assert coarse.tolist() == SAID.levels[0][[0, 3]].tolist()
    assert fine.tolist() == SAID.levels[1][[0, 3]].tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {"level_1": None},
        {"image": None},
        {"level_2": SAID.levels[1]},
        {"member": SAID.members[:2]},
        {"level_0": SAID.levels[0][:, :1]},
        {"level_0": SAID.levels[0].astype(np.float64)},
        {"image": np.array(4)},
    ],
)
def test_a_file_that_does_not_fit_the_classifier_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="does not hold a distribution of each level for each labelled image"):
        OutOfFold.read(kept(tmp_path, **changes), OUTPUTS)


def test_a_classifier_that_was_not_cross_fitted_has_none(tmp_path: Path) -> None:
    partial = open_partial(tmp_path / "01-teacher", {})
    write(partial / "other.h5", {"image": SAID.images}, {})
    with pytest.raises(ArtifactError, match=r"out_of_fold\.h5"):
        OutOfFold.read(commit(tmp_path / "01-teacher", FIELDS), OUTPUTS)
