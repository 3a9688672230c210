"""What a person sees of several pieces of work that go on at the same time."""

import io
import re

import pytest
from nstudent.screen.bars import Screen, _block, _figures
from rich.console import Console


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    shown = io.StringIO()
    made = Console(file=shown, force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr("nstudent.screen.bars.Console", lambda **_: made)
    return shown


def _lines(terminal: io.StringIO) -> list[str]:
    """What was written, without what steers a terminal."""
    plain = re.sub("\x1b\\[[^a-zA-Z]*[a-zA-Z]", "", terminal.getvalue())
    return [line.rstrip() for line in plain.splitlines() if line.strip()]


def test_work_that_overlaps_stands_in_one_block_of_bars(terminal: io.StringIO) -> None:
    screen = Screen()
    first, second, third = (screen.task(name, 5, "steps") for name in ("member 0", "member 1", "baseline"))
    one, two = first.__enter__(), second.__enter__()
    one.advance(5, loss=0.25)
    two.advance(2)
    first.__exit__(None, None, None)
    three = third.__enter__()
    three.advance(3)
    second.__exit__(None, None, None)
    third.__exit__(None, None, None)
    last = [re.sub("[━╸╺]", "", line).split() for line in _lines(terminal)[-3:]]
    assert [" ".join(words[: words.index("steps") + 1]) for words in last] == [
        "member 0 5/5 steps",
        "member 1 2/5 steps",
        "baseline 3/5 steps",
    ]
    assert "loss 0.25" in " ".join(last[0])


def test_work_that_follows_other_work_has_a_block_of_its_own(terminal: io.StringIO) -> None:
    screen = Screen()
    for name in ("decode", "compare"):
        with screen.task(name, 2, "images") as task:
            task.advance(2)
    screen.say("done")
    lines = _lines(terminal)
    assert "compare" in lines[-2]
    assert "decode" not in lines[-2]
    assert lines[-1] == "done"


@pytest.mark.parametrize(("done", "said"), [(0, "  member 1: 0/4 steps in 0.0 s\n"), (2, "  member 1: 2/4"), (4, "")])
def test_in_a_log_nothing_is_said_of_work_that_was_done_before(
    done: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Screen().task("member 1", 4, "steps", done=done):
        pass
    shown = capsys.readouterr().err
    assert shown.startswith(said)
    assert bool(shown) is bool(said)


def test_a_line_that_is_said_stays_one_line_in_a_log_file(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().say("word " * 60)
    assert len(capsys.readouterr().err.splitlines()) == 1
    with Screen().task("member " * 20, 4, "steps") as task:
        task.advance(4)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_is_said_of_a_step_begins_with_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(["00-data", "01-teacher"])
    screen.say("01-teacher: not made yet")
    screen.say("  left as it is: 01-teacher")
    assert capsys.readouterr().err == "[2/2] 01-teacher: not made yet\n  left as it is: 01-teacher\n"


@pytest.mark.parametrize("width", [80, 120])
def test_a_line_of_progress_fits_its_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    bars = _block(console)
    figures = _figures({"loss": 1.23456, "score %": 97.1, "run ends in min": 12.3})
    bars.add_task("member 12", total=12345, completed=10, unit="batches", figures=figures)
    with console.capture() as shown:
        console.print(bars)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in shown.get().splitlines()]
    assert len(lines) == 1
    assert figures in lines[0]
