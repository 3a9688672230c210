"""What a program hears of a run while it goes on, in named events: for trackers, tuners and live curves.

``Progress`` talks to a person in lines and bars; a listener is given numbers. It hears of trainings in other processes
of the run as well, always in the process that called ``run_all``, one event at a time. A training calls it between two
of its steps and waits until it returns. Whatever it raises ends the run, and the same call goes on from there; with
``StoppedError`` the training keeps its last step first, as it does after a signal.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Listener(Protocol):
    """What wants to hear of a run."""

    def begins(self, training: str, behind: Sequence[Mapping[str, float]]) -> None:
        """Hear that a training begins, anew or where it was interrupted.

        What was heard of its epochs before is to be replaced by those that lie behind it. Where it was interrupted, an
        epoch may have been reported that is not among them, which will be trained and reported again, and one that is
        among them may never have been reported. Where it begins anew, none lies behind it.

        A training that another process of the run has done ahead begins twice: there, and in the process that called
        ``run_all``, where all epochs lie behind it.

        Args:
            training: Name of the step and of one of its trainings, as in ``epoch``.
            behind: The entries of the epochs that lie behind it, as ``epoch`` was given them, or would have been.
        """

    def epoch(self, training: str, entry: Mapping[str, float]) -> None:
        """Hear that an epoch of a training has ended: the one after those that were reported since it last began.

        Args:
            training: Name of the step and of one of its trainings, such as ``04-student/student``.
            entry: ``epoch`` (from 1), ``step`` (number of training steps that are behind it), ``loss`` (mean over the
                epoch), ``learning_rate`` (of its last step) and, where it was measured, ``validation`` (the score on
                the validation images, 0 to 1).
        """

    def made(self, step: str, metrics: Mapping[str, Any]) -> None:
        """Hear that a step of the run was made and is on disk.

        Steps that were up to date are not reported, nor is one again whose making was interrupted after it was on disk:
        the manifests in the run folder say of every step what was made, with the epochs of its trainings. A step that
        is made again (after a change of settings, a repair) is reported again.

        Args:
            step: Name of the step, which is that of its folder, such as ``04-student``.
            metrics: What its manifest says of it, as JSON.
        """


class NoListener:
    """Nobody listens. A class that wants to hear only some events can inherit the others from this one."""

    def begins(self, training: str, behind: Sequence[Mapping[str, float]]) -> None:
        """Ignore the event."""

    def epoch(self, training: str, entry: Mapping[str, float]) -> None:
        """Ignore the event."""

    def made(self, step: str, metrics: Mapping[str, Any]) -> None:
        """Ignore the event."""


class Several:
    """Several listeners as one; each event goes to them in their order."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def begins(self, training: str, behind: Sequence[Mapping[str, float]]) -> None:
        """Pass the event on."""
        for listener in self._listeners:
            listener.begins(training, behind)

    def epoch(self, training: str, entry: Mapping[str, float]) -> None:
        """Pass the event on."""
        for listener in self._listeners:
            listener.epoch(training, entry)

    def made(self, step: str, metrics: Mapping[str, Any]) -> None:
        """Pass the event on."""
        for listener in self._listeners:
            listener.made(step, metrics)
