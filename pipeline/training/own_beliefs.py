"""A student that goes on learning: what the heap teaches it moves from the stored labels to its own beliefs.

First it learns the labels that were made before. From some point on its averaged network looks at a weakly noised view
of each image of the heap, as the mean teacher (arXiv 1703.01780) does, and as far as that is sure it takes the place of
the stored label, for the strongly noised view that the network learns from (FixMatch, Sohn et al., arXiv 2001.07685;
with a labeller's labels to begin with: KD-FixMatch, Wang et al., arXiv 2309.05826).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from nstudent.config.schema import ConsistencyConfig
from nstudent.config.training import NoiseConfig
from nstudent.distributed.ranks import sum_over
from nstudent.distributed.world import World
from nstudent.labels.belief_weights import (
    BeliefMoments,
    agreement,
    aligned,
    confidences,
    only_as_deep,
    revised,
    truncated_gaussian,
)
from nstudent.labels.path_posterior import Calibration, PathPosterior
from nstudent.models.device import Placement
from nstudent.models.heads import Logits
from nstudent.noise.steps import Prepared
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import LabelArray
from nstudent.training.class_weights import class_shares
from nstudent.training.pieces import InPieces
from nstudent.training.revision import Believe
from nstudent.training.schedules import linear_ramp
from torch import Tensor

WEAK = "weak"
"""Name of the view with little noise, which the averaged network looks at."""


def weak_noise(noise: NoiseConfig, share: float) -> NoiseConfig:
    """The noise of the weak view: a share of the moves of the student's noise, mirrored like them, and nothing else."""
    return NoiseConfig(shift=share * noise.shift, zoom=share * noise.zoom, rotate=share * noise.rotate, flip=noise.flip)


class OwnBeliefs:
    """The revision of what the heap teaches by what the averaged network believes of it.

    Per image and level, with the distribution p that the averaged network gives of the weak view:

    1. p is aligned with the shares of the labels (``aligned``);
    2. the levels become one distribution over the paths of the tree, their geometric mean sharpened by the temperature
       (``PathPosterior``), so that levels agree and an image has no mass at levels that its path does not reach;
    3. its confidence gives a weight (``truncated_gaussian``), which never rises on the way down (``only_as_deep``);
    4. times the share of the schedule, it is how far the belief takes the place of the stored label (``revised``).

    Means and sums are those of the whole batch, whichever process has its images.
    """

    def __init__(
        self, config: ConsistencyConfig, outputs: Outputs, labels: LabelArray, where: Placement, world: World
    ) -> None:
        """Begin a training.

        Args:
            config: How far, and when, the own beliefs are followed.
            outputs: Those of the network.
            labels: Labels of the labelled images, (images, levels): their shares are what the beliefs are aligned with.
            where: The device that trains.
            world: The processes that train together.
        """
        levels = len(outputs.sizes)
        self._config = config
        self._world = world
        self._sizes = outputs.sizes
        self._shares = [share.to(where.device) for share in class_shares(labels, outputs)]
        self._moments = BeliefMoments(self._shares, config.momentum)
        same = Calibration((levels * config.temperature,) * levels, (0.0,) * levels)
        self._posterior = PathPosterior(outputs, same)
        self._looks = InPieces(outputs.sizes, where)
        self._told = torch.zeros(4, device=where.device)
        """Summed over the steps of this epoch: weights, images, images with a stored label, and agreements with it."""
        self._followed = [0.0, 0.0]
        """Summed over the steps of this epoch: the share of the schedule, and 1."""

    def share_at(self, done: float) -> float:
        """Share of the own beliefs where they are sure, by the fraction of the training that is done."""
        return self._config.share * linear_ramp(done, self._config.begins, self._config.full)

    def num_believed(self, seen: Prepared, done: float) -> int:
        """Number of images of the heap in the whole batch; 0 until the own beliefs count."""
        return seen.batch.whole_images[1] if self.share_at(done) else 0

    @torch.no_grad()
    def revise(self, seen: Prepared, done: float, believe: Believe) -> Prepared:
        """The batch with what its images of the heap teach now, without the weak view; see ``Revision``.

        Raises:
            RefusedError: Not even one image fits into the memory.
        """
        share = self.share_at(done)
        self._followed = [self._followed[0] + share, self._followed[1] + 1.0]
        batch, first = seen.batch, seen.batch.num_labelled
        # Nobody looks at it after this: the gradient would make floats of it, and a recorded step keep a copy.
        seen = replace(seen, batch=replace(batch, views={n: view for n, view in batch.views.items() if n != WEAK}))
        if not share:
            return seen
        believed = self._looks(believe, batch.views[WEAK][first:], seen.images.shape[-1])
        marginals, weights = self._own(believed, batch.whole_images[1])
        stored = [level[first:] for level in batch.targets]
        mass, at_end = revised(stored, marginals, share * weights)
        counted = torch.stack([at_end.sum() / share, at_end.new_full((), len(at_end))])
        sums = torch.cat([counted, agreement(stored, marginals), *(level.sum(dim=0) for level in mass)])
        sum_over(self._world, sums)
        told, *whole = torch.split(sums, [4, *self._sizes])
        self._told = self._told + told
        targets = tuple(torch.cat([level[:first], own]) for level, own in zip(batch.targets, mass, strict=True))
        return replace(
            seen,
            targets=targets if seen.mixture is None else seen.mixture.of(targets),
            whole_mass=tuple(torch.stack([was[0], now]) for was, now in zip(seen.whole_mass, whole, strict=True)),
        )

    def _own(self, believed: Logits, images: int) -> tuple[Sequence[Tensor], Tensor]:
        """Marginals of the beliefs, (b, outputs) per level, and their weights, (b, levels); the means go on."""
        said = [level.softmax(dim=1) for level in believed]
        evidence: Sequence[Tensor] = said
        if self._config.align:
            means = self._moments.said
            evidence = [aligned(*each) for each in zip(said, self._shares, means, strict=True)]
        marginals = self._posterior.marginals(evidence)
        confidence = confidences(marginals)
        sums = self._moments.sums(said, marginals, confidence)
        sum_over(self._world, sums)
        self._moments.take(sums, images)
        return marginals, only_as_deep(truncated_gaussian(confidence, *self._moments.confidence, self._config.sigmas))

    def epoch_figures(self) -> dict[str, float]:
        """Share, mean weight and agreement of the epoch that ends; the last two only where beliefs counted."""
        share, steps = self._followed
        weights, images, labelled, agreements = self._told.tolist()
        figures = {"own_share": share / max(1.0, steps)}
        if images:
            figures |= {"own_weight": weights / images, "own_agreement": agreements / max(1.0, labelled)}
        self._followed, self._told = [0.0, 0.0], torch.zeros_like(self._told)
        return figures

    def state_dict(self) -> dict[str, Any]:
        """The running means, and the sums of this epoch, for a checkpoint."""
        return {"moments": self._moments.state_dict(), "told": self._told, "followed": self._followed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._moments.load_state_dict(state["moments"])
        self._told = state["told"].to(self._told.device)
        self._followed = list(state["followed"])
