"""Stopping on request: a signal is noted, what is under way is finished and kept, and the run ends.

Machines that are taken away send SIGTERM and wait some seconds. That is enough for one training step and a checkpoint,
and no other work is waited for longer: where nobody asks within a few seconds whether to go on, it is cut off.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nstudent.errors import StoppedError

SIGNALS = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGUSR1") if (number := getattr(signal, name, None)) is not None
)
"""Ctrl-C; what schedulers send before they kill; what SLURM is often told to send. Windows has no SIGUSR1."""
GRACE_SECONDS = 5.0
"""How long work that is no training may go on after the signal: it has the rest of ten seconds to let go of things."""
_ALARM = getattr(signal, "SIGALRM", None)
"""The signal of the timer; Windows has none."""


class OverdueStop(KeyboardInterrupt):
    """Somebody asked the run to stop, and work that did not ask whether to go on is cut off: it is done again."""


class StopRequest:
    """Whether somebody has asked the run to stop, and how."""

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._patient = False
        self._is_due = False
        self._timed = False

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal: the first is noted, a second one stops at once.

        Raises:
            KeyboardInterrupt: this is not the first.
        """
        if self._signal is not None:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number)
        if self._timed:
            signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    @property
    def is_noted(self) -> bool:
        """Whether a signal has come."""
        return self._signal is not None

    @property
    def reason(self) -> str:
        """Which signal has come, and what the person may do now."""
        name = "nobody" if self._signal is None else self._signal.name
        return f"stopped by {name}: what was done is kept, the same command goes on from there"

    def check(self) -> None:
        """Call where everything made so far is on disk, or can be put there by who catches the error.

        Raises:
            StoppedError: a signal has come.
        """
        if self._signal is not None:
            self._disarm()
            raise StoppedError(self.reason)

    @contextmanager
    def patiently(self, wait: bool = True) -> Iterator[None]:
        """Let work end by itself that asks whether to go on, or (``wait`` false) within such work cut some of it off.

        Raises:
            StoppedError: At the end of such work, if it should have stopped.
        """
        before, self._patient = self._patient, wait
        if self._is_due and not wait:
            self._cut_off(0)
        try:
            yield
        finally:
            self._patient = before
        if self._is_due and not before:
            self.check()

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Cut off what goes on for too long after the signal; only the main thread can ask for this."""
        if _ALARM is None:
            yield
            return
        before, self._timed = signal.signal(_ALARM, self._cut_off), True
        try:
            yield
        finally:
            self._disarm()
            signal.signal(_ALARM, before)

    def _cut_off(self, number: int, frame: FrameType | None = None) -> None:
        if self._signal is None:
            # Not our timer: a program that starts others may set one, which goes on in them.
            self.note(number)
            return
        self._is_due = True
        if not self._patient:
            raise OverdueStop(self.reason)

    def _disarm(self) -> None:
        if self._timed:
            self._timed = False
            signal.setitimer(signal.ITIMER_REAL, 0)


def stop_with_parent() -> StopRequest:
    """Note what a parent sends to stop this process: once, since a scheduler may send it to all of them, too."""
    request = StopRequest()

    def note(number: int, frame: FrameType | None = None) -> None:
        if not request.is_noted:
            request.note(number, frame)

    for number in SIGNALS:
        if number != signal.SIGINT:
            signal.signal(number, note)
    return request


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Note signals instead of dying of them. Only the main thread of a process can ask for this."""
    request = StopRequest()
    before = {number: signal.signal(number, request.note) for number in SIGNALS}
    try:
        with request.timed():
            yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
