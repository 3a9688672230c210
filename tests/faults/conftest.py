"""One whole run that everything is compared with, and folders for others."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_injection import Fault, recorded
from fork_server import ForkServer
from tiny_run import results, run_all_words


@dataclass(frozen=True)
class WholeRun:
    """An uninterrupted run."""

    folder: Path
    results: dict[str, str]
    operations: list[tuple[str, str]]
    """Everything it did to its folder, in order."""
    seconds: float


@pytest.fixture(scope="session")
def whole(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = server.run(run_all_words(folder), folder, Fault(-1))
    assert done.status == 0, done.error
    return WholeRun(folder, results(folder), recorded(server.log), done.seconds)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A run folder in memory, where that can be had: what is killed does not need a disk that waits for fsync."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder) / "run"
