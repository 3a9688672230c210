"""How long work tells a person where it is, without knowing whether that person sits at a terminal."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol


class Task(Protocol):
    """One piece of long work, shown while it goes on."""

    def advance(self, amount: int, **shown: float) -> None:
        """``amount`` more units are done; ``shown`` are figures worth seeing, such as the loss.

        The name of a figure may end in its unit: ``**{"score %": 97.1}``.
        """


class Progress(Protocol):
    """How a stage tells a person what it does."""

    def task(self, name: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Task]:
        """Begin a piece of work of ``total`` units, ``done`` of which an earlier attempt has made."""

    def say(self, text: str) -> None:
        """One line that stays on the screen."""


class Silence:
    """Progress for a program that calls nstudent as a library."""

    def task(self, name: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Task]:
        """Show nothing."""
        return nullcontext(self)

    def advance(self, amount: int, **shown: float) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""


class Watched:
    """Progress of work that can be stopped: wherever it says how far it is, it is asked whether to go on."""

    def __init__(self, progress: Progress, check: Callable[[], None]) -> None:
        self._progress = progress
        self._check = check

    def say(self, text: str) -> None:
        """Pass it on."""
        self._progress.say(text)

    @contextmanager
    def task(self, name: str, total: int, unit: str, done: int = 0) -> Iterator[Task]:
        """Pass it on; every ``advance`` may raise what the check raises."""
        with self._progress.task(name, total, unit, done) as task:
            yield _WatchedTask(task, self._check)


class _WatchedTask:
    def __init__(self, task: Task, check: Callable[[], None]) -> None:
        self._task = task
        self._check = check

    def advance(self, amount: int, **shown: float) -> None:
        self._task.advance(amount, **shown)
        self._check()


def figure_in_words(name: str, value: float) -> str:
    """A figure of some work as a person reads it, such as ``loss 1.23``; a unit at the end of the name follows it."""
    what, _, unit = name.rpartition(" ")
    return f"{what} {value:.4g} {unit}" if unit in _UNITS else f"{name} {value:.4g}"


_UNITS = ("%", "min")
