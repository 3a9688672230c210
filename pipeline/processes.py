"""Processes beside the main one: how many there should be, and that none outlives it."""

import multiprocessing
import os
import signal
import threading

from nstudent.stopping import SIGNALS


def available_cores() -> int:
    """Cores for this process: a container may have made them fewer, and torchrun's processes share a machine's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


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
