"""What a path is worth as the answer, by the rules that decoders choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from nstudent.labels.path_tree import PathTree
from nstudent.taxonomy.outputs import Outputs
from torch import Tensor


@dataclass(frozen=True)
class ExpectedScore:
    """The expected score of a path, or a multiple of it.

    The score of a path is the share of the levels of the true path that it matches, plus ``exact`` if it is the true
    path. With 1 that is the sum of the two scores that classifiers are compared by (``evaluation.scores.COMPARED``),
    with 0 level accuracy alone. The most probable path ends too early, or errs at a coarse level, more often than the
    sum; the share of levels alone ends too late.
    """

    exact: float

    def to(self, device: torch.device) -> Self:
        """Itself: it knows no tensor."""
        return self

    def __call__(self, tree: PathTree, levels: Sequence[Tensor], masses: Tensor) -> Tensor:
        """(images, terminals); see ``Worth``."""
        if tree.ends_together:
            return tree.matches(levels).add_(masses, alpha=self.exact * len(levels))
        # What it is worth to match a level falls with the length of the true path.
        return tree.matches(tree.marginals(masses / tree.depths)).add_(masses, alpha=self.exact)


class MostProbable:
    """The probability of a path itself."""

    def to(self, device: torch.device) -> Self:
        """Itself: it knows no tensor."""
        return self

    def __call__(self, tree: PathTree, levels: Sequence[Tensor], masses: Tensor) -> Tensor:
        """(images, terminals); see ``Worth``."""
        return masses


class MostProbableDepth:
    """The probability of a path, if it has the most probable depth: where to stop is decided before what to say.

    The probability of a depth is that of all paths that end there, which the posterior's ends are fitted to
    (``path_posterior.Calibration``). Many paths that go on, each of them improbable, so outweigh one that ends.
    """

    def to(self, device: torch.device) -> Self:
        """Itself: it knows no tensor."""
        return self

    def __call__(self, tree: PathTree, levels: Sequence[Tensor], masses: Tensor) -> Tensor:
        """(images, terminals); see ``Worth``."""
        depths = torch.arange(1, len(levels) + 1, device=masses.device)
        of_depth = (tree.depths[:, None] == depths).to(masses.dtype)
        stop = depths[(masses @ of_depth).argmax(dim=1)]
        return torch.where(tree.depths == stop[:, None], masses, -1.0)


@dataclass(frozen=True)
class ConditionalRisk:
    """Minus the expected severity of the mistake that a path would be, up to a constant (CRM, arXiv 2104.00795).

    A mistake is as severe as the lowest common ancestor of what is said and what is true is high: the number of levels
    from there down to the deepest class below it (``Taxonomy.heights``). A path that ends at an inner class is a leaf
    below this class, as in the paper all answers are leaves.

    With m the probability of a class and h its height, the risk of a path n_1 ... n_d below the root n_0, that has the
    probability q, is h(n_0) - sum over i of (h(n_i-1) - h(n_i)) m(n_i) - h(n_d) q. So it is found on the way down the
    tree, without a matrix of all pairs of paths.
    """

    drops: tuple[Tensor, ...]
    """Per level, float32 (outputs,): how much lower a class is than the one above it; 0 for 'nothing'."""
    heights: Tensor
    """Height of the class where each path ends, float32 (terminals,)."""

    @classmethod
    def of(cls, outputs: Outputs) -> ConditionalRisk:
        """The rule for a model with these outputs, on the CPU."""
        heights, drops = outputs.taxonomy.heights, []
        root = max(heights[0]) + 1
        for level, (parents, own) in enumerate(zip(outputs.taxonomy.parents, heights, strict=True)):
            above = [heights[level - 1][parent] for parent in parents] if level else [root] * len(own)
            drop = torch.zeros(outputs.sizes[level])
            drop[: len(own)] = torch.tensor(above, dtype=torch.float32) - torch.tensor(own, dtype=torch.float32)
            drops.append(drop)
        tree = PathTree.of(outputs)
        ends = [row[depth - 1] for row, depth in zip(tree.terminals.tolist(), tree.depths.tolist(), strict=True)]
        last = [heights[depth - 1][end] for end, depth in zip(ends, tree.depths.tolist(), strict=True)]
        return cls(tuple(drops), torch.tensor(last, dtype=torch.float32))

    def to(self, device: torch.device) -> ConditionalRisk:
        """The same rule on a device; itself where it is there already."""
        if self.heights.device == device:
            return self
        return ConditionalRisk(tuple(drop.to(device) for drop in self.drops), self.heights.to(device))

    def __call__(self, tree: PathTree, levels: Sequence[Tensor], masses: Tensor) -> Tensor:
        """(images, terminals); see ``Worth``."""
        spared = [level * drop for level, drop in zip(levels, self.drops, strict=True)]
        return tree.scores(spared).add_(masses * self.heights)
