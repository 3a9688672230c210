"""Classes, confusion and severity: numbers that can be counted by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nstudent.report import classes
from nstudent.report.limits import Limits
from nstudent.report.material import Material
from nstudent.taxonomy.tree import UNKNOWN
from written_run import FRUIT, WrittenRun

# FRUIT: 0 apple, 1 pear (fruit); 2 carrot, 3 beet (root). Terminals are sorted: apple, pear, beet, carrot.
NAMES = ("apple", "pear", "beet", "carrot")


@pytest.fixture
def material(tmp_path: Path) -> Material:
    """Four apples, one taken for a pear and one for a carrot; two pears, both right; a beet taken for a carrot."""
    test, said = [0, 0, 0, 0, 1, 1, 2, 3], [0, 0, 1, 3, 1, 1, 3, 3]
    run = WrittenRun(tmp_path / "run", test=np.array(test), said=np.array(said))
    assert [run.taxonomy.names(row)["fine"] for row in run.taxonomy.terminals] == list(NAMES)
    return Material.read(run.write())


def fine(material: Material, limits: Limits | None = None) -> classes.LevelClasses:
    return classes.levels(material, [np.array([5, 6]), np.array([1, 2, 3, 4])], limits or Limits())[1]


def test_each_class_has_its_recall_precision_and_the_class_it_is_taken_for(material: Material) -> None:
    rows = {row.name: row for row in fine(material).rows}
    names = material.images.taxonomy.classes[1]
    apple, carrot = rows["apple"], rows["carrot"]
    assert (apple.images, apple.recall, apple.precision) == (4, 0.5, 1.0)
    assert apple.f1 == pytest.approx(2 / 3)
    assert apple.taken_for in ("pear (1)", "carrot (1)")
    assert (carrot.images, carrot.recall, carrot.precision, carrot.taken_for) == (1, 1.0, pytest.approx(1 / 3), "")
    assert rows["beet"].taken_for == "carrot (1)"
    assert rows["beet"].precision is None
    assert [rows[name].taught for name in names] == [1, 2, 3, 4]
    assert {row.trained for row in rows.values()} == {1}


def test_a_level_is_held_against_saying_one_class_of_every_image(material: Material) -> None:
    found = fine(material).constant
    assert found is not None
    # Four of eight are apples, and five answers are right.
    assert (found.name, found.share, found.right) == ("apple", 0.5, 0.625)


def test_the_worst_class_stands_first_and_one_without_images_last(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path / "run", test=np.array([0, 0, 1, 2]), said=np.array([0, 1, 1, 1]))
    assert [row.name for row in fine(Material.read(run.write())).rows] == ["beet", "pear", "apple", "carrot"]


def test_a_confusion_matrix_counts_every_image_once(material: Material) -> None:
    found = fine(material)
    assert found.matrix is not None
    counts = {
        (found.matrix.classes[i], found.matrix.classes[j]): count
        for i, row in enumerate(found.matrix.counts)
        for j, count in enumerate(row)
        if count
    }
    assert counts == {
        ("apple", "apple"): 2,
        ("apple", "pear"): 1,
        ("apple", "carrot"): 1,
        ("pear", "pear"): 2,
        ("beet", "carrot"): 1,
        ("carrot", "carrot"): 1,
    }
    row = found.matrix.classes.index("apple")
    assert found.matrix.share(row, row) == 0.5


def test_mistakes_among_siblings_are_told_from_the_others(material: Material) -> None:
    coarse, _ = classes.levels(material, [], Limits())
    found = fine(material)
    assert (found.mistakes, found.within) == (3, 2)
    assert (coarse.mistakes, coarse.groups) == (1, ())
    assert [(group.title, group.classes) for group in found.groups] == [
        ("fruit", ("apple", "pear")),
        ("root", ("beet", "carrot")),
    ]
    # The apple that was taken for a carrot is no matter of the fruits alone.
    pear, apple = (found.groups[0].classes.index(name) for name in ("pear", "apple"))
    assert found.groups[0].counts[apple][pear] == 1
    assert sum(map(sum, found.groups[0].counts)) == 5


def test_a_label_that_ends_above_has_a_place_in_the_matrix(tmp_path: Path) -> None:
    labels = (("fruit", "apple"), ("fruit", "pear"), ("stone", "-"))
    run = WrittenRun(
        tmp_path / "run", labels=labels, test=np.array([0, 2, 2]), said=np.array([2, 2, 1]), heap=np.array([0])
    )
    taxonomy = run.taxonomy
    assert taxonomy.terminals[2] == (1, -1)
    found = fine_of(run)
    assert found.matrix is not None
    assert found.matrix.classes == ("apple", "pear", "(ends above)")
    assert found.matrix.counts == ((0, 0, 1), (0, 0, 0), (0, 1, 1))
    assert found.rows[0].taken_for == "(ends above) (1)"


def fine_of(run: WrittenRun) -> classes.LevelClasses:
    return classes.levels(Material.read(run.write()), [], Limits())[1]


def test_many_classes_have_no_matrix_but_the_pairs_that_are_confused_most(tmp_path: Path) -> None:
    labels = [("all", f"class {number:03}") for number in range(40)]
    test = np.array([0] * 5 + [1] * 3 + [2] * 4)
    run = WrittenRun(tmp_path / "run", labels=labels, test=test, said=np.array([7] * 5 + [8, 8, 1] + [2] * 4))
    found = classes.levels(Material.read(run.write()), [], Limits(matrix=10, siblings=10, rows=6, pairs=1))[1]
    assert found.matrix is None
    assert [(pair.truth, pair.said, pair.images, pair.of) for pair in found.pairs] == [("class 000", "class 007", 5, 5)]
    assert (len(found.rows), found.rows_left_out) == (6, 34)
    # The classes that are confused, of forty siblings.
    assert {"class 000", "class 007", "class 001", "class 008"} <= set(found.groups[0].classes)
    assert found.groups[0].title == "all (30 more classes are not shown)"


def test_mistakes_are_told_by_the_first_level_that_is_wrong(material: Material) -> None:
    assert [(row.said, row.images) for row in classes.severities(material)] == [
        ("the whole label is right", 5),
        ("right down to coarse, another class at fine", 2),
        ("another class at coarse", 1),
    ]
    assert sum(row.share for row in classes.severities(material)) == pytest.approx(1.0)


def test_a_level_whose_truth_nobody_knows_is_shown_without_numbers(material: Material) -> None:
    truth = material.final.truth.copy()
    truth[:, 1] = UNKNOWN
    vars(material)["final"] = replace(material.final, truth=truth)
    found = fine(material)
    assert {row.images for row in found.rows} == {0}
    assert (found.mistakes, found.pairs, found.groups) == (0, (), ())
    assert found.constant is None
    assert found.matrix is not None
    assert sum(map(sum, found.matrix.counts)) == 0
    assert classes.severities(material) == []


def test_a_label_that_ends_too_early_or_goes_on_is_a_mistake_of_its_own_kind(tmp_path: Path) -> None:
    labels = [*FRUIT, ("fruit", "-")]
    run = WrittenRun(
        tmp_path / "run", labels=labels, test=np.array([0, 1, 1]), said=np.array([1, 0, 0]), heap=np.array([0])
    )
    assert run.taxonomy.terminals[0] == (0, -1)
    assert [(row.said, row.images) for row in classes.severities(Material.read(run.write()))] == [
        ("right down to coarse, ends too early at fine", 2),
        ("right down to coarse, goes on where the label ends at fine", 1),
    ]
