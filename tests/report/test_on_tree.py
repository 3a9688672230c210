"""What the report says of the labels on the tree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nstudent.evaluation.scores import LevelReach, TreeScores
from nstudent.report.material import Material
from nstudent.report.page import render
from nstudent.report.tree import Wrongness, on_tree
from test_so_far import cells, section
from written_run import WrittenRun


def test_how_far_off_and_how_deep_the_labels_are_stands_in_the_report(tmp_path: Path) -> None:
    folder = WrittenRun(tmp_path / "run").write()
    shown = section(render(folder).decode(), "severity")
    assert "contradict\neach other for 12.5 % of the images" in shown
    rows = cells(render(folder).decode(), "severity")
    assert ["01-teacher", "4", "1.50"] in rows
    assert ["coarse", "75.0", "50.0"] in rows
    assert [row[0] for row in rows if row[1:] == ["75.0", "50.0"]] == ["coarse", "fine"]


def test_the_final_classifier_and_the_best_of_the_labels_alone_are_among_the_classifiers(tmp_path: Path) -> None:
    material = Material.read(WrittenRun(tmp_path / "run").write())
    scores = material.measured.scores
    pool = replace(scores.final, name="pool of all", on_tree=TreeScores(None, 0, {"a": LevelReach(1.0, 1.0)} | REACH))
    changed = replace(material, measured=replace(material.measured, scored=replace(scores, final=pool)))
    found = on_tree(changed)
    assert found is not None
    assert found.wrongness[-1] == Wrongness("pool of all", True, 0, None)
    assert [each.name for each in found.wrongness].count("01-teacher") == 1


def test_classes_of_one_level_and_scores_of_an_earlier_version_have_nothing_on_the_tree(tmp_path: Path) -> None:
    material = Material.read(WrittenRun(tmp_path / "run").write())
    scores = material.measured.scores
    for tree in (None, TreeScores(1.0, 4, {"class": LevelReach(1.0, 0.5)})):
        final = replace(scores.final, on_tree=tree)
        changed = replace(material, measured=replace(material.measured, scored=replace(scores, final=final)))
        assert on_tree(changed) is None


REACH = {"fine": LevelReach(0.5, 0.5)}
