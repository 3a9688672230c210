"""How long a run will still take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from measured_runs import data
from nstudent.config.file import load_config
from nstudent.runs import remaining as room
from nstudent.runs.lengths import Expected, expected
from nstudent.runs.plan import plan
from nstudent.runs.remaining import Remaining, in_words
from set_clock import Clock

# A member takes 10 epochs of 100 images, the student and its baseline 10 of 10 steps of 10 and 30 images: 4,000. Two
# networks look at 300 images to label them, at a third of a pass each: 200.
WORDS = (
    *("rounds=1", "probe.members=[]", "teacher.members=[{}]", "teacher.epochs=10", "teacher.batch_size=50"),
    *("student.epochs=10", "student.batch_size=10", "student.unlabelled_ratio=3"),
)
IMAGES = replace(data(labelled=100, unlabelled=300), validation=0, test=0)
COST = {"image_passes": 1000, "training_gmacs": 1000.0}
LOOKS = ("03-choose", "04-pseudolabel", "07-choose", "08-evaluate")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(room, monkeypatch)


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
    meta = load_config(None, [*WORDS, "student.method=meta_pseudo_labels", "student.meta.finetune_epochs=2"])
    # In 100 steps the student sees 30 images, its teacher these twice and 10 labelled ones; ten batches of ten, twice.
    assert expected(meta, "baseline", 100, 300) == Expected(1, 12, 100 * (10 + 3 * 30) + 200)
    # The teacher looks at 30, and the student at 10 before and after its step.
    assert expected(meta, "student", 100, 300) == Expected(1, 12, 100 * (10 + 3 * 30) + 200, 100 * (30 + 2 * 10))
    assert expected(load_config(None, list(WORDS)), "filter", 100, 300) is None
    assert expected(config, "evaluate", 100, 300) is None
    assert expected(config, "refit", 100, 300) == Expected(1, 30, 9000), "a teacher, a baseline and a student"


def test_the_time_that_is_left_follows_from_the_work_that_is_left(remaining: Remaining, clock: Clock) -> None:
    assert remaining.seconds_left() is None
    remaining.begins("01-teacher/member 0", [])
    assert remaining.seconds_left() is None
    clock.now = 10.0
    remaining.epoch("01-teacher/member 0", entry(5))
    # 500 of 9,200 image passes took 10 seconds.
    assert remaining.seconds_left() == pytest.approx(174)


def test_networks_of_other_costs_count_by_what_they_cost(remaining: Remaining, clock: Clock) -> None:
    remaining.begins("01-teacher/member 0", [])
    clock.now = 10.0
    remaining.made("01-teacher", COST)
    remaining.made("02-baseline", {"image_passes": 4000, "training_gmacs": 8000.0})
    # A pass of the student costs two: 1,000 and 8,000 took 10 seconds, 8,000 are left, and 300 to label.
    assert remaining.seconds_left() == pytest.approx(10 * 8300 / 9000)


def test_what_an_earlier_call_did_is_no_work_of_this_one(remaining: Remaining, clock: Clock) -> None:
    remaining.begins("01-teacher/member 0", [entry(n) for n in range(1, 9)])
    clock.now = 10.0
    remaining.epoch("01-teacher/member 0", entry(9))
    # 100 image passes took 10 seconds, 8,300 are left.
    assert remaining.seconds_left() == pytest.approx(830)


def test_a_step_that_is_made_again_is_work_although_it_was_there_before(
    remaining: Remaining, clock: Clock, tmp_path: Path
) -> None:
    (tmp_path / "01-teacher").mkdir()
    remaining.begins("01-teacher/member 0", [])
    clock.now = 10.0
    remaining.epoch("01-teacher/member 0", entry(5))
    assert remaining.seconds_left() == pytest.approx(174)


def test_a_training_that_another_process_did_ahead_is_work_of_this_call(remaining: Remaining, clock: Clock) -> None:
    remaining.begins("01-teacher/member 0", [])
    clock.now = 10.0
    remaining.epoch("01-teacher/member 0", entry(10))
    remaining.begins("01-teacher/member 0", [entry(n) for n in range(1, 11)])
    assert remaining.seconds_left() == pytest.approx(82)


def test_when_all_is_done_nothing_is_left(remaining: Remaining, clock: Clock) -> None:
    remaining.begins("01-teacher/member 0", [])
    clock.now = 10.0
    for step in LOOKS:
        remaining.made(step, {})
    for step in ("01-teacher", "02-baseline", "06-student"):
        remaining.made(step, COST)
    assert remaining.seconds_left() == 0


def test_scores_take_time_too(clock: Clock, tmp_path: Path) -> None:
    config = load_config(None, list(WORDS))
    steps = plan(config)
    found = Remaining(config, steps, tmp_path)
    # Three networks look at 10 and 20 held-out images three times, at a third of a pass each: 90 passes in all.
    found.made("00-data", replace(IMAGES, validation=10, test=20).to_json())
    found.begins("01-teacher/member 0", [])
    clock.now = 9.0
    for step in [step.name for step in steps if step.name not in ("00-data", "08-evaluate")]:
        found.made(step, {})
    trained = 1000 + 4000 + 4000
    looked = 10 * 1 / 3 * 2 + 300 * 2 / 3 + 10
    assert found.seconds_left() == pytest.approx(9.0 * 90 / (trained + looked))
    found.looks("08-evaluate", 0.0)
    found.looks("08-evaluate", 0.5)
    assert found.seconds_left() == pytest.approx(9.0 * 45 / (trained + looked + 45))


def test_a_probe_that_sees_more_than_the_networks_takes_its_time_to_score(clock: Clock, tmp_path: Path) -> None:
    """It is trained in no epoch, and looks at every image as the networks do, at ten times their cost."""
    config = load_config(None, [word for word in WORDS if not word.startswith("probe.")])
    steps = plan(config)
    found = Remaining(config, steps, tmp_path)
    found.made("00-data", replace(IMAGES, validation=10, test=20).to_json())
    found.made("01-probe", {"gmacs": 10.0, "image_passes": 0, "training_gmacs": 200.0})
    found.begins("02-teacher/member 0", [])
    clock.now = 9.0
    for step in steps:
        if step.name not in ("00-data", "01-probe", "09-evaluate"):
            found.made(step.name, {**COST, "gmacs": 1.0} if step.stage.provides == "classifier" else {})
    trained = 1000 + 4000 + 4000
    looked = 10 * 12 / 3 + 300 * 12 / 3 + 10 * 13 / 3
    assert found.seconds_left() == pytest.approx(9.0 * (3 * 30 * 13 / 3) / (trained + looked))


def test_what_an_earlier_call_scored_is_no_work_of_this_one(clock: Clock, tmp_path: Path) -> None:
    config = load_config(None, list(WORDS))
    steps = plan(config)
    found = Remaining(config, steps, tmp_path)
    for step in steps[:-1]:
        (tmp_path / step.name).mkdir()
    found.made("00-data", replace(IMAGES, test=20).to_json())
    found.looks("08-evaluate", 0.6)
    clock.now = 10.0
    found.looks("08-evaluate", 0.8)
    assert found.seconds_left() == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "about 1 s"), (89, "about 89 s"), (91, "about 2 min"), (7200, "about 2.0 h")]
)
def test_a_time_is_said_as_a_person_would(seconds: float, said: str) -> None:
    assert in_words(seconds) == said
