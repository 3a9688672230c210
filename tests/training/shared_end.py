"""Two processes that are stopped, or end, while a thread of theirs is late to let go of its last tensor.

In the name of the one way or the other (``stopped``, ``ended``) torchrun starts this script; no process may be aborted.
"""

import sys
import time
import weakref

import torch
import torch.distributed as dist
from nstudent.distributed.ranks import connected, shared
from nstudent.distributed.world import World
from nstudent.errors import StoppedError
from torch import nn

_LATE_SECONDS = 1.0


def work(world: World, way: str) -> None:
    network = shared(nn.Linear(8, 8), world)
    network(torch.ones(2, 8)).sum().backward()
    last = torch.ones(1)
    # It is run by the thread that lets go of the tensor, and needs the interpreter again at its end.
    weakref.finalize(last, time.sleep, _LATE_SECONDS).atexit = False
    pending = dist.all_reduce(last, async_op=True)
    del last, pending
    world.any(False)
    if way == "stopped":
        raise StoppedError("stopped by nobody")


try:
    with connected("cpu") as several:
        work(several, sys.argv[1])
except StoppedError as error:
    # The command line ends with the error at hand.
    raise SystemExit(0) from error
