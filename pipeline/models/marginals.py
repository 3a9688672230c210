"""The levels of one distribution over all places where a label may end, for heads that give such a distribution."""

import numpy as np
import torch
from nstudent.models.precision import in_full
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import ABSENT, LabelArray, Taxonomy
from torch import Tensor, nn


class Marginals(nn.Module):
    """The levels of a distribution over all places where a label may end.

    The logit of a class is the logarithm of the summed probability of the leaves at or below it, and that of 'nothing'
    at a level of the leaves above the level. If a level has an output for every leaf, its softmax is that marginal;
    without an output for 'nothing' it is the marginal among the labels that have a class at the level.
    """

    def __init__(self, outputs: Outputs) -> None:
        super().__init__()
        self._sizes = outputs.sizes
        for level, said in enumerate(outputs.indices(ends_of(outputs.taxonomy)).T):
            speaks = np.flatnonzero(said >= 0)
            # They follow from the tree: a file of weights holds none of them.
            self.register_buffer(f"_leaves_{level}", torch.from_numpy(speaks), persistent=False)
            self.register_buffer(f"_outputs_{level}", torch.from_numpy(said[speaks].astype(np.int64)), persistent=False)

    def forward(self, leaves: Tensor) -> tuple[Tensor, ...]:
        """Logarithms of the probabilities of leaves, (batch, leaves) -> logits per level."""
        return tuple(
            _log_sums(leaves[:, self.get_buffer(f"_leaves_{level}")], self.get_buffer(f"_outputs_{level}"), size)
            for level, size in enumerate(self._sizes)
        )


def ends_of(taxonomy: Taxonomy) -> LabelArray:
    """The paths to all classes where a label may end, (leaves, levels), ``ABSENT`` below the end of a path."""
    rows = set(taxonomy.terminals)
    for level, size in enumerate(taxonomy.num_classes):
        rest = (ABSENT,) * (taxonomy.num_levels - level - 1)
        rows |= {(*taxonomy.ancestors(level, c), *rest) for c in range(size) if not taxonomy.has_children(level, c)}
    return np.array(sorted(rows), dtype=np.int32).reshape(-1, taxonomy.num_levels)


def log_softmax(logits: Tensor) -> Tensor:
    """Logarithms of probabilities, (batch, leaves), in float32 at least.

    Where a CPU computes in bfloat16 they would come in it too, to two or three digits: the logarithm of an improbable
    leaf is a large number, and what is summed up to a class would be a few per cent off.
    """
    return in_full(logits).log_softmax(dim=1)


def _log_sums(logs: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Logarithms of sums within groups of columns: (batch, columns) -> (batch, groups).

    Args:
        logs: Logarithms of what is summed.
        group: Group of each column, int64 (columns,). Every group has a column.
        num_groups: Number of groups.
    """
    # Each sum is taken relative to its largest part, so that an improbable class has a logit and a gradient too.
    rows = logs.shape[0]
    largest = logs.detach().new_full((rows, num_groups), -torch.inf)
    largest = largest.scatter_reduce(1, group.expand(rows, -1), logs.detach(), "amax")
    sums = torch.zeros_like(largest).index_add(1, group, (logs - largest[:, group]).exp())
    return sums.log() + largest
