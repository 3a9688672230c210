"""The processes of one run. ``torchrun`` starts several and tells each its rank; otherwise there is one.

Rank 0 leads: it alone decides, writes and speaks. The others are told what to work on, and do their share of it.
"""

from dataclasses import dataclass
from typing import Any, Protocol


class World(Protocol):
    """The processes of a run, as one of them sees them: how many there are, which it is, and a way to agree."""

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
        """The leader's value, in every process: every process has to call it, and waits for the leader.

        Args:
            value: Anything that JSON can hold; that of the leader counts.
        """

    def any(self, said: bool) -> bool:
        """Whether ``said`` is true in any process: every process has to call it, and waits for the others."""


@dataclass(frozen=True)
class IndependentJob:
    """The world of one job of an array: it makes its part of a labelling and cannot talk to the others.

    It does not lead: a later call, which finds all parts, puts them together and commits them.
    """

    rank: int
    """Number of the part that this job makes, from 0."""
    size: int
    """Number of parts."""
    leads = False

    def agree(self, value: Any = None) -> Any:
        """The value itself: there is nobody to agree with."""
        return value

    def any(self, said: bool) -> bool:
        """What this job says: it cannot ask the others."""
        return said


class Alone:
    """The world of a run in a single process."""

    rank = 0
    size = 1
    leads = True

    def agree(self, value: Any = None) -> Any:
        """The value itself: there is nobody to agree with."""
        return value

    def any(self, said: bool) -> bool:
        """What this process says."""
        return said
