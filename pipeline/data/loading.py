"""Processes that load batches: how long they are waited for, and what is said of one that died."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from nstudent.errors import NstudentError, TrainingError

MOST_SECONDS = 1800
"""Seconds after which a batch that processes prepare is no longer waited for: a disk that does not answer leaves them,
and whoever waits for them, without a word."""
_BATCHES_WAITING = 3
"""Batches of each process that lie in shared memory at once: two that are ready, and one that is being written."""
_BYTES_BESIDE = 1 << 20
"""Bytes of a batch beside its images: labels, masses and draws, each of which takes whole pages of memory."""
_TRAININGS_BESIDE = 4
"""Trainings that may share the memory: those side by side see what is free before the others have filled it."""
_SHARED_MEMORY = Path("/dev/shm")
_SIGNAL_SECONDS = 0.1
"""Seconds in which a signal handler of torch raises after a pipe broke off."""

T = TypeVar("T")


class Awaited(Iterator[T]):
    """Batches, and how much of the time is spent waiting for them."""

    def __init__(self, batches: Iterator[T]) -> None:
        self._batches = batches
        self._began: float | None = None
        self._waited = 0.0

    def __next__(self) -> T:
        asked = time.perf_counter()
        batch = next(self._batches)
        if self._began is None:
            # The first one is waited for while processes start.
            self._began = time.perf_counter()
        else:
            self._waited += time.perf_counter() - asked
        return batch

    @property
    def share(self) -> float:
        """Share of the time since the first batch in which the next one was waited for."""
        if self._began is None:
            return 0.0
        return self._waited / max(time.perf_counter() - self._began, 1e-9)


def workers_with_room(workers: int, batch_bytes: int, say: Callable[[str], None]) -> int:
    """Number of processes that prepare batches: none where the shared memory cannot hold what they hand over.

    Containers have 64 MB of it unless they are told otherwise, and a process that finds it full says so to nobody.

    Args:
        workers: Number that was asked for.
        batch_bytes: Bytes of the images of one batch.
        say: Is told if there are none.
    """
    needed = workers * _BATCHES_WAITING * (batch_bytes + _BYTES_BESIDE) * _TRAININGS_BESIDE
    if not workers or not _SHARED_MEMORY.is_dir():
        return workers
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if needed <= free:
        return workers
    say(
        f"  {_SHARED_MEMORY} has {free / 2**20:.0f} MB free and workers={workers} may need {needed / 2**20:.0f} MB: "
        "images are prepared in this process, which is slower; give the container more (--shm-size)"
    )
    return 0


@contextlib.contextmanager
def room_in_shared_memory() -> Iterator[None]:
    """Say in a line that the shared memory, which had room when the processes began, has been filled meanwhile.

    Raises:
        TrainingError: there is no room in it.
    """
    try:
        yield
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
        raise TrainingError(
            f"{_SHARED_MEMORY} is full, through which processes that prepare images hand them over: free it, or set "
            "workers=0; the same command goes on"
        ) from error


@contextlib.contextmanager
def loaders_explained() -> Iterator[None]:
    """Say in a line that a process which prepares images was killed, or what error it met.

    torch notices it in three ways: the pipe breaks off (in the middle of a message, too), the queue stays empty, or a
    signal handler raises wherever the main process happens to be, in a training step as well as between two of them.

    Raises:
        TrainingError: a process died.
    """
    try:
        yield
    except NstudentError as error:
        said = str(error.args[0])
        if not said.startswith("Caught "):
            raise
        # torch hands an error on as text: a traceback, and in its last line class and message.
        raise type(error)(said.strip().rpartition("\n")[2].partition(": ")[2]) from error
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and str(error).startswith("DataLoader timed out"):
            raise TrainingError(
                f"the processes that prepare images have given none for {MOST_SECONDS // 60} minutes: the disk may not "
                "answer; the same command goes on"
            ) from error
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        # The pipe is seen to break a moment before the signal comes: let its handler raise here, and not in our error.
        with contextlib.suppress(RuntimeError):
            time.sleep(_SIGNAL_SECONDS)
        why = str(error) or "it broke off in the middle of a batch"
        raise TrainingError(
            f"a process that prepares images died ({why}): probably out of memory; lower workers or batch_size"
        ) from error
