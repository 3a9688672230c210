"""File systems that are really full or read-only, limits of the system, and folders with difficult names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fork_server import ForkServer
from interrupted_run import differences, finish, stumps, unhelpful
from PIL import Image
from tiny_run import results, run_all_words

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from conftest import WholeRun

Mount = Callable[[str], Path]


@contextmanager
def _mounted(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "nstudent-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a file system of some size in memory."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    with ExitStack() as stack:
        yield lambda size: stack.enter_context(_mounted(tmp_path / "disk", size))


@pytest.mark.parametrize(
    ("room", "said"),
    [
        ("size=100k", r"run/00-data.partial needs about [\d,]+ bytes more and [\d,]+ bytes are free there: make room"),
        ("size=256m,nr_inodes=40", r"No space left on device, [\d,]+ bytes are free there: make room"),
    ],
    ids=["too few bytes, asked for before the step", "no file more, found out in the middle of one"],
)
def test_a_full_disk_is_said_and_after_making_room_the_run_goes_on(
    server: ForkServer, whole: WholeRun, mount: Mount, room: str, said: str
) -> None:
    disk = mount("16m")
    _remount(disk, room)
    run_dir = disk / "run"
    failed = server.run(run_all_words(run_dir), run_dir)
    assert failed.status != 0
    assert unhelpful(failed) == []
    assert re.search(said, failed.error.splitlines()[-1])
    assert stumps(run_dir) == []
    _remount(disk, "size=256m,nr_inodes=10k")
    assert finish(server, run_dir, whole.results) == []


def test_a_read_only_disk_is_said_and_what_it_holds_can_be_used(
    server: ForkServer, whole: WholeRun, mount: Mount, tmp_path: Path
) -> None:
    disk = mount("64m")
    run_dir = disk / "run"
    shutil.copytree(whole.folder, run_dir)
    _remount(disk, "ro")
    for folder in (run_dir, disk / "new"):
        failed = server.run(run_all_words(folder), folder)
        assert unhelpful(failed) == []
        assert "Read-only file system" in failed.error
    status = server.run(["status", str(run_dir)], run_dir)
    assert status.status == 0, status.error
    assert '"labels"' in _predict(server, run_dir, tmp_path)


def _predict(server: ForkServer, run_dir: Path, tmp_path: Path) -> str:
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    done = server.run(["predict", str(run_dir), str(tmp_path / "image.png")], run_dir)
    assert done.status == 0, done.error
    return done.error


def test_a_limit_on_the_size_of_files(server: ForkServer, whole: WholeRun, run_dir: Path) -> None:
    failed = server.run(run_all_words(run_dir), run_dir, limits={"RLIMIT_FSIZE": 100_000})
    assert unhelpful(failed) == []
    assert "File too large" in failed.error
    assert stumps(run_dir) == []
    assert finish(server, run_dir, whole.results) == []


def test_a_run_needs_few_open_files_and_leaks_none(server: ForkServer, whole: WholeRun, run_dir: Path) -> None:
    """It opens hundreds of files, one after another."""
    done = server.run(run_all_words(run_dir), run_dir, limits={"RLIMIT_NOFILE": 32})
    assert done.status == 0, done.error
    assert differences(results(run_dir), whole.results) == []


def test_too_few_open_files_are_one_line(server: ForkServer, run_dir: Path) -> None:
    failed = server.run(run_all_words(run_dir), run_dir, limits={"RLIMIT_NOFILE": 8})
    assert unhelpful(failed) == []
    assert "Too many open files" in failed.error


def test_a_name_that_is_too_long_is_one_line(server: ForkServer, run_dir: Path) -> None:
    folder = run_dir / ("x" * 300)
    failed = server.run(run_all_words(folder), folder)
    assert unhelpful(failed) == []
    assert "File name too long" in failed.error


def test_a_folder_with_a_difficult_name(server: ForkServer, whole: WholeRun, run_dir: Path, tmp_path: Path) -> None:
    folder = run_dir / 'it\'s "a" [bold]run[/bold] – 사진 🍎 %s {0} $HOME\n#'
    done = server.run(run_all_words(folder), folder)
    assert done.status == 0, done.error
    assert differences(results(folder), whole.results) == []
    assert server.run(["status", str(folder)], folder).status == 0
    assert '"labels"' in _predict(server, folder, tmp_path)


def test_a_copied_run_is_up_to_date_and_of_use(
    server: ForkServer, whole: WholeRun, run_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole.folder, run_dir)
    times = {path: path.stat().st_mtime_ns for path in run_dir.rglob("manifest.json")}
    assert finish(server, run_dir, whole.results) == []
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("manifest.json")} == times
    assert '"labels"' in _predict(server, run_dir, tmp_path)
    home = os.fsencode(whole.folder)
    assert [path.name for path in run_dir.rglob("*") if path.is_file() and home in path.read_bytes()] == []
