"""One process a run folder."""

import contextlib
import errno
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from nstudent.errors import ArtifactError, BusyError
from nstudent.storage import read_json, write_json

LOCK = ".lock"
MARK = ".lock.mark"
"""Where the file system knows no locks: a file whose existence is the lock, with the host and process in it."""
HOLDER = ".holder.json"

_GRACE_SECONDS = 1.0
"""A run that was killed a moment ago has processes that are about to end, and hold its lock until then."""
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}


@contextmanager
def hold(run_dir: Path) -> Iterator[None]:
    """Hold the run folder; the operating system lets go of it when the process ends, however it ends.

    Where the file system has no locks, a marker file stands in: that of a dead process of this host is taken over,
    that of another host has to be removed by a person.

    Raises:
        BusyError: another process holds it; the message says which.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = _acquire(run_dir)
    except Timeout as error:
        raise BusyError(
            f"{run_dir} is in use by {_holder(run_dir)}: wait for it, or choose another --run-dir"
        ) from error
    except OSError as error:
        raise ArtifactError(f"cannot use the run folder {run_dir}: {error.strerror or error}") from error
    try:
        _leave_note(run_dir)
        yield
    finally:
        # A note that stays behind means nothing: the lock alone decides. It must not hide why the run ended.
        with contextlib.suppress(OSError):
            (run_dir / HOLDER).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            lock.release()


def _acquire(run_dir: Path) -> BaseFileLock:
    lock: BaseFileLock = FileLock(run_dir / LOCK, timeout=_GRACE_SECONDS)
    # Newer releases of filelock fall back by themselves where flock does not exist, and warn of it.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flock not supported")
        try:
            lock.acquire()
        except (OSError, NotImplementedError) as error:
            if isinstance(error, Timeout) or (isinstance(error, OSError) and error.errno not in _NO_LOCKS):
                raise
            lock = SoftFileLock(run_dir / MARK, timeout=0)
            lock.acquire()
    return lock


def _leave_note(run_dir: Path) -> None:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        write_json(run_dir / HOLDER, {"host": platform.node(), "pid": os.getpid(), "since": since})
    except OSError as error:
        raise ArtifactError(f"cannot write in the run folder {run_dir}: {error.strerror or error}") from error


def _holder(run_dir: Path) -> str:
    try:
        said = read_json(run_dir / HOLDER)
        holder = f"process {said['pid']} on {said['host']} since {said['since']}"
        if said["host"] == platform.node():
            return holder
        return f"{holder} (if that machine is gone for good, remove {LOCK} and {MARK} there)"
    except (ArtifactError, KeyError, TypeError):
        return "another process"
