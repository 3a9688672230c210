"""One process a run folder."""

import contextlib
import errno
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from nstudent.errors import ArtifactError, BusyError
from nstudent.storage.files import read_json, sweep, write_json
from nstudent.storage.links import refuse_links

LOCK = ".lock"
_PART = ".lock-part-"
MARK = f"{LOCK}.mark"
"""Where the file system knows no locks: a file whose existence is the lock, with the host and process in it."""
HOLDER = ".holder.json"

_GRACE_SECONDS = 1.0
"""A run that was killed a moment ago has processes that are about to end, and hold its lock until then."""
_PARTS_SECONDS = 120.0
"""Jobs that are started together open the folder one after the other."""
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}


@contextmanager
def hold(run_dir: Path, *, beside_parts: bool = False) -> Iterator[None]:
    """Hold the run folder; the operating system lets go of it when the process ends, however it ends.

    Where the file system has no locks, a marker file stands in: that of a dead process of this host is taken over,
    that of another host has to be removed by a person. ``beside_parts`` is for jobs that are about to hold a part:
    they wait for one another, and let those be that hold another part.

    Raises:
        BusyError: another process holds it, or a part of its work; the message says which.
        ArtifactError: the folder cannot be made, or a file cannot be written in it.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        _refuse_links(run_dir)
        lock = _acquire(run_dir / LOCK, _PARTS_SECONDS if beside_parts else _GRACE_SECONDS)
    except Timeout as error:
        raise BusyError(
            f"{run_dir} is in use by {_holder(run_dir)}: wait for it, or choose another --run-dir"
        ) from error
    except OSError as error:
        raise ArtifactError(f"cannot use the run folder {run_dir}: {error.strerror or error}") from error
    try:
        if not beside_parts:
            _refuse_parts(run_dir)
            sweep(run_dir, below=False)
        _leave_note(run_dir)
        yield
    finally:
        # A note that stays behind means nothing: the lock alone decides. It must not hide why the run ended.
        with contextlib.suppress(OSError):
            (run_dir / HOLDER).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            lock.release()


def is_held(run_dir: Path) -> bool:
    """Whether a process holds a run folder now; nothing is changed in it."""
    if (run_dir / MARK).exists():
        return True
    try:
        with FileLock(run_dir / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        # No locks here, and no mark of one.
        return False


@contextmanager
def hold_beside(folder: Path) -> Iterator[None]:
    """Hold a folder that is replaced as a whole and cannot hold its own lock: that lies beside it, in ``.NAME.lock``.

    Raises:
        BusyError: another process holds it.
    """
    place = folder.with_name(f".{folder.name}.lock")
    with ExitStack() as held:
        try:
            held.enter_context(hold(place))
        except BusyError as error:
            raise BusyError(f"{folder} is in use by {_holder(place)}: wait for it, or name another folder") from error
        yield


@contextmanager
def hold_part(run_dir: Path, number: int, count: int) -> Iterator[None]:
    """Hold one of several parts of the work in a run folder, beside the jobs that hold the others.

    Enter it while the folder is held, so that nobody works on the whole of it.

    Raises:
        BusyError: another process works on this part.
    """
    try:
        lock = _acquire(run_dir / f"{_PART}{number}-of-{count}", _GRACE_SECONDS)
    except Timeout as error:
        raise BusyError(f"part {number}/{count} of {run_dir} is being worked on by another process") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.release()


def _refuse_links(run_dir: Path) -> None:
    """A lock that is a link would be taken, and written, elsewhere; not every release of filelock refuses to."""
    own = (LOCK, MARK, HOLDER, *(path.name for path in sorted(run_dir.glob(f"{_PART}*"))))
    refuse_links(run_dir, (name for name in own if (run_dir / name).is_symlink()))


def _refuse_parts(run_dir: Path) -> None:
    """Parts that nobody holds any more leave only their names, which are cleared away."""
    for path in sorted(run_dir.glob(f"{_PART}*")):
        try:
            with FileLock(path, timeout=0):
                path.unlink(missing_ok=True)
        except Timeout as error:
            part = path.name.removeprefix(_PART).replace("-of-", "/")
            raise BusyError(f"part {part} of {run_dir} is being worked on: wait for that job, or end it") from error


def _acquire(path: Path, wait_seconds: float) -> BaseFileLock:
    lock: BaseFileLock = FileLock(path, timeout=wait_seconds)
    # Newer releases of filelock fall back by themselves where flock does not exist, and warn of it.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flock not supported")
        try:
            lock.acquire()
        except (OSError, NotImplementedError) as error:
            if isinstance(error, Timeout) or (isinstance(error, OSError) and error.errno not in _NO_LOCKS):
                raise
            lock = SoftFileLock(path.with_name(path.name + ".mark"), timeout=0)
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
