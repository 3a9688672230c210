"""Names chosen by strangers, on the terminal: none moves the cursor, begins a line, or reads as markup."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured_runs import WITH_HEAP, filtered, gain, measured
from measured_runs import scores as made
from nstudent import cli
from nstudent.cli import console
from nstudent.cli.scores import print_findings, print_scores
from nstudent.config.file import load_config
from nstudent.errors import ArtifactError, ConfigError, DataError, NstudentError, one_line
from nstudent.evaluation.scores import Interval, Scores, read_scores
from nstudent.runs.findings import findings
from nstudent.runs.step_metrics import DataMetrics
from nstudent.runs.verdict import verdict
from nstudent.screen.bars import Screen
from nstudent.taxonomy.tree import Taxonomy
from strangers import Stranger

EVIL = [
    "\x1b[2J\x1b[1;1Hall is well",
    "\x1b]0;title\x07",
    "\x1b]8;;https://host\x1b\\click\x1b]8;;\x1b\\",
    "\x9b2J",
    "one\nnstudent: two",
    "one\r\nnstudent: two",
    "one\u2028two\u2029three",
    "\u202etxt.exe",
    "\x00\x07\x08\x0b\x0c\x7f\x85",
    "bytes \udcff",
]


@pytest.mark.parametrize("name", EVIL)
def test_an_error_is_one_line_that_steers_nothing(name: str) -> None:
    for kind in (NstudentError, DataError, ConfigError, ArtifactError):
        said = str(kind(f"{name} is wrong"))
        assert said.isprintable()
        assert said.isascii()
        assert said.endswith(" is wrong")


@given(st.text())
def test_any_text_is_shown_in_one_line(text: str) -> None:
    shown = one_line(text)
    assert shown.isprintable()
    assert one_line(shown) == shown
    shown.encode()


def test_words_of_any_language_stay_as_they_are() -> None:
    assert one_line("사과/Äpfel/りんご 3 µm") == "사과/Äpfel/りんご 3 µm"


def test_a_long_text_is_cut() -> None:
    assert len(str(DataError("x" * 10_000_000))) == 1_000


def test_several_problems_have_a_line_each_and_none_has_two() -> None:
    error = ConfigError("page: 2 problems:", ["seed is 'x\n  rounds is 3'", "y" * 10_000])
    first, second, third = str(error).split("\n")
    assert first == "page: 2 problems:"
    assert second == r"  seed is 'x\n  rounds is 3'"
    assert len(third) < 1_010


def test_a_page_with_a_thousand_problems_names_twenty(tmp_path: Path) -> None:
    page = tmp_path / "page.yaml"
    page.write_text("".join(f'"k{i}\\e[2J\\n": 1\n' for i in range(1_000)))
    with pytest.raises(ConfigError) as error:
        load_config(page)
    lines = str(error.value).split("\n")
    assert len(lines) == 22
    assert lines[-1] == "  and 980 more"
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("name", EVIL)
def test_no_part_of_a_configuration_error_is_raw(name: str) -> None:
    for word in (f"{name}=1", f"student.{name}=1", f"seed={json.dumps(name)}", f"name={json.dumps(name)}", name):
        with pytest.raises(ConfigError) as error:
            load_config(None, [word])
        assert all(line.isprintable() for line in str(error.value).split("\n"))


@pytest.mark.parametrize("name", EVIL)
def test_no_part_of_a_label_error_is_raw(name: str) -> None:
    taxonomy = Taxonomy.from_tree({"A": ["a"]}, ("coarse", "fine"))
    for label in ([name, ""], ["A", name], [name]):
        with pytest.raises(DataError) as error:
            taxonomy.encode(label)
        assert str(error.value).isprintable()


@pytest.mark.parametrize("name", EVIL)
def test_predictions_are_json_lines_whatever_the_names(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    stranger.describe(lambda model: model["taxonomy"].update(levels=[name, "mid", "fine"]))
    file_name = name.replace("\0", "").replace("/", "-")
    monkeypatch.setattr(
        sys, "argv", ["nstudent", "predict", str(stranger.run), str(tmp_path / file_name), "--device=cpu"]
    )
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 1
    assert said.rstrip("\n").isprintable()
    assert json.loads(said)["error"]


@pytest.mark.parametrize("name", [*EVIL, "[red]text[/red]", "[/]"])
def test_tables_and_lines_of_progress_show_names_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.print_status([(name, name, name, name)])
    screen = Screen()
    screen.say(name)
    found = {"accuracy/" + name: Interval(0.5, 0.4, 0.6)}
    heap = replace(WITH_HEAP, name=name, parts={name: 0.5, name + "2": 0.5}, test=found)
    gone = {"05-filter": filtered(gone=(name,))}
    run = measured(made(replace(gain(-0.1, -0.2, 0.1), with_heap=heap), final=heap), filters=gone)
    print_scores(run)
    print_findings(run, findings(run))
    console.print_sentence(verdict(run, findings(run)))
    counts = DataMetrics(*(1, 1, 1, 1), 3, 0, 0, 0, classes=(2,), terminals=2, findings={"held_out_only": 4})
    console.print_left_out(counts, Path(name))
    said = capsys.readouterr()
    for line in (said.out + said.err).split("\n"):
        assert line.isprintable()
    if name.startswith("["):
        assert (said.out + said.err).count(name) >= 7


@pytest.mark.parametrize(
    "scores", [{}, [], {"classifiers": {}}, {"classifiers": {"a": 3}}, {"classifiers": {"a": {"test": {"x": 3}}}}]
)
def test_scores_that_are_none_are_an_error_in_words(scores: dict[str, Any] | list[Any], tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    with pytest.raises(ArtifactError, match=r"scores\.json holds no scores that this version reads"):
        read_scores(Scores, tmp_path / "scores.json")


def test_scores_without_a_classifier_are_an_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_scores(measured(made(classifiers={})))
    assert "final classifier" in capsys.readouterr().out


@pytest.mark.slow
def test_a_file_name_that_is_no_utf8_is_named(tmp_path: Path, nstudent: Callable[..., Any]) -> None:
    done = nstudent("predict", str(tmp_path / "gone-\udcff\x1b[2J"), "x.png")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
