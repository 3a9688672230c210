"""The table of what became of the labels of the unlabelled images."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from nstudent.cli.report import report_command
from nstudent.errors import ArtifactError, ConfigError
from nstudent.labels.store import ShardLabels
from nstudent.report.label_table import DROPPED, NOT_SURE, TAUGHT, _used, write_label_table
from written_run import WrittenRun


def table(run: WrittenRun, out: Path) -> list[dict[str, str]]:
    write_label_table(run.write(), out)
    with open(out, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_row_says_what_became_of_each_level_of_a_label(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path / "run", heap=np.array([0, 1, 3]), dropped=((0, 1), (2, 0), (2, 1)))
    rows = table(run, tmp_path / "labels.csv")
    terminals = run.taxonomy.terminal_rows[[0, 1, 3]].tolist()
    assert [{"coarse": row["coarse"], "fine": row["fine"]} for row in rows] == list(map(run.taxonomy.names, terminals))
    assert [(row["coarse used"], row["fine used"]) for row in rows] == [
        (TAUGHT, DROPPED),
        (TAUGHT, TAUGHT),
        (DROPPED, DROPPED),
    ]
    assert all(0 < float(row["coarse probability"]) <= 1 for row in rows)
    assert {row["round"] for row in rows} == {"1"}
    assert {row["changed"] for row in rows} == {""}, "there is no round before"
    assert all(row["image"].startswith("photo ") for row in rows)


def test_a_label_that_was_not_sure_enough_was_not_dropped_by_the_filter() -> None:
    paths = np.array([[0, 1], [0, 1], [0, 1], [0, -1]], dtype=np.int32)
    part = ShardLabels(slice(0, 4), np.arange(4), paths, np.ones((4, 2), dtype=np.float32))
    sure = np.array([[1, 1], [1, 0], [1, 1], [1, 0]], dtype=bool)
    left = np.array([[1, 1], [1, 0], [1, 0], [1, 0]], dtype=bool)
    assert _used(part, sure, left).tolist() == [[TAUGHT, TAUGHT], [TAUGHT, NOT_SURE], [TAUGHT, DROPPED], [TAUGHT, ""]]


def test_a_level_below_the_end_of_a_label_is_empty(tmp_path: Path) -> None:
    labels = (("fruit", "apple"), ("fruit", "pear"), ("stone", "-"))
    run = WrittenRun(tmp_path / "run", labels=labels, test=np.array([0]), said=np.array([0]), heap=np.array([2]))
    (row,) = table(run, tmp_path / "labels.csv")
    assert row["coarse"] == "stone"
    assert row["fine"] == row["fine probability"] == row["fine used"] == ""


def test_a_second_round_says_which_labels_are_others(tmp_path: Path) -> None:
    rows = table(WrittenRun(tmp_path / "run", rounds=2), tmp_path / "labels.csv")
    second = [row for row in rows if row["round"] == "2"]
    assert len(second) == len(rows) // 2
    assert {row["changed"] for row in second} <= {"yes", "no"}


def test_hostile_names_stay_in_their_cells(tmp_path: Path) -> None:
    hostile = 'a,"b"\n=cmd {}.jpg'
    rows = table(WrittenRun(tmp_path / "run", names=hostile), tmp_path / "labels.csv")
    assert all(row["image"].startswith('a,"b"\n=cmd ') for row in rows)


def test_what_cannot_be_written_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    folder = WrittenRun(tmp_path / "run").write()
    there = tmp_path / "there.csv"
    there.write_text("mine")
    with pytest.raises(ConfigError, match="is there: remove it, or write to another file"):
        write_label_table(folder, there)
    assert there.read_text() == "mine"
    with pytest.raises(ConfigError, match=r"write to a file whose name ends in \.csv"):
        write_label_table(folder, tmp_path / "labels.txt")
    none = WrittenRun(tmp_path / "none", rounds=0).write()
    with pytest.raises(ConfigError, match="no unlabelled image is labelled yet"):
        write_label_table(none, tmp_path / "labels.csv")
    twice = WrittenRun(tmp_path / "twice", levels=("image", "fine")).write()
    with pytest.raises(ConfigError, match="two columns would be called 'image'"):
        write_label_table(twice, tmp_path / "labels.csv")
    with pytest.raises(ArtifactError, match="is not a run folder"):
        write_label_table(tmp_path, tmp_path / "labels.csv")
    assert not list(tmp_path.glob("*labels*"))


def test_the_command_writes_the_table_in_place_of_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = WrittenRun(tmp_path / "run", heap=np.array([0, 1, 3])).write()
    report_command(folder, tmp_path / "labels.csv")
    assert capsys.readouterr().out == f"{tmp_path / 'labels.csv'}: 3 labels\n"
    assert not (folder / "report.html").exists()
