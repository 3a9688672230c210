"""The end of a run on the screen: tables that fit 80 columns, whatever the names, and the last line in words."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from measured_runs import FILTER, LABELS, STUDENT, difference, filtered, gain, measured, scores, side
from nstudent.cli import run
from nstudent.cli.scores import print_findings, print_scores
from nstudent.evaluation.scores import (
    COMPARED,
    FIGURE,
    HEADLINE,
    OF_A_LEVEL,
    ClassifierScores,
    Interval,
    LevelCalibration,
    LevelReach,
    Scores,
    TreeScores,
)
from nstudent.runs.finding import Finding
from nstudent.runs.findings import findings
from nstudent.runs.measured import Measured
from nstudent.runs.plan import plan
from rich.cells import cell_len
from typer import Exit

HELPED = gain(0.014, 0.006, 0.023)
HOSTILE = [
    "\x1b[2J\x1b[1;1Hall is well",
    "one\ntwo",
    "[red]text[/red]",
    "사과".join("나무를 심는다"),
    "a very long name of a level with many words in it",
]


def of_levels(*levels: str, value: float = 1.0) -> Scores:
    """Scores at these levels, as wide as they can be."""
    found = {OF_A_LEVEL + name: Interval(value, 0.5, 1.0) for name in levels}
    found |= dict.fromkeys(COMPARED, Interval(value, 0.5, 1.0))
    classifiers = {name: ClassifierScores(0.1, 10, 5.0, found, found) for name in ("01-teacher", STUDENT)}
    both = [replace(each, test=found) for each in (HELPED.with_heap, HELPED.labels_alone)]
    heap_gain = replace(HELPED, with_heap=both[0], labels_alone=both[1])
    return scores(heap_gain, classifiers=classifiers, final=both[0])


def shown(capsys: pytest.CaptureFixture[str], found: Scores) -> list[str]:
    print_scores(measured(found))
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", ["80", "200"])
@pytest.mark.parametrize(
    "levels",
    [("coarse", "mid", "fine"), ("l1", "l2", "l3", "l4", "l5"), HOSTILE, [f"{i} {HOSTILE[4]}" for i in range(16)], ()],
)
def test_no_line_of_a_table_is_wider_than_80_columns_and_none_is_wrapped(
    levels: tuple[str, ...], columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = shown(capsys, of_levels(*levels))
    assert max(map(cell_len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    # Each block of columns has one line a classifier, and every one of its cells stands in it.
    rows = [line for line in lines if line.startswith("01-teacher")]
    assert sum(line.count("100.0 ±25.0") for line in rows) == len(COMPARED) + len(levels)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_side_with_a_long_name_does_not_widen_a_table(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    heap = replace(HELPED.with_heap, name=name * 3)
    lines = shown(capsys, scores(replace(HELPED, with_heap=heap), final=heap))
    end = next(number for number, line in enumerate(lines) if line.startswith("* final"))
    assert max(map(cell_len, lines[:end])) <= 80


def test_names_that_differ_at_their_end_stay_apart_when_they_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, of_levels("product category above", "product category below"))
    assert re.search(r"produ\S* ?\S*…above +produ\S* ?\S*…below", "\n".join(lines))


def test_the_table_has_the_classifiers_both_sides_and_a_mark_at_the_final_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = shown(capsys, of_levels("coarse", "fine"))
    names = [line[:13].strip() for line in lines[:6]]
    assert names == ["", "", "01-teacher", "06-student", "pool of all *", "02-baseline"]
    assert lines[0].split() == ["level", "whole"]
    assert lines[1].split() == ["accuracy", "path", "coarse", "fine"]


def test_what_a_classifier_is_not_scored_for_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    found = {HEADLINE: None, COMPARED[1]: None}
    one = replace(HELPED.labels_alone, test=found)
    lines = shown(capsys, scores(None, final=one, classifiers={}))
    assert lines[2].split() == ["02-baseline", "*", "-", "-"]


def test_the_costs_of_both_sides_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    heap = replace(side("06-student"), training_gmacs=None, image_passes=None, gmacs=0.012345)
    heap = replace(heap, made_from=("01-teacher", LABELS, "06-student"))
    lines = shown(capsys, scores(replace(HELPED, with_heap=heap), final=heap))
    costs = next(number for number, line in enumerate(lines) if line.startswith("cost"))
    assert lines[costs + 1].split() == ["06-student", "-", "-", "12.3", "0.01235"], "30 + 10 + 700.4 seconds"
    assert lines[costs + 2].split() == ["02-baseline", "1,234", "94,080", "1.2", "0.01"]


def test_the_parts_of_a_pool_have_their_shares(capsys: pytest.CaptureFixture[str]) -> None:
    assert "pool of all: 50% 01-teacher, 50% 06-student" in shown(capsys, scores(HELPED))


def test_one_classifier_has_no_shares(capsys: pytest.CaptureFixture[str]) -> None:
    assert not [line for line in shown(capsys, scores(HELPED)) if line.startswith("02-baseline:")]


def test_one_network_is_held_against_one_network(capsys: pytest.CaptureFixture[str]) -> None:
    found = scores(HELPED, equal_passes=difference(0.025, -0.001, 0.05))
    text = "\n".join(shown(capsys, found))
    assert "+2.5 points [-0.1, 5.0] level accuracy, +2.5 points [-0.1, 5.0] whole path" in text
    assert "against a network of its architecture" not in "\n".join(shown(capsys, scores(HELPED)))


def test_the_calibration_error_stands_beside_that_of_perfect_probabilities(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = scores(HELPED, calibration={"coarse": LevelCalibration(0.021, 0.013), "fine": LevelCalibration(0.05, 0.03)})
    assert "coarse 2.1% (1.3%), fine 5.0% (3.0%)" in "\n".join(shown(capsys, found))


def told(capsys: pytest.CaptureFixture[str], run_: Measured, found: list[Finding] | None = None) -> str:
    print_findings(run_, findings(run_) if found is None else found)
    return capsys.readouterr().out


def test_what_a_filter_drops_is_said_level_by_level(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, measured()) == "05-filter dropped 10 labels at level fine (5%).\n"
    assert told(capsys, measured(filters={FILTER: filtered(dropped=0)})) == ""
    assert "dropped" not in told(capsys, measured(filters={FILTER: filtered(ended="it drops all")}))


def test_a_filter_that_drops_much_has_one_line_and_not_two(capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, measured(filters={FILTER: filtered(dropped=100)}))
    assert said == "05-filter dropped 100 labels at level fine (50%).\n"


def test_a_reason_that_the_last_sentence_names_is_said_once(ends: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ends(measured(scores(gain(-0.014, -0.023, -0.006)), filters={FILTER: filtered(gone=("A/a",), dropped=150)}))
    said = capsys.readouterr().out
    assert said.count("A/a") == 1, "a smaller reason has its own line"
    ends(measured(scores(gain(-0.014, -0.023, -0.006)), filters={FILTER: filtered(gone=("A/a",))}))
    said = capsys.readouterr().out
    assert said.count("A/a") == 1
    assert "A/a" in said.splitlines()[-1]


def test_classes_that_are_gone_and_a_weak_filter_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, measured(filters={FILTER: filtered(reached=0.7, gone=("A/a", "B/b\x1b[2J\n"))}))
    assert "leaves no label of 2 classes: A/a, B/b\\x1b[2J\\n. Try: filter.enabled=false.\n" in said
    assert "The network of 05-filter is weaker than the classifier whose labels it judges: 70.0% against 80.0%" in said
    assert len(said.splitlines()) == 3


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Print the end of a run with these measurements."""
    from nstudent.config.file import load_config

    def end(run_: Measured) -> None:
        monkeypatch.setattr(Measured, "read", lambda folder, step: run_)
        run._print_end(tmp_path, plan(load_config(None, [])))

    return end


def test_the_last_line_of_a_run_says_in_words_whether_the_heap_helped(
    ends: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    ends(measured())
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[-1] == "Your unlabelled images helped: +1.4 points [0.6, 2.3] over the best that the labels alone gave."
    )
    assert lines[-2].startswith("use it:  nstudent predict ")
    assert FIGURE in lines[-3]


def test_a_run_without_labels_to_learn_from_ends_with_why_and_another_exit_code(
    ends: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Exit) as error:
        ends(measured(scores(None, ended="no pseudo-label was kept: lower pseudolabel.threshold"), trained={}))
    assert error.value.exit_code == 2
    said = capsys.readouterr()
    assert said.err == ""
    assert "did not help: no pseudo-label was kept: lower pseudolabel.threshold." in said.out.splitlines()[-1]


def test_how_bad_the_mistakes_are_is_said_if_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    reach = {"fine": LevelReach(0.9, 0.8)}
    final = replace(HELPED.with_heap, on_tree=TreeScores(1.75, 13, reach))
    assert "The 13 wrong labels of the final classifier are 1.8 levels off" in " ".join(
        shown(capsys, scores(HELPED, final=final))
    )

    for none in (None, TreeScores(None, 0, reach)):
        final = replace(HELPED.with_heap, on_tree=none)
        assert "levels off" not in " ".join(shown(capsys, scores(HELPED, final=final)))
