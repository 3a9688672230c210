"""Curves, labels of the unlabelled images and contact sheets of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from measured_runs import LABELS_ALONE, scores
from nstudent.evaluation.scores import HEADLINE, ClassifierScores, Interval
from nstudent.report import curves, heap
from nstudent.report.charts import bars, interval_chart, line_chart
from nstudent.report.limits import Limits
from nstudent.report.material import Material
from nstudent.report.pictures import Pictures
from nstudent.report.sheets import Sheet, sheets
from nstudent.report.summary import _score_table
from nstudent.storage.artifact import Artifact
from written_run import WrittenRun


def epochs(*values: tuple[float, float]) -> list[Mapping[str, float]]:
    """Epochs with these losses and validation scores."""
    return [{"epoch": n, "loss": loss, "validation": score} for n, (loss, score) in enumerate(values, start=1)]


def test_a_score_that_falls_while_the_loss_goes_on_falling_is_over_fitting_from_its_best_epoch_on() -> None:
    found = epochs((2.0, 0.6), (1.0, 0.8), (0.5, 0.75), (0.1, 0.7))
    assert curves.overfit_from(found, images=400) == 2


@pytest.mark.parametrize(
    ("values", "images"),
    [
        # Within a standard error of so few images.
        (((1.0, 0.8), (0.5, 0.75)), 25),
        # The loss has risen as well: that is a harder task, such as CutMix makes it, and no over-fitting.
        (((1.0, 0.8), (1.5, 0.7)), 400),
        (((1.0, 0.7), (0.5, 0.8)), 400),
        (((1.0, 0.8),), 400),
        ((), 400),
    ],
)
def test_no_over_fitting_is_claimed_otherwise(values: tuple[tuple[float, float], ...], images: int) -> None:
    assert curves.overfit_from(epochs(*values), images) is None


def test_over_fitting_is_marked_in_the_charts_and_said(tmp_path: Path) -> None:
    fell = tuple(dict(each) for each in epochs((2.0, 0.6), (1.0, 0.9), (0.5, 0.7)))
    found, left_out = curves.trainings(Material.read(WrittenRun(tmp_path / "run", epochs=fell).write()), Limits())
    assert left_out == 0
    assert [training.name for training in found] == ["01-teacher/0", "02-baseline/0", "06-student/0"]
    assert all(training.is_overfit and "from 90.0 % to 70.0 %" in training.said for training in found)
    loss, score = found[0].charts
    assert loss.best == score.best == score.lines[0].points[1][0]


def test_curves_are_those_of_the_files_where_there_are_some(tmp_path: Path) -> None:
    folder = WrittenRun(tmp_path / "run", curves=True).write()
    assert list(Material.read(folder).curves) == ["01-teacher/member 0", "02-baseline/member 0", "06-student/member 0"]
    # Of a step that is none of this run any more.
    (folder / "curves" / "06-student.member-0.csv").rename(folder / "curves" / "10-student.member-0.csv")
    text = (folder / "curves" / "10-student.member-0.csv").read_text().replace("06-student", "10-student")
    (folder / "curves" / "10-student.member-0.csv").write_text(text)
    assert list(Material.read(folder).curves) == ["01-teacher/member 0", "02-baseline/member 0", "06-student/0"]


def test_a_long_curve_is_thinned_and_keeps_its_ends(tmp_path: Path) -> None:
    long = tuple({"epoch": n, "loss": 1.0 / n, "learning_rate": 0.1} for n in range(1, 1001))
    material = Material.read(WrittenRun(tmp_path / "run", epochs=long).write())
    (first, *_), left_out = curves.trainings(material, Limits(points=50, trainings=1))
    assert left_out == 2
    points = first.charts[0].lines[0].points
    assert len(points) == 50
    assert points[0][0] == min(x for x, _ in points)
    assert first.said == "No score was measured in this training."


def test_a_chart_without_a_point_is_none_and_equal_values_draw_a_line() -> None:
    assert line_chart("t", [("a", [])], "epoch", percent=False) is None
    chart = line_chart("t", [("a", [(1.0, 0.5), (2.0, 0.5)])], "epoch", percent=True)
    assert chart is not None
    assert len({y for _, y in chart.lines[0].points}) == 1
    assert [tick.text for tick in chart.ys] == ["50 %"]


def test_intervals_stand_in_their_order_and_zero_is_marked_for_differences() -> None:
    rows = [("a", Interval(0.5, 0.4, 0.6)), ("b", Interval(0.7, 0.6, 0.8))]
    chart = interval_chart("t", rows, points=False)
    assert chart is not None
    assert chart.zero is None
    assert [row.said for row in chart.rows] == ["50.0 [40.0, 60.0]", "70.0 [60.0, 80.0]"]
    assert chart.rows[0].low < chart.rows[0].at < chart.rows[0].high < chart.rows[1].high
    assert chart.rows[0].high == pytest.approx(chart.rows[1].low)
    with_zero = interval_chart("t", rows, points=True)
    assert with_zero is not None
    assert with_zero.zero is not None
    assert with_zero.zero < with_zero.rows[0].low
    assert with_zero.rows[0].said == "+50.0 [40.0, 60.0]"
    assert interval_chart("t", [], points=True) is None
    none = interval_chart("t", [("a", Interval(0.0, -0.0001, 0.0001))], points=True)
    assert none is not None
    assert none.rows[0].said == "+0.0 [0.0, 0.0]"


def test_shares_fill_their_part_of_a_bar_and_counts_are_drawn_beside_the_largest() -> None:
    shares, counts = bars([("a", 0.25), ("b", 1.0)]), bars([("c", 5), ("d", 10)])
    assert [(bar.said, bar.share) for bar in shares] == [("25.0 %", 0.25), ("100.0 %", 1.0)]
    assert [(bar.said, bar.share) for bar in counts] == [("5", 0.5), ("10", 1.0)]


def test_what_cannot_be_compared_has_no_bar() -> None:
    assert bars([("classes", 11)]) == ()
    assert bars([("half interval", 0.056), ("differing", 9)]) == ()
    assert bars([]) == ()


# The heap: two apples, two pears, a beet and three carrots; the filter doubts an apple's fine class and a whole carrot.
DROPPED = ((0, 1), (7, 0), (7, 1))


@pytest.fixture
def judged(tmp_path: Path) -> Material:
    truth = np.array([0, 0, 1, 1, 2, 3, 3, 2])
    return Material.read(WrittenRun(tmp_path / "run", dropped=DROPPED, heap_truth=truth).write())


def test_labels_are_counted_by_class_before_and_after_each_rule(judged: Material) -> None:
    coarse, fine = heap.heap_levels(judged, Limits())
    assert (coarse.level, coarse.round, coarse.truth_known, coarse.has_filter) == ("coarse", 1, True, True)
    whole, *rows = fine.rows
    assert (whole.name, whole.made, whole.sure, whole.balanced, whole.filtered, whole.shown) == (
        "all classes",
        *[8] * 3,
        6,
        6,
    )
    # The class that loses the larger share stands first.
    assert [(row.name, row.made, row.filtered) for row in rows] == [
        ("apple", 2, 1),
        ("carrot", 3, 2),
        ("pear", 2, 2),
        ("beet", 1, 1),
    ]
    carrot = rows[1]
    assert (carrot.right_made, carrot.right_shown) == (pytest.approx(2 / 3), 1.0)


def test_what_is_taught_is_counted_by_level_and_class(judged: Material) -> None:
    assert [counts.tolist() for counts in heap.taught(judged)] == [[4, 3], [1, 2, 1, 2]]


def test_the_truth_is_not_shown_where_nobody_knows_it(tmp_path: Path) -> None:
    found = heap.heap_levels(Material.read(WrittenRun(tmp_path / "run").write()), Limits())
    assert not any(level.truth_known or level.rows[0].right_made for level in found)


def made_sheets(material: Material, limits: Limits | None = None) -> dict[str, Sheet]:
    pictures = Pictures(Artifact(material.run_dir / "00-data"), material.data, 16)
    return {sheet.title: sheet for sheet in sheets(material, pictures, limits or Limits())}


def test_the_most_confident_mistakes_stand_first(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path / "run", test=np.array([0, 1, 2, 3]), said=np.array([0, 0, 0, 3]))
    found = made_sheets(Material.read(run.write()))["Most confident mistakes"]
    # Two validation images come first and are right; confidence falls from row to row.
    assert [picture.lines for picture in found.pictures] == [
        ("is fruit / pear", "taken for fruit / apple (68 %)", "test"),
        ("is root / beet", "taken for fruit / apple (59 %)", "test"),
    ]
    assert found.total == 2
    assert all(picture.uri for picture in found.pictures)
    few = made_sheets(Material.read(run.folder), Limits(pictures=1))["Most confident mistakes"]
    assert (len(few.pictures), few.total) == (1, 2)


def test_the_least_sure_unlabelled_images_stand_first(judged: Material) -> None:
    found = made_sheets(judged, Limits(pictures=2))["Most doubtful unlabelled images"]
    assert [picture.lines for picture in found.pictures] == [
        ("labelled root / carrot (30 %)", "is root / beet"),
        ("labelled root / carrot (39 %)", "is root / carrot"),
    ]
    assert found.total == 8


def test_what_the_filter_dropped_is_shown_the_surest_first(judged: Material) -> None:
    found = made_sheets(judged)["Dropped by the filter"]
    assert [picture.lines[0] for picture in found.pictures] == [
        "labelled fruit / apple (90 %)",
        "labelled root / carrot (30 %)",
    ]
    assert found.total == 2


def test_labels_that_changed_between_rounds_are_shown(tmp_path: Path) -> None:
    folder = WrittenRun(tmp_path / "run", rounds=2).write()
    assert made_sheets(Material.read(folder))["Changed between rounds"].total == 0
    other = WrittenRun(tmp_path / "other", rounds=2, heap=np.array([0, 1, 1, 1, 2, 3, 3, 3])).write()
    # The last round labels the second image otherwise.
    for name in ("08-pseudolabel", "09-filter", "10-student", "11-choose", "12-evaluate"):
        (folder / name).rename(tmp_path / name)
        (other / name).rename(folder / name)
    material = Material.read(folder)
    # The filter of the other run has judged the same bytes of labels as that of this one would have.
    found = made_sheets(material)["Changed between rounds"]
    assert [picture.lines for picture in found.pictures] == [("was fruit / apple", "is now fruit / pear (82 %)")]


def test_images_that_are_left_out_are_shown_with_the_reason(judged: Material) -> None:
    found = made_sheets(judged)["Left out"]
    (picture,) = found.pictures
    assert (picture.name, picture.lines) == ("photo 5.jpg", ("the same as photo 0.jpg",))
    assert picture.uri is not None


def test_pictures_that_are_not_there_are_left_out_with_a_note(tmp_path: Path) -> None:
    from nstudent.report.page import render

    folder = WrittenRun(tmp_path / "run", storage="original").write()
    page = render(folder).decode()
    assert "data:image" not in page
    assert "no picture" in page
    assert "Some pictures are not shown: data.root: there is no folder /nowhere" in page


def test_a_damaged_shard_costs_its_pictures_alone(tmp_path: Path) -> None:
    folder = WrittenRun(tmp_path / "run").write()
    shard = folder / "00-data" / "pixels-00000.h5"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    material = Material.read(folder)
    pictures = Pictures(Artifact(folder / "00-data"), material.data, 16)
    assert pictures.uri(0) is None
    assert "has changed since it was made" in pictures.missing


@pytest.mark.parametrize(
    ("levels", "shown"),
    [
        (("class",), [HEADLINE]),
        (("coarse", "fine"), [HEADLINE, "whole path", "accuracy/coarse", "accuracy/fine"]),
    ],
)
def test_with_one_level_its_score_is_shown_once(levels: tuple[str, ...], shown: list[str]) -> None:
    score = Interval(0.8, 0.7, 0.9)
    test = dict.fromkeys([HEADLINE, "whole path", *(f"accuracy/{level}" for level in levels)], score)
    alone = replace(LABELS_ALONE, test=test)
    of_all = {"02-baseline": ClassifierScores(0.01, 1, 1.0, test, test)}
    names, (row,) = _score_table(scores(None, final=alone, classifiers=of_all))
    assert (names, row.cells, row.is_final) == (shown, (score,) * len(shown), True)
