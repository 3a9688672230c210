"""One process a run folder."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from nstudent.errors import ArtifactError, BusyError
from nstudent.storage.lock import LOCK, hold

_HOLDER = """
import sys
from pathlib import Path
from nstudent.storage.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is held is refused at once, for tests of what is then said."""
    monkeypatch.setattr("nstudent.storage.lock._GRACE_SECONDS", 0.0)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder until its input ends."""
    command = [sys.executable, "-c", _HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.usefixtures("no_grace")
def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    said = rf"run is in use by process {holder.pid} on \S+ since 20\S+: wait for it, or choose another --run-dir"
    with pytest.raises(BusyError, match=said), hold(tmp_path / "run"):
        pytest.fail("two processes hold one folder")


def test_the_folder_is_free_when_its_holder_is_killed(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    # The dead process's note is still there, and means nothing.
    assert f'"pid": {holder.pid}' in (tmp_path / "run" / ".holder.json").read_text()
    with hold(tmp_path / "run"):
        assert f'"pid": {os.getpid()}' in (tmp_path / "run" / ".holder.json").read_text()


def test_the_folder_is_free_when_its_holder_ends(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.communicate()
    assert holder.returncode == 0
    with hold(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / ".holder.json").exists()


def test_a_folder_that_is_let_go_of_in_a_moment_is_waited_for(tmp_path: Path) -> None:
    """As by the loaders of a run that was killed, which end a little later."""
    lock = FileLock(tmp_path / LOCK, thread_local=False)
    lock.acquire()
    threading.Timer(0.1, lock.release).start()
    with hold(tmp_path):
        assert not lock.is_locked


@pytest.mark.usefixtures("no_grace")
def test_a_second_run_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(BusyError, match=f"process {os.getpid()}"), hold(tmp_path):
        pytest.fail("held twice")
    with hold(tmp_path):
        pass


def test_an_error_lets_go(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold(tmp_path):
        raise KeyError
    with hold(tmp_path):
        pass


@pytest.mark.usefixtures("no_grace")
@pytest.mark.parametrize("note", [b"", b"{}", b"[]", b"\xff"])
def test_an_unreadable_note_is_not_needed_to_refuse(tmp_path: Path, holder: subprocess.Popen[str], note: bytes) -> None:
    (tmp_path / "run" / ".holder.json").write_bytes(note)
    with pytest.raises(BusyError, match="in use by another process"), hold(tmp_path / "run"):
        pytest.fail("two processes hold one folder")


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ArtifactError, match="cannot use the run folder"), hold(path):
            pytest.fail("a file is no folder")
