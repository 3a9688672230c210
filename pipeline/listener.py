"""What a program hears of a run while it goes on, in named events: for trackers, tuners and live curves.

``Progress`` talks to a person in lines and bars; a listener is given numbers. It hears of trainings in other processes
of the run as well, always in the process that called ``run_all``, one event at a time. A training calls it between two
of its steps and waits until it returns. Whatever it raises ends the run, and the same call goes on from there; with
``StoppedError`` the training keeps its last step first, as it does after a signal.
"""

from collections.abc import Mapping
from typing import Any, Protocol


class Listener(Protocol):
    """What wants to hear of a run."""

    def epoch(self, training: str, entry: Mapping[str, float]) -> None:
        """Hear that an epoch of a training has ended.

        An interrupted training goes on from a checkpoint, which may be older than the last event: epochs after the
        checkpoint are trained and reported again, with the same numbers. ``(training, entry["epoch"])`` is a key by
        which a receiver can drop what it has heard before. Epochs before the checkpoint are not reported again.

        Args:
            training: Name of the step and of one of its trainings, such as ``04-student/student``.
            entry: ``epoch`` (from 1), ``loss`` (mean over the epoch), ``learning_rate`` (of its last step) and, where
                it was measured, ``validation`` (the score on the validation images, 0 to 1).
        """

    def made(self, step: str, metrics: Mapping[str, Any]) -> None:
        """Hear that a step of the run was made and is on disk.

        Steps that were up to date are not reported. A step that is made again (after a change of settings, a repair)
        is reported again.

        Args:
            step: Name of the step, which is that of its folder, such as ``04-student``.
            metrics: What its manifest says of it, as JSON.
        """


class NoListener:
    """Nobody listens. A class that wants to hear only some events can inherit the others from this one."""

    def epoch(self, training: str, entry: Mapping[str, float]) -> None:
        """Ignore the event."""

    def made(self, step: str, metrics: Mapping[str, Any]) -> None:
        """Ignore the event."""
