"""What a run is at, as another process sees it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nstudent.config.file import load_config
from nstudent.progress import Silence
from nstudent.runs import under_way as room
from nstudent.runs.plan import plan
from nstudent.runs.remaining import Remaining
from nstudent.runs.under_way import PROGRESS, Followed, UnderWay, Work, said, under_way
from nstudent.storage.lock import hold
from set_clock import Clock


class Left(Remaining):
    """Somebody who knows how long the run takes."""

    def __init__(self, run_dir: Path) -> None:
        config = load_config(None, ["rounds=1", "probe.members=[]"])
        super().__init__(config, plan(config), run_dir)
        self.seconds: float | None = 170.0
        self.shares: list[tuple[str, float]] = []

    def seconds_left(self) -> float | None:
        return self.seconds

    def looks(self, step: str, share: float) -> None:
        self.shares.append((step, share))


class Shown(Silence):
    """A screen that keeps the figures it is given."""

    def __init__(self) -> None:
        self.figures: list[dict[str, float]] = []

    def advance(self, amount: int, **shown: float) -> None:
        self.figures.append(shown)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(room, monkeypatch)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    with hold(tmp_path):
        yield tmp_path


def test_what_a_run_is_at_lies_in_its_folder_while_a_process_holds_it(tmp_path: Path, clock: Clock) -> None:
    followed = Followed(Silence(), Left(tmp_path), tmp_path)
    followed.begin("08-evaluate")
    with followed.task("evaluate", 10, "images", 2) as task:
        clock.now = 2.0
        task.advance(3, loss=0.5, **{"score %": float("inf")})
        assert under_way(tmp_path) is None, "no process holds the folder"
        with hold(tmp_path):
            work = Work("evaluate", 5, 10, "images", {"loss": 0.5})
            assert under_way(tmp_path) == UnderWay("08-evaluate", (work,), 170.0)
    followed.end()
    assert not list(tmp_path.glob("*progress*"))


def test_every_piece_of_work_is_named_while_it_goes_on(held: Path, clock: Clock) -> None:
    followed = Followed(Silence(), Left(held), held)
    followed.begin("01-teacher")
    names = []
    with followed.task("member 0", 10, "batches"):
        with followed.task("member 1", 10, "batches"):
            found = under_way(held)
            assert found is not None
            names = [work.name for work in found.work]
        with followed.task("calibrate", 3, "images"):
            found = under_way(held)
            assert found is not None
            assert [work.name for work in found.work] == ["member 0", "calibrate"]
    assert names == ["member 0", "member 1"]


def test_it_is_written_once_a_second_at_most(held: Path, clock: Clock) -> None:
    followed = Followed(Silence(), Left(held), held)
    with followed.task("decode", 10, "images") as task:
        for now, done in ((0.5, 0), (0.9, 0), (1.5, 3), (2.0, 3)):
            clock.now = now
            task.advance(1)
            found = under_way(held)
            assert found is not None
            assert found.work[0].done == done


def test_the_figures_of_the_work_are_followed_by_when_the_run_ends(tmp_path: Path, clock: Clock) -> None:
    shown, left = Shown(), Left(tmp_path)
    progress: Any = Followed(shown, left, tmp_path)
    with progress.task("member 0", 10, "batches") as task:
        task.advance(1, loss=0.5)
        left.seconds = None
        clock.now = 5.0
        task.advance(1)
    assert shown.figures == [{"loss": 0.5, "run ends in min": 2.8}, {}]


def test_the_end_of_a_stage_that_is_made_by_itself_is_called_that(held: Path, clock: Clock) -> None:
    shown = Shown()
    progress: Any = Followed(shown, Left(held), held, "stage")
    progress.begin("01-teacher")
    with progress.task("member 0", 10, "batches") as task:
        task.advance(1)
        found = under_way(held)
    assert found is not None
    assert said(found, ["00-data", "01-teacher"]).endswith("about 3 min to the end of the stage")
    assert shown.figures == [{"stage ends in min": 2.8}]


def test_how_far_a_step_is_is_told_who_estimates_the_time(tmp_path: Path, clock: Clock) -> None:
    left = Left(tmp_path)
    followed = Followed(Silence(), left, tmp_path)
    followed.begin("04-pseudolabel")
    with followed.task("label", 8, "images", 2) as task:
        task.advance(4)
    with followed.task("nothing", 0, "images"):
        pass
    assert left.shares == [("04-pseudolabel", 0.25), ("04-pseudolabel", 0.75)]


@pytest.mark.parametrize("content", ["{", "[]", '{"step": 3}', '{"step": null, "work": [3], "seconds_left": null}'])
def test_a_damaged_note_is_passed_over(held: Path, content: str) -> None:
    (held / PROGRESS).write_text(content)
    assert under_way(held) is None


def test_what_a_run_is_at_is_said_in_a_line() -> None:
    work = (
        Work("member 0", 1200, 3000, "batches", {"loss": 1.2345678, "score %": 50.0}),
        Work("student", 0, 8, "batches", {}),
    )
    assert said(UnderWay("01-teacher", work, 170.0), ["00-data", "01-teacher"]) == (
        "step 2 of 2, 01-teacher; member 0: 1,200 of 3,000 batches, loss 1.235, score 50 %; "
        "student: 0 of 8 batches; about 3 min to the end of the run"
    )
    assert said(UnderWay("09-other", (), None), ["00-data"]) == "09-other"
    assert said(UnderWay(None, (Work("try", 1, 4, "networks", {}),), None), []) == "try: 1 of 4 networks"
