"""The processes of one run. ``torchrun`` starts several and tells each its rank; otherwise there is one.

Rank 0 leads: it alone decides, writes and speaks. The others are told what to work on, and do their share of it.
"""

from dataclasses import dataclass
from typing import Any, Protocol


class World(Protocol):
    """What a process knows of the others."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def size(self) -> int:
        """Number of processes."""

    @property
    def leads(self) -> bool:
        """Whether this is the process that decides and writes."""

    def agree(self, value: Any = None) -> Any:
        """The leader's value (anything JSON can hold), in every process; all of them have to ask, and wait for it."""

    def any(self, said: bool) -> bool:
        """Whether it is so in any process; all of them have to ask."""


@dataclass(frozen=True)
class Part:
    """One of several jobs that share a labelling and know nothing of each other: it leaves deciding to a later one."""

    rank: int
    size: int
    leads = False

    def agree(self, value: Any = None) -> Any:
        """Nobody is waited for."""
        return value

    def any(self, said: bool) -> bool:
        """Nobody is asked."""
        return said


class Alone:
    """A run in one process."""

    rank = 0
    size = 1
    leads = True

    def agree(self, value: Any = None) -> Any:
        """The value itself."""
        return value

    def any(self, said: bool) -> bool:
        """What is said."""
        return said
