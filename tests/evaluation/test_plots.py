"""The figure of a run: a valid picture that is not empty, the same bytes every time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nstudent.evaluation.plots import save_figure
from PIL import Image


def entry(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.03, "high": value + 0.02}


def results(labels: bool = True, missing: str | None = None) -> dict[str, Any]:
    test = {name: entry(0.8) for name in ("accuracy/coarse", "accuracy/fine", "contest alone", "exact path")}
    if missing:
        test[missing] = None
    quality = {
        "coarse": {"precision": 0.95, "kept": 90, "share": 0.9},
        "fine": {"precision": 0.8 if labels else None, "kept": 50, "share": 0.5},
    }
    return {
        "final": "06-student",
        "confidence": 0.95,
        "classifiers": {step: {"test": test} for step in ("01-teacher", "02-baseline", "06-student")},
        "pseudo_labels": {"04-pseudolabel": quality, "05-filter": quality} if labels else {},
    }


HISTORIES = {
    "01-teacher": [[{"epoch": e, "loss": 1 / e, "validation": 1 - 1 / e} for e in range(1, 6)] for _ in range(2)],
    "06-student": [[{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5, "validation": 0.7}]],
}


def drawn(path: Path, scores: dict[str, Any], histories: dict[str, Any] | None = None) -> np.ndarray:
    save_figure(path, scores, HISTORIES if histories is None else histories)
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("scores", [results(), results(labels=False), results(missing="accuracy/fine")])
def test_the_figure_is_a_picture_with_something_in_each_panel(tmp_path: Path, scores: dict[str, Any]) -> None:
    pixels = drawn(tmp_path / "scores.png", scores)

    height, width = pixels.shape[:2]
    assert width > 1000 > height > 300
    for third in np.array_split(pixels, 3, axis=1):
        assert (third < 200).mean() > 0.005


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        drawn(tmp_path / name, results())

    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_what_is_drawn_depends_on_the_scores(tmp_path: Path) -> None:
    other = results()
    names = other["classifiers"]["06-student"]["test"]
    other["classifiers"]["06-student"] = {"test": {name: entry(0.4) for name in names}}

    assert not np.array_equal(drawn(tmp_path / "one.png", results()), drawn(tmp_path / "two.png", other))
