"""Several processes with torch.distributed: what they tell each other, and how they share a batch.

On the CPU they talk by gloo, on GPUs by NCCL, and about plans and decisions by gloo in either case.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# Before there is a group: functions of this module keep the one that is there when they are defined, as a default, and
# torch imports it with its first `DistributedDataParallel`. The group then never ends, nor do its threads.
import torch.distributed.nn.functional
from nstudent.distributed.world import World
from nstudent.errors import ConfigError, StoppedError, TrainingError, summary
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

_MEETING = timedelta(minutes=2)
"""For connecting. One whose address leads nowhere is waited for five times as long by gloo, and for days with the next
number."""
_TIMEOUT = timedelta(days=7)
"""Limit of one operation over gloo, and of starting. The others wait while the leader packs the data. A process that is
gone is noticed by its connection, not by time."""
_STEP_TIMEOUT = timedelta(minutes=30)
"""Limit of one operation over NCCL. NCCL is used within training steps alone, where nobody waits long, and inside its
kernels a machine that goes dark is not noticed by its connection."""


class Ranks:
    """The processes of a process group."""

    def __init__(self) -> None:
        self.rank: int = dist.get_rank()
        self.size: int = dist.get_world_size()

    @property
    def leads(self) -> bool:
        """Rank 0 leads."""
        return self.rank == 0

    def agree(self, value: Any = None) -> Any:
        """The leader's value, as JSON: no pickle crosses the wire."""
        content = torch.tensor(list(json.dumps(value).encode()) if self.leads else [], dtype=torch.uint8)
        length = torch.tensor([len(content)])
        dist.broadcast(length, 0)
        if not self.leads:
            content = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(content, 0)
        return json.loads(content.numpy().tobytes())

    def any(self, said: bool) -> bool:
        """Whether it is so in any process."""
        flag = torch.tensor([said], dtype=torch.uint8)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)


@contextmanager
def connected(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun has started, and part from them in the end.

    A thread of gloo lets go of the last tensors a moment after the work on them is done, and needs the interpreter for
    it: if that has begun to shut down, the process is aborted. A group that nothing refers to any more waits for its
    threads where it is destroyed. So it is at the end of a run, and where all processes have agreed to stop. After an
    error it is not: a thread may wait there for a process that will never answer.

    Args:
        device: The configured device: auto, cpu, cuda or mps. If it means GPUs, each process of a machine takes the one
            with its local rank; otherwise CUDA is not touched.

    Raises:
        ConfigError: A machine has fewer GPUs than processes.
        TrainingError: Another process has ended, or cannot be reached.
    """
    try:
        _connect(device)
        yield Ranks()
        # Nobody leaves while another may still wait for something of it.
        dist.barrier()
        gc.collect()
    except StoppedError as error:
        # The frames that it has left hold networks, which refer to the group.
        _clear_frames(error)
        gc.collect()
        raise
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        said = summary(error)
        raise TrainingError(
            f"another process of this run has ended ({said}): its own error says why; the same command goes on"
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _clear_frames(error: BaseException | None) -> None:
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _connect(device: str) -> None:
    gpus = _wants_gpus(device)
    store, rank, size = next(rendezvous("env://", timeout=_TIMEOUT))
    # torchrun's own store outlives a restart, and in it the addresses of processes that are gone (pytorch #135712).
    # On several machines the attempts are not counted alike: there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 is needed.
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"attempt-{attempt}", store)  # type: ignore[attr-defined]
    # One that starts late is waited for; one that is there and cannot be reached is not.
    _meet(store, rank, size, _lacking_gpus() if gpus else "")
    backend = "gloo"
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_MEETING)
    except RuntimeError as error:
        said = summary(error)
        raise TrainingError(
            f"process {rank} of {size} on {platform.node()} does not reach the others ({said}): if its host name leads "
            "to 127.0.0.1 or into another network, set GLOO_SOCKET_IFNAME, and NCCL_SOCKET_IFNAME, to its interface"
        ) from error
    _set_timeout("cpu", _TIMEOUT)
    if gpus:
        _set_timeout("cuda", _STEP_TIMEOUT)
        # NCCL connects at the first step, and the processes wait in the store for each other then.
        store.set_timeout(_STEP_TIMEOUT)


def _wants_gpus(device: str) -> bool:
    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


def _lacking_gpus() -> str:
    """Why the processes of this machine cannot have a GPU each; empty if they can."""
    processes, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if processes <= gpus:
        return ""
    if gpus == 0:
        return f"{processes} processes and no GPU on {platform.node()}: set device=cpu"
    there = "1 GPU" if gpus == 1 else f"{gpus} GPUs"
    return (
        f"{processes} processes and {there} on {platform.node()}: start {gpus} (--nproc-per-node {gpus}), "
        "or set device=cpu"
    )


def _meet(store: dist.Store, rank: int, size: int, lacking: str) -> None:  # type: ignore[name-defined]
    """Wait until every process is there; a machine that lacks GPUs tells the others why none of them can begin."""
    store.set(f"started-{rank}", lacking)
    if lacking:
        raise ConfigError(lacking)
    started = [f"started-{other}" for other in range(size)]
    store.wait(started, _TIMEOUT)
    refused = next((said for name in started if (said := store.get(name).decode())), "")
    if refused:
        raise ConfigError(refused)


def _set_timeout(device: str, timeout: timedelta) -> None:
    """Limit how long one operation on tensors of a kind of device is waited for."""
    group = dist.group.WORLD
    assert group is not None
    # Not `dist.set_timeout`, which sets the same limit for all kinds.
    backend = group._get_backend(torch.device(device))
    # With TORCH_DISTRIBUTED_DEBUG=DETAIL there is a wrapper around it, which in older versions has no limit to set.
    backend = getattr(backend, "wrapped_pg", backend)
    # Older versions of torch have it under another name.
    change = getattr(backend, "set_timeout", None) or backend._set_default_timeout
    change(timeout)


def shared(network: nn.Module, world: World) -> nn.Module:
    """The network such that its gradient is the mean over the processes, and its batch statistics are the leader's."""
    if world.size == 1:
        return network
    # Not for unused ones: without it the buckets are sorted anew after the first step of a process. Three processes or
    # more add up in an order that depends on the place in a bucket, and those that are resumed have a first step again.
    together = DistributedDataParallel(network, find_unused_parameters=True)
    # Not as an argument, whose name differs between versions of torch.
    together.broadcast_buffers = False
    together.register_forward_hook(_take_statistics)
    return together


def _take_statistics(together: nn.Module, _: Any, logits: Any) -> None:
    """After a forward pass, give each process the batch statistics of the leader.

    torch does it before the next one. Until then an average of the weights has taken over other statistics in each
    process, and those that are resumed, from the leader's checkpoint, would not go on where they were.
    """
    # Of the data: a backward pass has noted the statistics, and reads what the batch had instead.
    statistics = [buffer.data for buffer in together.buffers() if buffer.is_floating_point()]
    if statistics:
        joined = torch.cat([each.flatten() for each in statistics])
        dist.broadcast(joined, 0)
        parts = torch.split(joined, [each.numel() for each in statistics])
        torch._foreach_copy_(statistics, [part.view_as(each) for part, each in zip(parts, statistics, strict=True)])


def sum_over(world: World, tensor: Tensor) -> None:
    """Add up a tensor, of the same shape in each process, over the processes, in place."""
    if world.size > 1:
        dist.all_reduce(tensor)


def gathered_rows(world: World, tensor: Tensor) -> Tensor:
    """The rows, (rows, ...), of every process end to end, by rank; each process may have another number of them."""
    if world.size == 1:
        return tensor
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(world.size)]
    dist.all_gather(counts, torch.tensor([len(tensor)]))
    padded = tensor.new_zeros((int(max(counts)), *tensor.shape[1:]))
    padded[: len(tensor)] = tensor
    parts = [torch.empty_like(padded) for _ in range(world.size)]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])
