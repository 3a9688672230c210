"""A process that does jobs for the one that makes a run: one training ahead, or a whole step that stands aside.

It works in the same run folder, whose lock its parent holds, and shows nothing itself. What the two tell each other is
JSON in a pipe: jobs one way; progress, events, and how a job ended, the other.
"""

import json
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

from nstudent.config.schema import Config
from nstudent.errors import ConfigError, NstudentError, StoppedError
from nstudent.machine import serve_parent
from nstudent.progress import Task
from nstudent.runs.folder import Run
from nstudent.runs.plan import STAGES
from nstudent.session import Session
from nstudent.signals import OverdueStop, stop_with_parent
from nstudent.storage.files import explained

Job = tuple[int, int | None]
"""(index of a step, number of one of its trainings or ``None`` for the whole step)."""

_SAY_SECONDS = 0.2
"""How far it is goes through the pipe at most so often: a parent that is busy must not let it fill."""


def send(connection: Connection, *message: Any) -> None:
    """Send what JSON can hold."""
    connection.send_bytes(json.dumps(message).encode())


def receive(connection: Connection) -> Any:
    """Wait for the next message.

    Raises:
        EOFError: the other process is gone.
    """
    return json.loads(connection.recv_bytes())


def work(connection: Connection, config: str, run_dir: str) -> None:
    """Do the jobs that come, one after the other, until the parent ends this process or is gone itself.

    Args:
        connection: Where jobs come from, and where progress and events go to.
        config: The configuration of the run, as JSON.
        run_dir: Its folder, which the parent holds.
    """
    serve_parent()
    parent = _Parent(connection)
    session = Session(progress=parent, stop=stop_with_parent(), listener=parent)
    run = Run.open(Config.model_validate_json(config), run_dir, session)
    # It takes seconds to import what a training needs; meanwhile the parent makes the data.
    STAGES["teacher"].load()
    with suppress(EOFError, BrokenPipeError), session.stop.timed():
        while True:
            step, number = receive(connection)
            send(connection, *_outcome(run, (step, number)))


def _outcome(run: Run, job: Job) -> tuple[Any, ...]:
    """Do a job, and say how it ended."""
    index, number = job
    try:
        with explained(run.run_dir, "use"):
            if number is None:
                run.make(run.steps[index])
            else:
                run.train_ahead(run.steps[index], number)
    except OverdueStop as error:
        return "error", StoppedError.__name__, str(error), ()
    except NstudentError as error:
        problems = error.problems if isinstance(error, ConfigError) else ()
        return "error", type(error).__name__, " ".join(map(str, error.args)), problems
    except Exception:
        return "failed", traceback.format_exc()
    return ("done",)


class _Parent:
    """The parent, as progress that it shows and as a listener: it is sent all that there is to tell."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._numbers = count()

    def say(self, text: str) -> None:
        """Pass it on."""
        send(self._connection, "say", text)

    def begins(self, training: str, behind: Sequence[Mapping[str, float]]) -> None:
        """Pass it on."""
        send(self._connection, "begins", training, [dict(entry) for entry in behind])

    def epoch(self, training: str, entry: Mapping[str, float]) -> None:
        """Pass it on."""
        send(self._connection, "epoch", training, dict(entry))

    def made(self, step: str, metrics: Mapping[str, Any]) -> None:
        """Pass it on."""
        send(self._connection, "made", step, dict(metrics))

    @contextmanager
    def task(self, name: str, total: int, unit: str, done: int = 0) -> Iterator[Task]:
        """Pass on its beginning, how far it is from time to time, and its end."""
        number = next(self._numbers)
        send(self._connection, "begin", number, name, total, unit, done)
        task = _ParentTask(self._connection, number)
        try:
            yield task
        finally:
            task.tell()
            send(self._connection, "end", number)


class _ParentTask:
    def __init__(self, connection: Connection, number: int) -> None:
        self._connection = connection
        self._number = number
        self._amount = 0
        self._shown: dict[str, float] = {}
        self._told = time.monotonic()

    def advance(self, amount: int, **shown: float) -> None:
        self._amount += amount
        self._shown = {name: float(value) for name, value in shown.items()}
        if time.monotonic() - self._told >= _SAY_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Send what was done since the last time."""
        send(self._connection, "advance", self._number, self._amount, self._shown)
        self._amount, self._told = 0, time.monotonic()
