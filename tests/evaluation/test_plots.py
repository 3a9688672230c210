"""The figure of a run: a valid picture that is not empty, the same bytes every time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from measured_runs import LABELS_ALONE, difference, gain
from measured_runs import scores as made
from nstudent.evaluation.plots import save_figure
from nstudent.evaluation.scores import COMPARED, ClassifierScores, HeapGain, Interval, LevelQuality, Scores
from PIL import Image

JUDGED = {"05-filter": "04-pseudolabel"}


def compared(found: HeapGain, scored: ClassifierScores) -> HeapGain:
    """A gain whose sides have these scores."""
    sides = [replace(side, test=scored.test) for side in (found.with_heap, found.labels_alone)]
    return replace(found, with_heap=sides[0], labels_alone=sides[1])


def results(labels: bool = True, missing: str | None = None, student: float = 0.8, filtered: float = 0.95) -> Scores:
    def scored(value: float) -> ClassifierScores:
        names = ("accuracy/coarse", "accuracy/fine", *COMPARED)
        test = {name: Interval(value, value - 0.03, value + 0.02) for name in names}
        return ClassifierScores(0.1, 100, None, validation={}, test=test | ({missing: None} if missing else {}))

    def quality(precision: float) -> dict[str, LevelQuality]:
        return {"coarse": LevelQuality(precision, 90, 0.9), "fine": LevelQuality(0.8 if labels else None, 50, 0.5)}

    return made(
        compared(gain(0.02, -0.01, 0.05), scored(0.8)),
        classifiers={"01-teacher": scored(0.8), "02-baseline": scored(0.8), "06-student": scored(student)},
        pseudo_labels={"04-pseudolabel": quality(0.95), "05-filter": quality(filtered)} if labels else {},
    )


HISTORIES = {
    "01-teacher": [[{"epoch": e, "loss": 1 / e, "validation": 1 - 1 / e} for e in range(1, 6)] for _ in range(2)],
    "06-student": [[{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5, "validation": 0.7}]],
}


def drawn(path: Path, scores: Scores, judged: dict[str, str] | None = None, histories: Any = HISTORIES) -> np.ndarray:
    save_figure(path, scores, histories, (JUDGED if scores.pseudo_labels else {}) if judged is None else judged)
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.mark.slow
@pytest.mark.parametrize("scores", [results(), results(labels=False), results(missing="accuracy/fine")])
def test_the_figure_is_a_picture_with_something_in_each_panel(tmp_path: Path, scores: dict[str, Any]) -> None:
    pixels = drawn(tmp_path / "scores.png", scores)

    height, width = pixels.shape[:2]
    assert width > height > 600
    for half in np.array_split(pixels, 2):
        for panel in np.array_split(half, 2, axis=1):
            assert (panel < 200).mean() > 0.005


def _pixels_of(panel: np.ndarray, colour: str) -> int:
    wanted = 255 * np.array(to_rgb(colour))
    return int((np.abs(panel - wanted) < 2).all(axis=2).sum())


@pytest.mark.slow
def test_bars_are_as_long_as_their_scores(tmp_path: Path) -> None:
    """An axis that begins above zero would make small differences look large."""
    areas = []
    for value in (0.8, 0.4):
        pixels = drawn(tmp_path / "scores.png", results(student=value))
        height, width = pixels.shape[:2]
        areas.append(_pixels_of(pixels[: height // 2, : width // 2], "C2"))
    assert areas[1] / areas[0] == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_without_true_labels_the_curves_have_the_room_of_their_panel(tmp_path: Path) -> None:
    for labels, curve_is_there in ((False, True), (True, False)):
        pixels = drawn(tmp_path / "scores.png", results(labels=labels))
        height, width = pixels.shape[:2]
        # The end of a curve of the student, far right.
        assert bool(_pixels_of(pixels[height // 2 :, -width // 4 :], "C2")) is curve_is_there


@pytest.mark.slow
def test_a_member_without_epochs_has_no_curve(tmp_path: Path) -> None:
    with_it = HISTORIES | {"01-teacher": [[], *HISTORIES["01-teacher"]]}

    found = drawn(tmp_path / "one.png", results(), histories=with_it)

    assert np.array_equal(found, drawn(tmp_path / "two.png", results()))
    drawn(tmp_path / "none.png", results(), histories={"01-teacher": [[]]})


@pytest.mark.slow
def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        drawn(tmp_path / name, results())

    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.slow
def test_what_is_drawn_depends_on_the_scores(tmp_path: Path) -> None:
    one = drawn(tmp_path / "one.png", results())

    assert not np.array_equal(one, drawn(tmp_path / "two.png", results(student=0.4)))
    assert not np.array_equal(one, drawn(tmp_path / "two.png", results(filtered=0.5)))


@pytest.mark.slow
def test_a_filter_is_drawn_beside_the_labels_that_it_judged(tmp_path: Path) -> None:
    """Whatever the order of the steps: these are not those that lie next to each other."""
    one, other = results(), results()
    qualities = {**one.pseudo_labels, "03-pseudolabel": one.pseudo_labels["05-filter"]}
    one.pseudo_labels.update(qualities)
    other.pseudo_labels.update(dict(reversed(qualities.items())))

    assert np.array_equal(drawn(tmp_path / "one.png", one), drawn(tmp_path / "two.png", other))
    nothing = drawn(tmp_path / "two.png", other, judged={})
    assert not np.array_equal(drawn(tmp_path / "one.png", one), nothing)


@pytest.mark.slow
def test_the_gain_and_the_sides_are_drawn(tmp_path: Path) -> None:
    one = drawn(tmp_path / "one.png", results())

    def differs(**changed: Any) -> bool:
        return not np.array_equal(one, drawn(tmp_path / "two.png", replace(results(), **changed)))

    baseline = results().classifiers["02-baseline"]
    assert differs(heap_gain=compared(gain(0.02, 0.01, 0.03), baseline))
    assert differs(heap_gain=None, final=replace(LABELS_ALONE, test=baseline.test))
    assert differs(equal_passes=difference(0.01, 0.0, 0.02))
    assert not differs()


def test_names_that_would_begin_a_formula_are_drawn_as_they_are(tmp_path: Path) -> None:
    found = results()
    found.classifiers["a $ and a $x^ b"] = found.classifiers["01-teacher"]
    drawn(tmp_path / "one.png", found)
