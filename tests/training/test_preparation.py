"""Batches that a thread makes ahead: the same ones, with their errors, and nothing is left behind."""

import threading
import time

import pytest
from nstudent.training.preparation import ahead

LONG_SECONDS = 30


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prepare")]


def test_they_come_in_order_and_one_ahead():
    made, seen = [], []

    def items():
        for number in range(5):
            made.append(number)
            yield number

    for number in ahead(items()):
        end = time.monotonic() + LONG_SECONDS
        while number < 4 and number + 1 not in made:
            assert time.monotonic() < end, "the next one is made while this one is used"
            time.sleep(0.001)
        assert max(made) <= number + 1, "and no more than that"
        seen.append(number)
    assert seen == made == [0, 1, 2, 3, 4]
    assert threads() == []


def test_nothing_gives_nothing():
    assert list(ahead(iter(()))) == []


def test_an_error_comes_where_its_batch_would_have():
    def items():
        yield 1
        raise OSError("gone")

    walk = ahead(items())
    assert next(walk) == 1
    with pytest.raises(OSError, match="gone"):
        next(walk)
    assert threads() == []


def test_a_walk_that_is_given_up_ends_its_thread_and_its_source():
    closed = threading.Event()

    def items():
        try:
            yield from range(100)
        finally:
            closed.set()

    source = items()
    walk = ahead(source)
    assert next(walk) == 0
    walk.close()
    assert threads() == []
    source.close()
    assert closed.is_set()
