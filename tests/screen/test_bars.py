"""What a person sees of several pieces of work that go on at the same time."""

import io
import os
import re
import sys

import pytest
from nstudent.screen.bars import Screen, _Block
from pseudo_terminal import at_a_terminal
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


def test_in_a_log_work_of_which_nothing_is_done_says_nothing_of_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nstudent.screen.bars._PLAIN_SECONDS", 0.0)
    with Screen().task("download", 2, "files") as task:
        task.advance(0, MB=1.5)
        task.advance(1)
    first, second, _ = capsys.readouterr().err.splitlines()
    assert first == "  download: 0/2 files, MB 1.5"
    assert second.startswith("  download: 1/2 files, ")
    assert second.endswith(" s left")


def test_what_is_said_of_a_step_begins_with_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(["00-data", "01-teacher"])
    screen.say("01-teacher: not made yet")
    screen.say("  left as it is: 01-teacher")
    assert capsys.readouterr().err == "[2/2] 01-teacher: not made yet\n  left as it is: 01-teacher\n"


_SHOWN = {"loss": 2.56412, "score %": 32.2, "data wait %": 17.0, "run ends in min": 12.3}


def _shown_at(width: int, shown: dict[str, float], total: int = 12345) -> str:
    """The line of a training on a terminal of so many columns."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    block = _Block(console)
    block.add_task("member 12", total=total, completed=10, unit="batches", shown=shown)
    with console.capture() as captured:
        console.print(block)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in captured.get().splitlines()]
    assert len(lines) == 1
    assert len(lines[0]) <= width
    assert "…" not in lines[0]
    return " ".join(lines[0].split())


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (145, "{bar:28} 10/12345 batches loss 2.564, score 32.2 %, {wait}, run ends in 12.3 min 0:00:00 -:--:--"),
        (110, "{bar:6} 10/12345 batches loss 2.564, score 32.2 %, {wait}, run ends in 12.3 min -:--:--"),
        (100, "10/12345 batches loss 2.564, score 32.2 %, {wait}, run ends in 12.3 min -:--:--"),
        (96, "10/12345 batches loss 2.564, score 32.2 %, {wait}, run ends in 12.3 min"),
        (86, "10/12345 loss 2.564, score 32.2 %, {wait}, run ends in 12.3 min"),
        (77, "10/12345 loss 2.564, score 32.2 %, {wait}, 12 min left"),
        (60, "10/12345 loss 2.564, score 32.2 %, 12 min left"),
    ],
)
def test_what_matters_least_leaves_a_line_of_progress_first(width: int, line: str) -> None:
    wanted = line.replace("{bar:28}", "━" * 28).replace("{bar:6}", "━" * 6).replace("{wait}", "data wait 17 %")
    assert re.sub("[╸╺]", "━", _shown_at(width, _SHOWN)) == f"member 12 {wanted}"


def test_the_time_that_is_left_stays_if_nothing_is_known_of_the_run() -> None:
    assert _shown_at(60, {"loss": 2.56412, "score %": 32.2}).endswith("loss 2.564, score 32.2 % -:--:--")


def test_on_a_terminal_that_is_too_narrow_for_any_line_no_figure_is_cut() -> None:
    console = Console(file=io.StringIO(), width=40, force_terminal=True, color_system=None)
    block = _Block(console)
    block.add_task("member 12", total=12345, completed=10, unit="batches", shown=_SHOWN)
    with console.capture() as captured:
        console.print(block)
    assert "…" not in captured.get(), captured.get()
    words = captured.get().split()
    assert all(word in words for word in ("10/12345", "2.564,", "32.2", "12")), words


def test_what_has_gone_from_a_block_does_not_come_back_before_the_terminal_is_wider() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    block = _Block(console)
    task = block.add_task("member 12", total=12345, completed=10, unit="batches", shown=_SHOWN)

    def line() -> str:
        with console.capture() as captured:
            console.print(block)
        return captured.get()

    assert "batches" not in line()
    block.update(task, shown={"loss": 1.0})
    assert "batches" not in line()
    console.width = 120
    assert "batches" in line()


_ON_A_TERMINAL = """
from nstudent.screen.bars import Screen
screen = Screen()
with screen.task("member 0", 1234, "batches") as one, screen.task("baseline", 1234, "batches") as other:
    for task in (one, other):
        task.advance(1234, **{"loss": 2.56412, "score %": 32.2, "data wait %": 17.0, "run ends in min": 20.0})
"""


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "left"), [(80, "run ends in 20 min"), (60, "20 min left")])
def test_on_a_terminal_the_figures_of_two_trainings_are_whole(columns: int, left: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    words = [sys.executable, "-c", _ON_A_TERMINAL]
    seen = at_a_terminal(words, columns=columns, environment={**environment, "TERM": "xterm"})
    lines = [line.rstrip() for line in re.sub("\x1b\\[[^a-zA-Z]*[a-zA-Z]", "", seen).split("\r\n")]
    last = [line.split("\r")[-1] for line in lines if "1234/1234" in line][-2:]
    assert [line.split()[0] for line in last] == ["member", "baseline"]
    for line in last:
        assert len(line) <= columns
        assert all(whole in line for whole in ("1234/1234", "loss 2.564", "score 32.2 %", left)), line
        assert "…" not in line
