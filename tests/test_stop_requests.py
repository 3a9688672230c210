"""Signals that a process notes, where its parent decides and a scheduler tells both."""

import signal
from collections.abc import Iterator

import pytest
from nstudent.errors import StoppedError
from nstudent.signals import SIGNALS, stop_with_parent


@pytest.fixture(autouse=True)
def _handlers_put_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_process_that_is_told_twice_stops_once() -> None:
    stop = stop_with_parent()
    stop.check()
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
        signal.raise_signal(number)
    with pytest.raises(StoppedError, match="stopped by SIGTERM"):
        stop.check()


def test_ctrl_c_is_left_to_the_parent() -> None:
    before = signal.getsignal(signal.SIGINT)
    stop_with_parent()
    assert signal.getsignal(signal.SIGINT) is before
