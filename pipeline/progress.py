"""How long work tells a person where it is, without knowing whether that person sits at a terminal."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Task(Protocol):
    """One piece of long work, shown while it goes on."""

    def advance(self, amount: int, **shown: float) -> None:
        """``amount`` more units are done; ``shown`` are figures worth seeing, such as the loss."""


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
