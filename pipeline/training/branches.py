"""The tree above the outputs of a level, as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from nstudent.taxonomy.outputs import SILENT, Outputs
from torch import Tensor


@dataclass(frozen=True)
class Branches:
    """Which outputs of a level lie under the same class of one of the levels above it, or of the level itself."""

    of: Tensor
    """Number of the branch of each output, int64 (outputs,)."""
    count: int
    """Number of branches."""

    def log_sums(self, log_probabilities: Tensor) -> Tensor:
        """Logarithm of the summed probability of the branch that each output lies in.

        The largest of a branch is taken out first: where a whole branch is next to impossible, its logarithm is still
        finite, and so is the gradient.

        Args:
            log_probabilities: float (b, outputs).

        Returns:
            (b, outputs); outputs of one branch have the same number.
        """
        rows = len(log_probabilities)
        with torch.no_grad():
            lowest = log_probabilities.new_full((rows, self.count), -torch.inf)
            largest = lowest.scatter_reduce(1, self.of.expand(rows, -1), log_probabilities, "amax")
        shifted = (log_probabilities - largest.index_select(1, self.of)).exp()
        sums = log_probabilities.new_zeros(rows, self.count).index_add(1, self.of, shifted)
        return (sums.log() + largest).index_select(1, self.of)


def branches(outputs: Outputs, level: int, device: torch.device) -> list[Branches]:
    """The branches that the outputs of a level lie in, one set for each level down to its own, coarse first.

    'Nothing' is a branch of its own: it stands for paths that end under any class.
    """
    found = []
    for column in _classes_above(outputs, level):
        numbers = np.unique(column, return_inverse=True)[1].reshape(-1)
        found.append(Branches(torch.from_numpy(numbers).to(device), int(numbers.max()) + 1))
    return found


def distances(outputs: Outputs, level: int) -> npt.NDArray[np.float64]:
    """How far the outputs of a level are from each other: the height of their lowest common ancestor.

    Bertinetto et al., arXiv 1912.09393, section 3: divided by the height of the tree, here of what of it lies above the
    level.

    Returns:
        (outputs, outputs), 0 to 1; 'nothing' is 1 from every class.
    """
    shared = sum(column[:, None] == column[None, :] for column in _classes_above(outputs, level))
    return np.asarray(1 - shared / (level + 1), dtype=np.float64)


def _classes_above(outputs: Outputs, level: int) -> list[npt.NDArray[np.int32]]:
    """For each level down to this one, the class of that level which each output lies under, (outputs,).

    ``SILENT`` for 'nothing', also on the level itself.
    """
    own = np.arange(outputs.sizes[level], dtype=np.int32)
    nothing = outputs.nothing(level)
    if nothing is not None:
        own[nothing] = SILENT
    found = [own]
    for below in range(level, 0, -1):
        # The last entry is that of SILENT: above 'nothing' there is none.
        parents = np.append(outputs.parents(below), np.int32(SILENT))
        found.insert(0, parents[found[0]])
    return found
