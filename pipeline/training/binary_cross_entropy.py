"""One yes or no for every class, and what the tree says of these answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nstudent.models.heads import Logits
from nstudent.models.links import MaxConstraint
from nstudent.taxonomy.outputs import Outputs
from nstudent.training.cross_entropy import ClassWeighted
from torch import Tensor
from torch.nn.functional import logsigmoid


class BinaryCrossEntropy(ClassWeighted):
    """Sum over the classes of a level of the binary cross-entropies: is the image of this class?

    -sum_c [ m_c log s(z_c) + (1 - m_c) log(1 - s(z_c)) ], where s is the sigmoid and m the mass: over all levels
    together it is the loss of a multi-label classifier of the nodes of the tree. A level at which an image has no mass
    is left out: that nobody has named a class does not mean that the answer is no.

    The trained network is read by the softmax of its logits, as with every loss. If each class of a level were present
    or not by itself, with the probabilities s(z_c), then that softmax is the probability of each given that exactly one
    of them is: it is proportional to s / (1 - s) = exp(z).
    """

    def __call__(self, logits: Logits, mass: Sequence[Tensor]) -> Sequence[Tensor]:
        """What the image counts * its binary cross-entropies against the smoothed mass, per level, float32 (b,)."""
        rows = zip(logits, self.taught(mass), strict=True)
        return [_summed(said, said, taught, taught.sum(dim=1, keepdim=True) - taught) for said, taught in rows]


class MaxConstrained(ClassWeighted):
    """Binary cross-entropies of probabilities that obey the tree: C-HMCNN (arXiv 2010.10151, section 3).

    -sum_c [ m_c log max over b of the label below c of s(z_b) + (1 - m_c) log(1 - max over all b below c of s(z_b)) ],
    where a class is below itself. The label speaks for a class by itself and the classes of the label below it, so that
    a wrong class below is not made more likely because the one above it is right. Of a soft label all classes with mass
    are classes of the label. The network is read by the link ``max_constrained``.
    """

    def __init__(self, outputs: Outputs, class_weights: Sequence[Tensor], smoothing: float = 0.0) -> None:
        super().__init__(class_weights, smoothing)
        self._constraint = MaxConstraint(outputs, self.class_weights[0].device)

    def __call__(self, logits: Logits, mass: Sequence[Tensor]) -> Sequence[Tensor]:
        """What the image counts * its binary cross-entropies against the smoothed mass, per level, float32 (b,)."""
        labelled = [said.masked_fill(level <= 0, -torch.inf) for said, level in zip(logits, mass, strict=True)]
        rows = zip(self._constraint(logits), self._constraint(labelled), self.taught(mass), mass, strict=True)
        return [
            # Smoothing also speaks for classes that are none of the label's.
            _summed(torch.where(level > 0, of_label, said), said, taught, taught.sum(dim=1, keepdim=True) - taught)
            for said, of_label, taught, level in rows
        ]


def _summed(said_yes: Tensor, said_no: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """(b,), of logits and what speaks for and against each class, (b, outputs) each."""
    return -(yes * logsigmoid(said_yes) + no * logsigmoid(-said_no)).sum(dim=1)
