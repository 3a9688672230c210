"""Batches that a thread makes ahead: the same ones, with their errors, and nothing is left behind."""

import threading
import time

import pytest
from nstudent.training.preparation import Ahead

LONG_SECONDS = 30


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prepare")]


def until(met):
    end = time.monotonic() + LONG_SECONDS
    while not met():
        assert time.monotonic() < end
        time.sleep(0.001)


def counted(number, made, *, together=None):
    """So many numbers, written down when they are made; with ``together`` none is before that is set."""
    for each in range(number):
        if together is not None:
            assert together.wait(LONG_SECONDS)
        made.append(each)
        yield each


def test_the_next_one_is_made_when_its_user_says_so_and_no_more_than_that():
    made = []
    walk = Ahead(counted(5, made))
    for number in range(5):
        assert next(walk) == number
        assert made == list(range(number + 1))
        walk.begin()
        walk.begin()
        until(lambda number=number: len(made) == min(5, number + 2))
        until(lambda: walk._coming.done())
    with pytest.raises(StopIteration):
        next(walk)
    assert threads() == []


def test_one_that_comes_too_late_again_and_again_is_begun_at_once():
    made = []
    walk = Ahead(counted(9, made))
    # Nobody ever says when: after the first, which has to be waited for, three are late.
    assert [next(walk) for _ in range(4)] == [0, 1, 2, 3]
    until(lambda: made == [0, 1, 2, 3, 4])
    assert next(walk) == 4
    until(lambda: made == [0, 1, 2, 3, 4, 5])
    walk.close()


def test_now_and_then_a_late_one_changes_nothing():
    made, free = [], threading.Event()
    walk = Ahead(counted(9, made, together=free))
    free.set()
    assert next(walk) == 0
    for number in range(1, 7):
        walk.begin()
        if number % 3:
            # Asked for before it is there.
            free.clear()
            threading.Timer(0.05, free.set).start()
        else:
            until(lambda: walk._coming.done())
        assert next(walk) == number
    time.sleep(0.05)
    assert made == list(range(7))
    walk.close()


def test_all_come_in_order_whoever_says_when():
    assert list(Ahead(counted(7, []))) == [0, 1, 2, 3, 4, 5, 6]
    assert list(Ahead(counted(0, []))) == []
    assert threads() == []


def test_an_error_comes_where_its_batch_would_have():
    def items():
        yield 1
        raise OSError("gone")

    walk = Ahead(items())
    assert next(walk) == 1
    with pytest.raises(OSError, match="gone"):
        next(walk)
    assert threads() == []


@pytest.mark.parametrize("begun", [False, True])
def test_a_walk_that_is_given_up_ends_its_thread_and_its_source(begun):
    closed = threading.Event()

    def items():
        try:
            yield from range(100)
        finally:
            closed.set()

    walk = Ahead(items())
    assert next(walk) == 0
    if begun:
        walk.begin()
    walk.close()
    walk.close()
    assert threads() == []
    assert closed.is_set()
