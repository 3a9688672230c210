"""What all tests share: no network, reproducible properties, the command line, and stages that cost nothing."""

import os

# Before numpy and torch are imported: in two processes that test on two cores their threads would wait for each other,
# and a probe takes nine times as long. Processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from fork_server import ForkServer, fork_server
from nstudent.evaluation.scores import HEADLINE, SCORES, ClassifierScores, Interval, Scores, Side
from nstudent.runs.stage import Context, Stage
from nstudent.runs.step_metrics import (
    Candidate,
    ChoiceMetrics,
    DataMetrics,
    FilterMetrics,
    LabelMetrics,
    RefitMetrics,
    RefittedPart,
    Role,
    ScoreMetrics,
    TrainedMetrics,
)
from nstudent.storage.artifact import Metrics
from nstudent.storage.files import write_json

# No deadline: a slow machine is not a defect. Derandomised: a commit that was green stays green.
hypothesis.settings.register_profile("nstudent", deadline=None, derandomize=True, database=None, max_examples=100)
# In a quick run each property is tried on fewer examples; a run of all tests has the whole number.
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("nstudent"), max_examples=25)
hypothesis.settings.load_profile("nstudent")

NO_GPU = "needs a CUDA device"


def pytest_configure(config: pytest.Config) -> None:
    """Where the slow tests are left out, Hypothesis draws fewer examples."""
    if config.option.markexpr == "not slow":
        hypothesis.settings.load_profile("quick")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a GPU are skipped if there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=NO_GPU))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was not tested for lack of a GPU: no other machine may have tested it either."""
    skipped = [report for report in terminalreporter.getreports("skipped") if NO_GPU in str(report.longrepr)]
    if skipped:
        terminalreporter.line(f"{len(skipped)} tests were skipped, because there is no GPU (CUDA) here.")


@pytest.fixture
def not_waiting() -> Callable[[], AbstractContextManager[None]]:
    """A context in which whatever makes the host wait for the GPU raises an error."""
    import torch

    def set_mode(mode: str) -> None:
        with warnings.catch_warnings():
            # torch calls this mode a prototype.
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode(mode)

    @contextmanager
    def context() -> Iterator[None]:
        set_mode("error")
        try:
            yield
        finally:
            set_mode("default")

    return context


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Connections and look-ups of names fail at once; only loader processes may talk to each other."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX:
            return connect(self, address)
        raise AssertionError(f"a test wants the network: {address!r}")

    def refuse_name(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"a test wants the network: {arguments!r}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket.socket, "connect_ex", refuse)
        for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "create_connection"):
            patch.setattr(socket, name, refuse_name)
        # For the processes that tests start: a port where nobody listens.
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in an empty folder, as a user's process would."""

    def run(*arguments: str, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
        return subprocess.run(
            [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Forks processes that have imported everything."""
    with fork_server(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def nstudent(server: ForkServer, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process of its own, in an empty folder."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return server.command(arguments, tmp_path)

    return run


class FakeStages:
    """Stages that write one small file and remember that they ran. What a test changes is what they obey."""

    def __init__(self) -> None:
        self.made: list[str] = []
        """Names of the steps that ran, in order."""
        self.read: dict[str, list[str]] = {}
        """Names of the artifacts that each step was given, each once, in the order of the run."""
        self.failing: dict[str, BaseException] = {}
        self.content: dict[str, str] = {}
        """What a step writes, where it is not its own name."""
        self.metrics: dict[str, Metrics] = {}
        """What a step reports, if that is not what any of its role does."""

    def work(self, context: Context) -> Metrics:
        name = context.step.name
        self.made.append(name)
        self.read[name] = sorted({made.name for made in (*context.inputs.values(), *context.gathered)})
        (context.folder / "made.txt").write_text(self.content.get(name, name))
        (context.scratch / "checkpoint").write_text("half")
        if name in self.failing:
            raise self.failing[name]
        role = context.step.stage.provides
        if role == "scores":
            write_json(context.folder / SCORES, _scores(context).to_json())
        return self.metrics.get(name, REPORTED[role])

    def leave_nothing_after(self, *filters: str) -> None:
        """Let these filter steps leave nothing to learn from, and no others."""
        nothing = FilterMetrics("nothing is left", (), {}, {}, {}, shown=0, copies=0, iterations=())
        self.metrics = dict.fromkeys(filters, nothing)

    def forget(self) -> None:
        """Count from here on."""
        self.made.clear()


TRAINED = TrainedMetrics(validation={HEADLINE: 0.5}, gmacs=1.0, image_passes=10, history=())
REPORTED: dict[Role, Metrics] = {
    "data": DataMetrics(1, 1, 1, 1, 0, 0, 0, 0, classes=(2,), terminals=2, findings={}),
    "classifier": TRAINED,
    "labeller": ChoiceMetrics(
        chosen="01-teacher",
        labels_alone="01-teacher",
        with_heap=None,
        candidates=(Candidate("01-teacher", {"01-teacher": 1.0}, False, 1.0, 0.5, None, 0.0, None, None),),
    ),
    "labels": LabelMetrics(1, {}, shown=1, copies=1, temperatures=(), highest_confidence=1.0),
    "selection": FilterMetrics("", (), {}, {}, {}, shown=1, copies=1, iterations=()),
    "refit": RefitMetrics("01-teacher", 1.0, None, None, 2, {"01-teacher": RefittedPart(10, 1.0, ())}),
    "scores": ScoreMetrics("01-teacher", {}, None),
}
"""What steps that cost nothing report of their work."""


def _scores(context: Context) -> Scores:
    found = {HEADLINE: Interval(0.5, 0.4, 0.6)}
    names = [made.name for made in context.all("classifier")]
    classifiers = {name: ClassifierScores(1.0, 10, None, validation=found, test=found) for name in names}
    final = Side(names[0], {names[0]: 1.0}, 1.0, None, 10, (names[0],), validation=found, test=found)
    return Scores(final, None, 0.95, classifiers, None, None, {}, {}, pseudo_labels={}, given_labels={})


@pytest.fixture
def fake_stages(monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    """Every stage replaced by one that takes no time and no torch."""
    fakes = FakeStages()
    # The order of writes is tested elsewhere; here nobody waits for the disk.
    monkeypatch.setattr("nstudent.storage.files.os.fsync", lambda descriptor: None)
    monkeypatch.setattr(Stage, "load", lambda stage: fakes.work)
    # They train no networks that could be tried.
    monkeypatch.setattr("nstudent.runs.run.rehearse", lambda *_: None)
    # Another process would not know of them.
    monkeypatch.setattr("nstudent.runs.jobs._processes_beside", lambda run, steps: 0)
    return fakes
