"""Batches that are prepared while the step before is taken."""

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from fitting import LENGTH
from nstudent.training.loop import Loop
from nstudent.training.preparation import Ahead


@pytest.mark.parametrize(
    ("cores", "workers", "beside"),
    [(2, 0, True), (1, 0, False), (2, 1, False)],
    ids=["two cores", "one core", "processes do it"],
)
def test_batches_are_prepared_in_a_thread_where_a_core_is_free_for_it(
    cores: int, workers: int, beside: bool, make_loop: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nstudent.training.feed.available_cores", lambda: cores)
    prepared = make_loop(LENGTH, workers=workers).feed.between(0, 3)
    next(prepared)
    assert any(thread.name.startswith("prepare") for thread in threading.enumerate()) is beside
    prepared.close()


def test_the_next_batch_is_begun_while_a_step_is_taken(
    make_loop: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nstudent.training.feed.available_cores", lambda: 2)
    loop, begun = make_loop(LENGTH), []
    begin = Ahead.begin

    def watched(ahead: Any) -> None:
        begun.append(ahead)
        begin(ahead)

    monkeypatch.setattr(Ahead, "begin", watched)
    with closing(loop.feed.between(0, 3)) as prepared:
        first = next(prepared)
        begun.clear()
        loop.take(first)
        assert len(begun) == 1
