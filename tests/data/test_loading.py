"""Processes that prepare images: how many there is room for, and what is said of those that give nothing."""

import re
import shutil
import subprocess
import sys
from collections import namedtuple

import pytest
from nstudent.data import loading
from nstudent.data.loading import loaders_explained, room_in_shared_memory, workers_with_room
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
    with pytest.raises(TrainingError, match=r"none for 30 minutes: the disk may not answer"), loaders_explained():
        raise RuntimeError("DataLoader timed out after 1800 seconds")


_FILLED_MEANWHILE = """
import sys
import numpy as np
from nstudent.data.batches import Batches, Examples
from nstudent.errors import TrainingError
pixels = np.zeros((64, 64, 64, 3), np.uint8)
mass = lambda rows: (np.ones((len(rows), 2), np.float32),)
batches = Batches(pixels, [(Examples(np.arange(64), mass), 32)], None, ("key",))
loaded = batches.load(0, 500, 2)
assert next(loaded).images.is_shared()
with open("/dev/shm/others", "wb") as others:
    try:
        while others.write(bytes(1 << 20)):
            others.flush()
    except OSError:
        pass
try:
    for batch in loaded:
        pass
except TrainingError as error:
    print(error)
"""


@pytest.mark.slow
def test_shared_memory_that_is_filled_later_is_a_line_at_once() -> None:
    """Really, in a file system that this process alone sees; the processes that load would else be waited for."""
    mounted = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=16m tmpfs /dev/shm && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*mounted, "true"], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    found = subprocess.run(
        [*mounted, sys.executable, "-c", _FILLED_MEANWHILE], capture_output=True, text=True, check=True, timeout=120
    )
    assert re.fullmatch(r"/dev/shm is full, through which .*: free it, or set workers=0; .* goes on\n", found.stdout)
    assert "Traceback" not in found.stderr


def test_other_errors_of_a_loader_are_not_taken_for_a_full_memory() -> None:
    with pytest.raises(RuntimeError, match="something else"), room_in_shared_memory():
        raise RuntimeError("something else")
