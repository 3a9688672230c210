"""What a program hears of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from costless_runs import ONE_ROUND, Told, states
from nstudent import Session, load_config, plan, run_all
from nstudent.errors import StoppedError, TrainingError
from nstudent.listener import Listener, NoListener
from nstudent.runs.stage import Context, Stage
from nstudent.runs.status import status
from nstudent.storage.artifact import Manifest

if TYPE_CHECKING:
    from conftest import FakeStages


class Heard(NoListener):
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, list[float]]] = []
        self.epochs: list[tuple[str, Mapping[str, float]]] = []
        self.steps: list[tuple[str, Mapping[str, Any]]] = []

    def begins(self, training: str, behind: Sequence[Mapping[str, float]]) -> None:
        self.begun.append((training, [entry["epoch"] for entry in behind]))

    def epoch(self, training: str, entry: Mapping[str, float]) -> None:
        self.epochs.append((training, entry))

    def made(self, step: str, metrics: Mapping[str, Any]) -> None:
        self.steps.append((step, metrics))


def run(run_dir: Path, listener: Listener, *words: str) -> None:
    run_all(load_config(None, ["rounds=1", "probe.members=[]", *words]), run_dir, Session(listener=listener))


def test_it_hears_of_each_step_that_is_made_and_what_the_manifest_says_of_it(
    tmp_path: Path, fake_stages: FakeStages
) -> None:
    heard = Heard()
    run(tmp_path, heard)
    assert heard.steps == [(name, Manifest.read(tmp_path / name).metrics) for name in ONE_ROUND]


def test_it_hears_nothing_of_a_step_that_is_up_to_date(tmp_path: Path, fake_stages: FakeStages) -> None:
    run(tmp_path, NoListener())
    again = Heard()
    run(tmp_path, again)
    assert again.steps == []
    run(tmp_path, again, "evaluate.resamples=99")
    assert [name for name, _ in again.steps] == ["08-evaluate"]


def test_it_hears_nothing_of_a_step_that_failed(tmp_path: Path, fake_stages: FakeStages) -> None:
    fake_stages.failing = {"01-teacher": TrainingError("not finite")}
    heard = Heard()
    with pytest.raises(TrainingError):
        run(tmp_path, heard)
    assert [name for name, _ in heard.steps] == ["00-data"]


def test_a_step_is_on_disk_when_it_is_heard_of(tmp_path: Path, fake_stages: FakeStages) -> None:
    class EndsTheRun(NoListener):
        def made(self, step: str, metrics: Mapping[str, Any]) -> None:
            if step == "01-teacher":
                raise StoppedError("the teacher is good enough")

    with pytest.raises(StoppedError):
        run(tmp_path, EndsTheRun())
    assert [name for name, state in states(tmp_path).items() if state == "done"] == ["00-data", "01-teacher"]
    fake_stages.forget()
    run(tmp_path, NoListener())
    assert fake_stages.made == ONE_ROUND[2:]


def test_a_listener_may_hear_of_some_events_alone() -> None:
    class HearsEpochs(NoListener):
        heard = 0

        def epoch(self, training: str, entry: Mapping[str, float]) -> None:
            self.heard += 1

    listener = HearsEpochs()
    anyone: Listener = listener
    anyone.begins("01-teacher/teacher", [])
    anyone.epoch("01-teacher/teacher", {"epoch": 1, "loss": 2.5})
    anyone.made("01-teacher", {})
    assert listener.heard == 1


def test_a_training_has_one_name_in_a_run(tmp_path: Path) -> None:
    config = load_config(None, ["rounds=2", "probe.members=[]"])
    students = [step for step in plan(config) if step.stage.name == "student"]
    names = [Context(config, step, tmp_path, {}).training("student") for step in students]
    assert names == ["06-student/student", "10-student/student"]


class Follower:
    """One of two processes. The leader makes the first three steps."""

    rank, size, leads = 1, 2, False

    def __init__(self) -> None:
        self.told = [0, 1, 2, None]

    def agree(self, value: Any = None) -> Any:
        return self.told.pop(0)

    def any(self, said: bool) -> bool:
        return said


def test_a_process_that_does_not_lead_is_silent(
    tmp_path: Path, fake_stages: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, NoListener())
    worked = []

    def work(context: Context) -> None:
        worked.append(context.step.name)
        context.progress.say("hello")
        context.listener.begins(context.training("member 0"), [])
        context.listener.epoch(context.training("member 0"), {"epoch": 1})

    monkeypatch.setattr(Stage, "load", lambda stage: work)
    told, heard = Told(), Heard()
    run_all(
        load_config(None, ["rounds=1", "probe.members=[]"]),
        tmp_path,
        Session(progress=told, listener=heard, world=Follower()),
    )
    assert worked == ONE_ROUND[:3]
    assert (told.lines, heard.begun, heard.epochs, heard.steps) == ([], [], [], [])
    assert all(found.state == "done" for found in status(tmp_path))
