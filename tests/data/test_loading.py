"""Processes that prepare images: how many there is room for, and what is said of those that give nothing."""

from collections import namedtuple

import pytest
from nstudent.data import loading
from nstudent.data.loading import loaders_explained, workers_with_room
from nstudent.errors import TrainingError

Usage = namedtuple("Usage", "free")


NEEDED = 2 * 3 * 4 * (1000 + (1 << 20))
"""Two processes, three batches each, four trainings beside each other; each batch its images and something more."""


@pytest.mark.parametrize(("free", "workers"), [(NEEDED, 2), (NEEDED - 1, 0), (64 << 10, 0)])
def test_no_process_prepares_images_where_the_shared_memory_cannot_hold_them(
    monkeypatch: pytest.MonkeyPatch, free: int, workers: int
) -> None:
    monkeypatch.setattr(loading.shutil, "disk_usage", lambda path: Usage(free))
    said: list[str] = []
    assert workers_with_room(2, 1000, said.append) == workers
    assert len(said) == (not workers)
    assert all("--shm-size" in line for line in said)


def test_without_processes_nothing_is_asked() -> None:
    assert workers_with_room(0, 10**18, pytest.fail) == 0


def test_processes_that_give_nothing_are_a_line() -> None:
    with pytest.raises(TrainingError, match=r"none for 30 minutes: .* may be full"), loaders_explained():
        raise RuntimeError("DataLoader timed out after 1800 seconds")
