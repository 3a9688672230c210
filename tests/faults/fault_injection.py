"""Something goes wrong at the n-th time that a process changes its run folder; nothing in the product knows of it.

Python tells an audit hook before it opens, renames, makes or removes anything; ``os.fsync`` is wrapped, because it is
not told. A hook that raises makes the operation fail, a hook that kills makes it the last thing that did not happen.
"""

import errno
import fcntl
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ONE_PATH = {"os.mkdir": "mkdir", "os.remove": "remove", "os.rmdir": "rmdir", "shutil.rmtree": "rmtree"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

_DRAWN = re.compile(r"\.[0-9a-f]{8}(?=\.writing$)")

KILL = "kill"
TEAR = "tear"
"""The power goes: of what was written and is not yet synced, half is lost. Only at an ``fsync``, elsewhere a kill."""


@dataclass(frozen=True)
class Fault:
    """What happens at which operation."""

    at: int
    """Number of the operation, from 0; -1: none, the operations are only recorded."""
    kind: str = KILL
    """``kill``, ``tear``, the name of a signal (SIGTERM), or the name of an error (ENOSPC)."""
    lasting: bool = False
    """An error: every operation from this one on fails, as on a full disk; else this one alone."""


class Injector:
    """Counts the operations below a folder, writes them down, and strikes at one of them."""

    def __init__(self, folder: Path, fault: Fault, log: Path) -> None:
        self._prefix = os.path.abspath(folder)
        self._fault = fault
        self._number = 0
        # Opened before the hook is there, so that it does not count itself.
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def install(self) -> None:
        """From now on, and until the process ends: an audit hook cannot be removed."""
        sys.addaudithook(self._hear)
        os.fsync = self._telling(os.fsync)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & _WRITING and not isinstance(path, int):
                self._meet("open", path)
        elif event in ("os.rename", "os.link"):
            self._meet(event.removeprefix("os."), arguments[1])
        elif event in _ONE_PATH:
            self._meet(_ONE_PATH[event], arguments[0])

    def _telling(self, fsync: Callable[[Any], None]) -> Callable[[Any], None]:
        def told(file: Any) -> None:
            descriptor = file if isinstance(file, int) else file.fileno()
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            kind = "fsync folder" if os.path.isdir(path) else "fsync"
            self._meet(kind, path, descriptor)
            fsync(file)

        return told

    def _meet(self, kind: str, path: Any, descriptor: int | None = None) -> None:
        name = os.path.abspath(os.fsdecode(path))
        if name != self._prefix and not name.startswith(self._prefix + os.sep):
            return
        number = self._number
        self._number += 1
        os.write(self._log, os.fsencode(f"{kind}\t{os.path.relpath(name, self._prefix)}\n"))
        fault = self._fault
        if fault.at >= 0 and (number == fault.at or (fault.lasting and number > fault.at)):
            self._strike(kind, name, descriptor)

    def _strike(self, kind: str, name: str, descriptor: int | None) -> None:
        what = self._fault.kind
        # Who can only read a file has written nothing that could be lost.
        if what == TEAR and kind == "fsync" and descriptor is not None and _may_write(descriptor):
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        if what in (KILL, TEAR):
            os.kill(os.getpid(), signal.SIGKILL)
        elif what.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[what])
        else:
            # A full disk lets files be removed.
            if what in ("ENOSPC", "EDQUOT") and kind in ("remove", "rmdir", "rmtree"):
                return
            number = getattr(errno, what)
            raise OSError(number, os.strerror(number), name)


def _may_write(descriptor: int) -> bool:
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def recorded(log: Path) -> list[tuple[str, str]]:
    """(kind, path below the run folder) of every operation, in order; without what makes a name unlike any other."""
    lines = log.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return [(kind, _DRAWN.sub("", path)) for kind, _, path in (line.partition("\t") for line in lines)]
