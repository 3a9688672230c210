"""How far a run is, and how long it will still take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from measured_runs import data
from nstudent.cli.console import far
from nstudent.config.file import load_config
from nstudent.progress import Beside, Silence
from nstudent.runs import remaining as room
from nstudent.runs.lengths import Expected, expected
from nstudent.runs.plan import plan
from nstudent.runs.remaining import PROGRESS, Remaining, UnderWay, in_words, under_way
from nstudent.storage.lock import hold

# A member takes 10 epochs of 100 images, the student and its baseline 10 of 10 steps of 10 and 30 images: 4,000.
WORDS = (
    *("rounds=1", "probe.members=[]", "teacher.members=[{}]", "teacher.epochs=10", "teacher.batch_size=50"),
    *("student.epochs=10", "student.batch_size=10", "student.unlabelled_ratio=3"),
)
IMAGES = data(labelled=100, unlabelled=300)
COST = {"image_passes": 1000, "training_gmacs": 1000.0}


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(room, "time", made)
    return made


@pytest.fixture
def remaining(tmp_path: Path, clock: Clock) -> Remaining:
    config = load_config(None, list(WORDS))
    made = Remaining(config, plan(config), tmp_path)
    made.made("00-data", IMAGES.to_json())
    return made


def entry(epoch: int, **more: float) -> Mapping[str, float]:
    return {"epoch": epoch, "loss": 1.5, "learning_rate": 0.1, **more}


def test_what_the_trainings_take_follows_from_the_configuration_and_the_images() -> None:
    config = load_config(None, [*WORDS, "filter.enabled=true", "filter.iterations=2", "filter.epochs=3"])
    assert expected(config, "teacher", 100, 300) == Expected(1, 10, 1000)
    assert expected(config, "baseline", 100, 300) == expected(config, "student", 100, 300) == Expected(1, 10, 4000)
    judge = expected(config, "filter", 100, 300)
    assert judge is not None
    assert (judge.trainings, judge.epochs) == (2, 3)
    assert judge.believed == judge.image_passes, "its mean teacher looks at every image"
    believing = load_config(None, [*WORDS, "student.consistency.begins=0.25"])
    # Of 100 steps the 74 after the one that is a quarter through, each with 30 images of the heap.
    assert expected(believing, "student", 100, 300) == Expected(1, 10, 4000, 74 * 30)
    assert expected(believing, "baseline", 100, 300) == Expected(1, 10, 4000)
    assert expected(load_config(None, list(WORDS)), "filter", 100, 300) is None
    assert expected(config, "evaluate", 100, 300) is None


def test_the_time_that_is_left_follows_from_the_work_that_is_left(remaining: Remaining, clock: Clock) -> None:
    assert remaining.seconds_left() is None
    remaining.begins("01-teacher/member 0", [])
    assert remaining.seconds_left() is None
    clock.now = 10.0
    remaining.epoch("01-teacher/member 0", entry(5))
    # 500 of 9,000 image passes took 10 seconds.
    assert remaining.seconds_left() == pytest.approx(170)
    assert remaining.figures() == {"min to end": 2.8}


def test_networks_of_other_costs_count_by_what_they_cost(remaining: Remaining, clock: Clock) -> None:
    remaining.begins("01-teacher/member 0", [])
    clock.now = 10.0
    remaining.made("01-teacher", COST)
    remaining.made("02-baseline", {"image_passes": 4000, "training_gmacs": 8000.0})
    # A pass of the student costs two: 1,000 and 8,000 took 10 seconds, 8,000 are left.
    assert remaining.seconds_left() == pytest.approx(10 * 8000 / 9000)


def test_what_an_earlier_call_did_is_no_work_of_this_one(remaining: Remaining, clock: Clock) -> None:
    remaining.begins("01-teacher/member 0", [entry(n) for n in range(1, 9)])
    clock.now = 10.0
    remaining.epoch("01-teacher/member 0", entry(9))
    # 100 image passes took 10 seconds, 8,100 are left.
    assert remaining.seconds_left() == pytest.approx(810)


def test_a_training_that_another_process_did_ahead_is_work_of_this_call(remaining: Remaining, clock: Clock) -> None:
    remaining.begins("01-teacher/member 0", [])
    clock.now = 10.0
    remaining.epoch("01-teacher/member 0", entry(10))
    remaining.begins("01-teacher/member 0", [entry(n) for n in range(1, 11)])
    assert remaining.seconds_left() == pytest.approx(80)


def test_when_all_is_done_nothing_is_left(remaining: Remaining, clock: Clock) -> None:
    remaining.begins("01-teacher/member 0", [])
    clock.now = 10.0
    for step in ("01-teacher", "02-baseline", "06-student"):
        remaining.made(step, COST)
    assert remaining.seconds_left() == 0
    # Nobody knows how long the scores take: a 0 beside them would be wrong.
    assert remaining.figures() == {}


def test_how_far_it_is_lies_in_the_folder_while_a_process_holds_it(
    remaining: Remaining, clock: Clock, tmp_path: Path
) -> None:
    remaining.begins("01-teacher/member 0", [])
    clock.now = 10.0
    remaining.epoch("01-teacher/member 0", entry(5, validation=0.5))
    assert (tmp_path / PROGRESS).exists()
    assert under_way(tmp_path) is None
    with hold(tmp_path):
        assert under_way(tmp_path) == UnderWay("01-teacher/member 0", 5, 10, 1.5, 0.5, 170.0)
    remaining.end()
    assert not list(tmp_path.glob("*progress*"))


def test_it_is_written_once_a_second_at_most(remaining: Remaining, clock: Clock, tmp_path: Path) -> None:
    remaining.begins("01-teacher/member 0", [])
    clock.now = 5.0
    remaining.epoch("01-teacher/member 0", entry(1))
    clock.now = 5.5
    remaining.epoch("01-teacher/member 0", entry(2))
    with hold(tmp_path):
        found = under_way(tmp_path)
    assert found is not None
    assert found.epoch == 1


@pytest.mark.parametrize("content", ["{", "[]", '{"training": 3}'])
def test_a_damaged_note_is_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / PROGRESS).write_text(content)
    with hold(tmp_path):
        assert under_way(tmp_path) is None


def test_status_says_in_a_line_how_far_a_run_is() -> None:
    found = UnderWay("01-teacher/member 0", 5, 10, 1.2345678, 0.5, 170.0)
    assert far(found, ["00-data", "01-teacher"]) == (
        "running: step 2 of 2, 01-teacher/member 0, epoch 5 of 10, loss 1.235, validation 50.0 %, "
        "about 3 min to the end of the run"
    )
    unknown = UnderWay("09-other/a", 5, None, None, None, None)
    assert far(unknown, ["00-data"]) == "running: 09-other/a, epoch 5"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "about 1 s"), (89, "about 89 s"), (91, "about 2 min"), (7200, "about 2.0 h")]
)
def test_a_time_is_said_as_a_person_would(seconds: float, said: str) -> None:
    assert in_words(seconds) == said


def test_figures_of_the_run_stand_beside_those_of_the_work() -> None:
    shown: list[dict[str, float]] = []

    class Shows(Silence):
        def advance(self, amount: int, **figures: float) -> None:
            shown.append(figures)

    progress: Any = Beside(Shows(), lambda: {"min to end": 3.0})
    with progress.task("member 0", 10, "steps") as task:
        task.advance(1, loss=0.5)
    assert shown == [{"loss": 0.5, "min to end": 3.0}]
