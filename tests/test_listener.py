"""What a program hears of a run."""

from collections.abc import Mapping
from pathlib import Path

from nstudent import load_config, plan
from nstudent.listener import Listener, NoListener
from nstudent.stage import Context


class HearsEpochs(NoListener):
    def __init__(self) -> None:
        self.heard: list[tuple[str, Mapping[str, float]]] = []

    def epoch(self, training: str, entry: Mapping[str, float]) -> None:
        self.heard.append((training, entry))


def test_a_listener_may_hear_of_some_events_alone() -> None:
    listener = HearsEpochs()
    anyone: Listener = listener
    anyone.epoch("01-teacher/teacher", {"epoch": 1, "loss": 2.5})
    anyone.made("01-teacher", {})
    assert listener.heard == [("01-teacher/teacher", {"epoch": 1, "loss": 2.5})]


def test_a_training_has_one_name_in_a_run(tmp_path: Path) -> None:
    config = load_config(None, ["rounds=2"])
    students = [step for step in plan(config) if step.stage.name == "student"]
    names = [Context(config, step, tmp_path, {}).training("student") for step in students]
    assert names == ["05-student/student", "08-student/student"]
