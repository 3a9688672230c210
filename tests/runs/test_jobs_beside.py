"""Who does which training of a run: no process is started here; tests/faults/test_jobs.py has real ones."""

import multiprocessing
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from nstudent.errors import ArtifactError, ConfigError, StoppedError, TrainingError
from nstudent.listener import NoListener
from nstudent.progress import Silence
from nstudent.runs import job_process, jobs
from nstudent.session import Session
from nstudent.signals import StopRequest

DEATH = TrainingError("killed")


class Beside:
    """Another process, which ends its job when it is told."""

    def __init__(self, *_: object) -> None:
        self.connection, self._theirs = multiprocessing.Pipe()
        self.job, self.given, self.done = None, [], []

    def give(self, job: tuple[int, int]) -> None:
        self.job = job
        self.given.append(job)

    def ends(self) -> None:
        self._theirs.send(None)

    def dies(self) -> None:
        self._theirs.close()

    def hear(self) -> None:
        self.connection.recv()
        self.job = None

    def death(self) -> TrainingError:
        return DEATH

    def tell_to_stop(self) -> None:
        self.done.append("told")

    def hear_out(self) -> None:
        self.done.append("heard")

    def end(self) -> None:
        self.done.append("ended")
        self.connection.close()
        self._theirs.close()


def step(index: int, name: str, *inputs: str, apart: bool = False, aside: bool = False) -> SimpleNamespace:
    stage = SimpleNamespace(apart=apart, aside=aside)
    return SimpleNamespace(index=index, name=name, inputs=[("role", each) for each in inputs], stage=stage)


STEPS = [
    step(0, "data"),
    step(1, "teacher", "data", apart=True),
    step(2, "baseline", "data", aside=True),
    step(3, "student", "teacher"),
]


class FakeRun:
    """Four steps, of which some are stale."""

    def __init__(self, stale: tuple[str, ...] = ("teacher",), size: int = 1) -> None:
        self.world, self.config, self.steps, self._stale = SimpleNamespace(size=size), None, STEPS, stale
        self.session = Session()

    def why_stale(self, asked: SimpleNamespace) -> bool:
        if "damaged" in self._stale:
            raise ArtifactError("damaged")
        return asked.name in self._stale

    def train_beside(self, turns: Any, check: Any) -> None:
        self.turns = turns


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Beside]:
    """The processes that are started beside this one; three trainings may be under way at once."""
    found = []
    monkeypatch.setattr(jobs, "_JobProcess", lambda *_: found.append(Beside()) or found[-1])
    monkeypatch.setattr("nstudent.models.device.trainings_at_once", lambda config: 3)
    return found


@pytest.fixture
def pair(started: list[Beside]) -> Iterator[tuple[FakeRun, jobs.Jobs, Beside, StopRequest]]:
    """A run, its jobs, and one process beside it."""
    run = FakeRun()
    ours = jobs.Jobs(run)
    ours.start()
    yield run, ours, started[0], run.session.stop
    ours.end()


@pytest.mark.parametrize(
    ("stale", "size", "number"),
    [
        (("teacher",), 1, 2),
        (("baseline",), 1, 2),
        (("data",), 1, 2),
        (("damaged",), 1, 2),
        (("student",), 1, 0),
        ((), 1, 0),
        (("teacher",), 2, 0),
    ],
)
def test_processes_are_started_where_a_training_is_to_be_made(
    stale: tuple[str, ...], size: int, number: int, started: list[Beside]
) -> None:
    with jobs.side_by_side(FakeRun(stale, size), STEPS) as ours:
        assert len(started) == number
        assert bool(ours) is (number > 0)
    assert [process.done for process in started] == [["ended"]] * number


def test_the_other_process_has_its_training_before_this_one_begins_its_own(
    pair: tuple[FakeRun, jobs.Jobs, Beside, StopRequest],
) -> None:
    run, _, other, _ = pair
    turns = run.turns(STEPS[1], 4)
    assert next(turns) == 0
    assert other.given == [(1, 1)]
    # It is still at it when this one has ended its first.
    assert next(turns) == 2
    other.ends()
    assert next(turns) == 3
    # Those that the other has done come last, for their checkpoints to be read.
    assert list(turns) == [1]
    assert other.given == [(1, 1)]


def test_an_offered_step_is_begun_before_the_trainings_beside_it(
    pair: tuple[FakeRun, jobs.Jobs, Beside, StopRequest],
) -> None:
    """The first choice waits for both, and a baseline takes longer than a member: it is not to be begun last."""
    run, ours, other, _ = pair
    ours.offer(STEPS[2])
    turns = run.turns(STEPS[1], 3)
    assert next(turns) == 0
    assert other.given == [(2, None)]
    assert next(turns) == 1
    other.ends()
    assert next(turns) == 2
    assert list(turns) == []
    assert list(ours.finish()) == []
    assert other.given == [(2, None)]


def test_who_has_made_the_offered_step_goes_on_with_a_training(
    pair: tuple[FakeRun, jobs.Jobs, Beside, StopRequest],
) -> None:
    run, ours, other, _ = pair
    ours.offer(STEPS[2])
    turns = run.turns(STEPS[1], 3)
    assert next(turns) == 0
    other.ends()
    assert next(turns) == 1
    assert other.given == [(2, None), (1, 2)]
    other.ends()
    assert list(turns) == [2]


def test_an_offered_step_that_nobody_has_begun_is_made_here(
    pair: tuple[FakeRun, jobs.Jobs, Beside, StopRequest],
) -> None:
    _, ours, other, _ = pair
    ours.offer(STEPS[2])
    assert list(ours.finish()) == [STEPS[2]]
    assert other.given == []


@pytest.mark.parametrize("asked", [True, False])
def test_a_process_that_is_gone_was_killed_or_stopped_with_this_one(
    asked: bool, pair: tuple[FakeRun, jobs.Jobs, Beside, StopRequest]
) -> None:
    run, _, other, stop = pair
    turns = run.turns(STEPS[1], 3)
    next(turns)
    other.dies()
    if asked:
        stop.note(signal.SIGTERM)
    with pytest.raises(StoppedError if asked else TrainingError, match="stopped by SIGTERM" if asked else "killed"):
        next(turns)


@pytest.mark.parametrize(
    ("error", "done"),
    [(TrainingError("not finite"), ["told", "heard", "ended"]), (RuntimeError("a fault of ours"), ["ended"])],
    ids=["that can be put right", "that cannot"],
)
def test_after_an_error_the_others_keep_what_they_have_done(
    error: RuntimeError | TrainingError, done: list[str], started: list[Beside]
) -> None:
    def make(run: FakeRun) -> None:
        with jobs.side_by_side(run, STEPS):
            next(run.turns(STEPS[1], 2))
            raise error

    with pytest.raises(type(error), match=str(error)):
        make(FakeRun())
    # The second process has nothing to do.
    assert [process.done for process in started] == [done, ["ended"]]


class Shown(Silence, NoListener):
    """Progress and a listener that write down what they are told."""

    def __init__(self) -> None:
        self.lines = []

    @contextmanager
    def task(self, name: str, total: int, unit: str, done: int = 0) -> Iterator["Shown"]:
        self.lines.append(f"{name}: {done} of {total} {unit}")
        yield self
        self.lines.append(f"{name} is over")

    def advance(self, amount: int, **shown: Any) -> None:
        self.lines.append(f"+{amount} {shown}")

    def say(self, text: str) -> None:
        self.lines.append(text)

    def begins(self, training: str, behind: Any) -> None:
        self.lines.append((training, behind))

    def epoch(self, training: str, entry: dict[str, Any]) -> None:
        self.lines.append((training, entry))

    def made(self, step: str, metrics: Any) -> None:
        self.lines.append((step, metrics))


@pytest.fixture
def heard() -> tuple[jobs._JobProcess, list[str]]:
    """What a process says, and what is shown of it."""
    process = jobs._JobProcess.__new__(jobs._JobProcess)
    shown = Shown()
    process._session, process._tasks, process.job = Session(progress=shown, listener=shown), {}, (1, 0)
    return process, shown.lines


def test_what_another_process_shows_is_shown_here(heard: tuple[jobs._JobProcess, list[str]]) -> None:
    process, lines = heard
    process._take("say", ["hello"])
    process._take("begin", [4, "member 1", 30, "steps", 10])
    process._take("advance", [4, 2, {"loss": 0.5}])
    process._take("end", [4])
    assert lines == ["hello", "member 1: 10 of 30 steps", "+2 {'loss': 0.5}", "member 1 is over"]
    assert process.job == (1, 0)
    process._take("done", [])
    assert process.job is None


def test_events_pass_from_the_process_that_trains_to_the_listener(heard: tuple[jobs._JobProcess, list[str]]) -> None:
    process, lines = heard
    process.connection, theirs = multiprocessing.Pipe()
    parent = job_process._Parent(theirs)
    entries = [{"epoch": 1, "loss": 2.5, "learning_rate": 0.1}, {"epoch": 2, "loss": float("nan"), "validation": 0.5}]
    parent.begins("01-teacher/member 1", entries[:1])
    for entry in entries:
        parent.epoch("01-teacher/member 1", entry)
    parent.made("02-baseline", {"seconds": {"train": 1.5}, "names": ["a"], "ended": None})
    process.hear()
    assert repr(lines) == repr(
        [
            ("01-teacher/member 1", entries[:1]),
            *(("01-teacher/member 1", entry) for entry in entries),
            ("02-baseline", {"seconds": {"train": 1.5}, "names": ["a"], "ended": None}),
        ]
    )
    assert process.job == (1, 0)


def test_a_listener_that_raises_does_not_keep_the_others_from_ending(
    heard: tuple[jobs._JobProcess, list[str]],
) -> None:
    class Refuses(NoListener):
        def epoch(self, training: str, entry: Mapping[str, float]) -> None:
            raise StoppedError("enough")

    process, _ = heard
    process._session = Session(listener=Refuses())
    process.connection, theirs = multiprocessing.Pipe()
    parent = job_process._Parent(theirs)
    for epoch in (1, 2):
        parent.epoch("01-teacher/member 1", {"epoch": epoch})
    job_process.send(theirs, "done")
    process.hear_out()
    assert process.job is None
    # The last checkpoint of the job was waited for: nothing is left unheard.
    assert not process.connection.poll()


def test_an_error_of_another_process_keeps_its_kind_and_what_it_names(
    heard: tuple[jobs._JobProcess, list[str]],
) -> None:
    process, _ = heard
    with pytest.raises(TrainingError, match="not finite"):
        process._take("error", ["TrainingError", "not finite", []])
    with pytest.raises(ConfigError) as error:
        process._take("error", ["ConfigError", "wrong", ["batch_size"]])
    assert error.value.problems == ("batch_size",)
    process.job = (1, 0)
    with pytest.raises(RuntimeError, match=r"a job failed: .*Traceback"):
        process._take("failure", ["Traceback"])
    assert process.job is None
