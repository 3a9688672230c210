"""What the machine has for this process; how many processes there should be beside it, and that none outlives it."""

import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from nstudent.errors import ArtifactError, ConfigError
from nstudent.signals import SIGNALS

_LIBRARY_FOLDERS = "LD_LIBRARY_PATH"
_SAFE_PATH = "PYTHONSAFEPATH"
_OTHER_FILES = 512
"""Libraries, pipes to processes, the stores of labels and scores."""
_MOST_COPYING = 8
"""Largest number of threads that copy the images of one batch; memory is not faster with more."""
_BUSY = 1.5
"""Load of a machine, in its cores, above which other programs are at work on it."""
_BYTES_WORTH_A_THREAD = 4 << 20
_MANY_IMAGES = 32
"""Number of images from which on threads decode them: fewer gain less than threads take to begin."""


@contextmanager
def out_of_working_folder() -> Iterator[None]:
    """Import libraries in here: they find nothing of the folder in which the user works, which may be a stranger's.

    matplotlib reads the ``matplotlibrc`` that lies there, and the dynamic loader looks there for libraries that some of
    CUDA's need. OpenCV makes it do so for every process that is started later, by an empty entry in its list of
    folders, which is taken out again. Paths of the user must not be opened in here.
    """
    listed = os.environ.get(_LIBRARY_FOLDERS)
    here = os.open(".", getattr(os, "O_PATH", os.O_RDONLY)) if os.name != "nt" else os.getcwd()
    os.chdir(Path(os.__file__).parent)
    try:
        yield
    finally:
        os.chdir(here)
        if isinstance(here, int):
            os.close(here)
        if listed is None:
            os.environ.pop(_LIBRARY_FOLDERS, None)
        else:
            os.environ[_LIBRARY_FOLDERS] = listed


@contextmanager
def safe_start() -> Iterator[None]:
    """Start processes that run Python in here: they import nothing from the working folder."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


def available_cores() -> int:
    """Cores for this process: a container may have made them fewer, and torchrun's processes share a machine's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Job systems set variables of that name too; without torchrun they say nothing of who shares the cores.
    here = os.environ.get("LOCAL_WORLD_SIZE", "") if _missing_of_torchrun() == [] else ""
    return max(1, cores // max(1, int(here))) if here.isdecimal() else cores


def is_used_by_others() -> bool:
    """Whether other programs take a good part of this machine: its load of the last minute is well above its cores.

    What this process does itself is in that load, so that the cores alone are no sign. ``False`` if nobody says.
    """
    try:
        return os.getloadavg()[0] > _BUSY * (os.cpu_count() or 1)
    except (AttributeError, OSError):  # Windows knows no load
        return False


def is_one_of_several() -> bool:
    """Whether torchrun has started this process and others, to do one run together.

    Raises:
        ConfigError: A variable says that there are several, and others that torchrun sets say nothing or cannot be.
    """
    size = os.environ.get("WORLD_SIZE", "").strip()
    if size in ("", "0", "1"):
        return False
    if not size.isdecimal():
        raise ConfigError(f"WORLD_SIZE is {size!r:.40}, which is no number: start with torchrun, or unset WORLD_SIZE")
    missing = _missing_of_torchrun()
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {size}, but not set to what torchrun sets: {', '.join(missing)}. Start with torchrun, or "
            "unset WORLD_SIZE"
        )
    if int(os.environ["RANK"]) >= int(size):
        raise ConfigError(f"RANK is {os.environ['RANK']}, and WORLD_SIZE {size}: ranks go from 0 to {int(size) - 1}")
    return int(size) > 1


def _missing_of_torchrun() -> list[str]:
    """Variables that torchrun sets and that are not set to what it would set."""
    numbers = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
    missing = [name for name in numbers if not os.environ.get(name, "").isdecimal()]
    return missing + ([] if os.environ.get("MASTER_ADDR") else ["MASTER_ADDR"])


def may_start_processes() -> bool:
    """Whether this process can have any others below it: the workers of a ``multiprocessing.Pool`` cannot."""
    return not multiprocessing.current_process().daemon


@contextmanager
def processes_that_end_with_this() -> Iterator[None]:
    """Let this process start others for a time, also if it is a worker of a ``multiprocessing.Pool``.

    Those workers are forbidden to, because a worker that is terminated would leave its processes behind. For processes
    that begin with ``serve_parent`` that is not so: they notice that it has gone.
    """
    process = multiprocessing.current_process()
    before = process.daemon
    if before:
        process.daemon = False
    try:
        yield
    finally:
        if before:
            process.daemon = True


def available_memory() -> int | None:
    """Bytes that can be had without swapping, which a container may have made fewer; ``None`` where nobody says."""
    found = []
    for path, pattern, unit in (
        ("/proc/meminfo", r"MemAvailable:\s+(\d+) kB", 1024),
        ("/sys/fs/cgroup/memory.max", r"(\d+)", 1),
    ):
        try:
            said = re.search(pattern, Path(path).read_text())
        except OSError:
            continue
        if said:
            found.append(int(said[1]) * unit)
    return min(found, default=None)


def limit_memory(num_bytes: int) -> None:
    """Let this process take so many bytes beside what it has: beyond them it meets a ``MemoryError``, on Linux."""
    status = Path("/proc/self/status")
    held = re.search(r"VmData:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if held:
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = int(held[1]) * 1024 + num_bytes
        if most == resource.RLIM_INFINITY or wanted < most:
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))


def allow_open_files(count: int) -> None:
    """Let this process hold so many files open beside what it holds anyway: a map keeps its file open.

    Raises:
        ArtifactError: the system does not allow so many.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _OTHER_FILES
    if allowed == resource.RLIM_INFINITY or needed <= allowed:
        return
    if most != resource.RLIM_INFINITY and needed > most:
        raise ArtifactError(
            f"{count:,} files have to be open at once, and the system allows {most:,}: raise ulimit -Hn"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


def decoding_threads(images: int) -> int:
    """How many decode so many images. Loader processes have a core each; only the main process has any to spare."""
    if images < _MANY_IMAGES or multiprocessing.parent_process() is not None:
        return 1
    return min(available_cores(), images // (_MANY_IMAGES // 2))


def copying_threads(num_bytes: int) -> int:
    """How many copy so many bytes of images. Loader processes have a core each, as in decoding."""
    if multiprocessing.parent_process() is not None:
        return 1
    return max(1, min(available_cores(), _MOST_COPYING, num_bytes // _BYTES_WORTH_A_THREAD))


def in_threads(images: int, threads: int, work: Callable[[slice], None]) -> None:
    """Work on so many images, each of some threads on a part of them.

    They are threads of this call alone: they take 0.1 ms to begin, and none is left for a fork to lose.
    """
    if threads == 1:
        work(slice(None))
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="images") as pool:
        list(pool.map(work, [slice(images * i // threads, images * (i + 1) // threads) for i in range(threads)]))


def serve_parent(_worker: int = 0) -> None:
    """Begin a process that works for another: signals are its parent's affair, and it ends when its parent does.

    Ctrl-C reaches the whole group, but the parent decides when to end. A parent that is killed cannot tell anybody:
    without a look-out its processes would stay, and with them the lock on the run folder that they have inherited.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in SIGNALS:
        if number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
