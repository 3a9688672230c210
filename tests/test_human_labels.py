"""The benchmark of the filter on labels that people got wrong."""

import io
import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import core_data
import human_labels

CLEAN, NOISY = [0, 2, 3, 9], [0, 2, 5, 9]


def sprite(images: int) -> np.ndarray:
    """Images of 32 px, 25 in a row, as the file holds them."""
    content = io.BytesIO()
    Image.new("RGB", (25 * 32, 32 * -(-images // 25))).save(content, "png")
    return np.frombuffer(content.getvalue(), np.uint8)


def test_the_training_images_have_the_labels_that_were_asked_for(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "some.npz",
        train_n=np.array(4),
        test_n=np.array(2),
        train_00=sprite(4),
        test_00=sprite(2),
        clean_label=np.array(CLEAN),
        worse_label=np.array(NOISY),
        test_label=np.array([1, 6]),
    )
    said = {}
    for labels in ("clean_label", "worse_label"):
        core_data.cifar(tmp_path / "some.npz", tmp_path / f"{labels}.h5", labels)
        with h5py.File(tmp_path / f"{labels}.h5") as file:
            names = json.loads(file.attrs["meta"])["levels"]
            said[labels] = [names[2][row[2]] if row[2] >= 0 else "" for row in file["label"][:]]
    assert said["clean_label"] == ["airplane", "", "cat", "truck", "automobile", ""]
    assert said["worse_label"] == ["airplane", "", "dog", "truck", "automobile", ""]


@pytest.mark.parametrize(
    ("kept", "row"),
    [
        ([True, True, True, True], ("50.0", "50.0", "100.0", "0.0")),
        ([True, True, False, True], ("50.0", "33.3", "100.0", "50.0")),
        ([False, True, False, False], ("50.0", "0.0", "50.0", "100.0")),
    ],
)
def test_golden_what_was_kept_is_held_against_the_truth(kept: list[bool], row: tuple[str, ...]) -> None:
    """Of four labels, two are right; a fifth image has none at this level."""
    there = np.array([True] * 4 + [False])
    right = np.array([True, True, False, False, False])
    assert human_labels._compared(there, right, np.array([*kept, False])) == row
