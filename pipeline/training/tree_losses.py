"""Losses that know the tree: a mistake among near classes costs less than one among distant ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from nstudent.models.heads import Logits
from nstudent.taxonomy.outputs import Outputs
from nstudent.training.branches import Branches, branches, distances
from nstudent.training.cross_entropy import ClassWeighted, CrossEntropy
from torch import Tensor


class HierarchicalCrossEntropy(ClassWeighted):
    """Hierarchical cross-entropy (Bertinetto et al., arXiv 1912.09393, section 3).

    -sum over the edges of the path to the class of weight * log p(class below | class above), where the probability of
    a class above is the sum of those below it. Each level is the last one of its own tree, which is what of the whole
    one lies above it; on the first level it is the cross-entropy.

    The paper weighs an edge by exp(-alpha * height of its lower end), so that the edge to the class itself has the
    weight 1 (``bottom``). In the code that its numbers were made with it is exp(-alpha * depth), so that the edge from
    the root has it (``top``).
    """

    def __init__(
        self,
        outputs: Outputs,
        class_weights: Sequence[Tensor],
        smoothing: float = 0.0,
        alpha: float = 0.1,
        first: Literal["top", "bottom"] = "top",
    ) -> None:
        super().__init__(class_weights, smoothing)
        device = self.class_weights[0].device
        levels = range(len(outputs.sizes))
        self._branches = [branches(outputs, level, device) for level in levels]
        self._edges = [_edge_weights(outputs, level, alpha, first).to(self.class_weights[0]) for level in levels]

    def __call__(self, logits: Logits, mass: Sequence[Tensor]) -> Sequence[Tensor]:
        """What the image counts * its loss against the smoothed mass, per level, float32 (b,)."""
        rows = zip(logits, self.taught(mass), self._branches, self._edges, strict=True)
        return [-(taught * _weighed(said, above, edges)).sum(dim=1) for said, taught, above, edges in rows]


def _weighed(said: Tensor, above: Sequence[Branches], edges: Tensor) -> Tensor:
    """Weighed sum of log p(class below | class above) over the path to each output, (b, outputs).

    Args:
        said: Logits, (b, outputs).
        above: Branches at each depth, coarse first.
        edges: Weight of the edge at each depth, (depths, outputs).
    """
    log_p = said.log_softmax(dim=1)
    of_parent, total = torch.zeros_like(log_p), torch.zeros_like(log_p)
    for depth, grouped in enumerate(above):
        # The last set of branches is that of the outputs themselves.
        own = log_p if depth == len(above) - 1 else grouped.log_sums(log_p)
        total = total + edges[depth] * (own - of_parent)
        of_parent = own
    return total


def _edge_weights(outputs: Outputs, level: int, alpha: float, first: str) -> Tensor:
    """Weight of the edge at each depth on the path to each output of a level, float64 (level + 1, outputs)."""
    depths = torch.arange(level + 1, dtype=torch.float64)
    steps = depths if first == "top" else level - depths
    weights = torch.exp(-alpha * steps)[:, None].repeat(1, outputs.sizes[level])
    nothing = outputs.nothing(level)
    if nothing is not None:
        # A leaf right under the root: its one edge is the first one and the last one.
        weights[0, nothing] = 1.0
    return weights


class SoftLabels(CrossEntropy):
    """Soft labels (Bertinetto et al., arXiv 1912.09393, section 3).

    Cross-entropy against a distribution in which a class B has the share exp(-beta * d(A, B)) / sum over C of
    exp(-beta * d(A, C)), where A is the label and d the height of the lowest common ancestor as a share of the height
    of the tree. Each level is the last one of its own tree. Mass on several classes is the mixture of their
    distributions.
    """

    def __init__(
        self, outputs: Outputs, class_weights: Sequence[Tensor], smoothing: float = 0.0, beta: float = 10.0
    ) -> None:
        super().__init__(class_weights, smoothing)
        self.shares = [
            torch.from_numpy(_softmax(-beta * distances(outputs, level))).to(weights)
            for level, weights in enumerate(self.class_weights)
        ]
        """What is taught of each class (column) where the label is a class (row), per level (outputs, outputs)."""

    def taught(self, mass: Sequence[Tensor]) -> Sequence[Tensor]:
        """The smoothed mass, softened along the tree, (b, outputs) per level."""
        return [level @ shares for level, shares in zip(super().taught(mass), self.shares, strict=True)]


def _softmax(scores: np.ndarray) -> np.ndarray:
    shares = np.exp(scores)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


class TreePathKL(ClassWeighted):
    """Cross-entropy at each level, and a divergence from the path of the label (TP-KL, arXiv 2512.21529, section 3).

    The logits of all levels go through one softmax together, q, and the path of the label is a distribution over the
    same outputs: t, with 1 / L on the class of each of its L levels. The divergence is sum t log(t / q). Levels at
    which an image has no mass are no part of either. The softmax of one level is q given that level, so that the
    network is used as it is with any other loss.
    """

    def __init__(self, class_weights: Sequence[Tensor], smoothing: float = 0.0, strength: float = 1.0) -> None:
        """``strength``: weight of the divergence."""
        super().__init__(class_weights, smoothing)
        self._cross_entropy = CrossEntropy(class_weights, smoothing)
        self._strength = strength

    def __call__(self, logits: Logits, mass: Sequence[Tensor]) -> Sequence[Tensor]:
        """Cross-entropy + strength * what the image counts * its divergence, per level, float32 (b,)."""
        levels = self._cross_entropy(logits, mass)
        counts = self.weight(mass)
        divergence = self._divergence(logits, mass, torch.stack(list(counts), dim=1) > 0)
        return [level + self._strength * count * divergence for level, count in zip(levels, counts, strict=True)]

    def _divergence(self, logits: Logits, mass: Sequence[Tensor], known: Tensor) -> Tensor:
        """Divergence of each image, (b,), of which the levels that are ``known``, (b, levels), are taught."""
        # An image that teaches nothing has a divergence from nothing, which is finite, and counts nothing.
        known = known | ~known.any(dim=1, keepdim=True)
        normalisers = torch.stack([level.logsumexp(dim=1) for level in logits], dim=1)
        together = normalisers.masked_fill(~known, -torch.inf).logsumexp(dim=1, keepdim=True)
        total = torch.zeros_like(together[:, 0])
        for said, level, is_known in zip(logits, self.taught(mass), known.T, strict=True):
            of_level = level / level.sum(dim=1, keepdim=True).clamp_min(torch.finfo(level.dtype).tiny)
            target = of_level * (is_known.to(level.dtype) / known.sum(dim=1))[:, None]
            total = total + (torch.xlogy(target, target) - target * (said - together)).sum(dim=1)
        return total
