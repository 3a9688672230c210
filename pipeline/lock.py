"""One process a run folder."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from nstudent.errors import ArtifactError, BusyError
from nstudent.storage import read_json, write_json


@contextmanager
def hold(run_dir: Path) -> Iterator[None]:
    """Hold the run folder; the operating system lets go of it when the process ends, however it ends.

    Raises:
        BusyError: another process holds it; the message says which.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run_dir / ".lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise BusyError(
            f"{run_dir} is in use by {_holder(run_dir)}: wait for it, or choose another --run-dir"
        ) from error
    except OSError as error:
        raise ArtifactError(f"cannot use the run folder {run_dir}: {error.strerror or error}") from error
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(run_dir / ".holder.json", {"host": platform.node(), "pid": os.getpid(), "since": since})
        yield
    finally:
        (run_dir / ".holder.json").unlink(missing_ok=True)
        lock.release()


def _holder(run_dir: Path) -> str:
    try:
        said = read_json(run_dir / ".holder.json")
        return f"process {said['pid']} on {said['host']} since {said['since']}"
    except (ArtifactError, KeyError, TypeError):
        return "another process"
