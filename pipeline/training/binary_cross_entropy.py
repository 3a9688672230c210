"""One yes or no for every class."""

from __future__ import annotations

from collections.abc import Sequence

from nstudent.models.heads import Logits
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
        return [_summed(said, taught, taught.sum(dim=1, keepdim=True) - taught) for said, taught in rows]


def _summed(said: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """(b,), of logits and what speaks for and against each class, (b, outputs) each."""
    return -(yes * logsigmoid(said) + no * logsigmoid(-said)).sum(dim=1)
