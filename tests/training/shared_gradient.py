"""Twice the gradient of the same weights and images in several processes: a script for tests/training/test_ranks.py.

Prints how many numbers of it there are, and how many differ between the first and the second time, as JSON.
"""

import json

import torch
from nstudent.config.schema import ModelConfig
from nstudent.distributed.ranks import connected, shared
from nstudent.models.network import build_network
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy
from torch import Tensor

TREE = Taxonomy.from_tree({"a": ["d", "e"], "b": ["f"], "c": ["g"]}, ("coarse", "fine"))


def main() -> None:
    torch.set_num_threads(1)
    with connected("cpu") as world:
        network = build_network(ModelConfig(backbones=("test_convnext",)), Outputs(TREE), ("key",))
        trained = shared(network, world)
        images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(world.rank))

        def gradient() -> Tensor:
            for weight in network.parameters():
                weight.grad = None
            torch.stack([level.square().sum() for level in trained(images)]).sum().backward()
            return torch.cat([weight.grad.flatten() for weight in network.parameters()])

        first, second = gradient(), gradient()
        if world.leads:
            print(json.dumps({"numbers": first.numel(), "different": int((first != second).sum())}))


if __name__ == "__main__":
    main()
