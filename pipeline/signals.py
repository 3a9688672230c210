"""Stopping on request: a signal is noted, the training step under way is finished and kept, and the run ends.

Machines that are taken away send SIGTERM and wait a few seconds. That is enough for one training step and a checkpoint.
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


class StopRequest:
    """Whether somebody has asked the run to stop, and how."""

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal: the first is noted, a second one stops at once.

        Raises:
            KeyboardInterrupt: this is not the first.
        """
        if self._signal is not None:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number)

    @property
    def is_noted(self) -> bool:
        """Whether a signal has come."""
        return self._signal is not None

    def check(self) -> None:
        """Call where everything made so far is on disk, or can be put there by who catches the error.

        Raises:
            StoppedError: a signal has come.
        """
        if self._signal is not None:
            raise StoppedError(
                f"stopped by {self._signal.name}: what was done is kept, the same command goes on from there"
            )


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
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
