"""Two processes that believe to have a GPU each, and gloo in the place of NCCL: a script for test_several_gpus.py.

The leader prints of each process its number, the GPU it has chosen, and the limits of its two transports in minutes.
"""

import json

import torch
import torch.distributed as dist
from nstudent.distributed import ranks

connect = dist.init_process_group
chosen: list[int] = []


def connect_by_gloo(backend: str, **settings: object) -> None:
    assert backend == "cpu:gloo,cuda:nccl"
    assert chosen, "NCCL would be told nothing of a GPU yet"
    dist.Backend.register_backend("second", dist.ProcessGroupGloo, devices=["cuda"])
    connect("cpu:gloo,cuda:second", **settings)


def main() -> None:
    torch.cuda.is_available, torch.cuda.device_count, torch.cuda.set_device = lambda: True, lambda: 2, chosen.append
    dist.init_process_group = connect_by_gloo
    with ranks.connected("auto") as world:
        backends = [dist.group.WORLD._get_backend(torch.device(kind)) for kind in ("cpu", "cuda")]
        minutes = [backend.options._timeout.total_seconds() / 60 for backend in backends]
        mine = torch.tensor([[world.rank, *chosen, *minutes]])
        found = ranks.gathered_rows(world, mine)
        if world.leads:
            print(json.dumps(found.tolist()))


if __name__ == "__main__":
    main()
