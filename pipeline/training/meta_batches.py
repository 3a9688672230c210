"""The batches of two networks that teach each other, made of one batch with two views of the heap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from nstudent.distributed.ranks import sum_over
from nstudent.distributed.world import World
from nstudent.noise.steps import Mass, Prepared
from nstudent.training.own_beliefs import WEAK
from torch import Tensor


def for_student(prepared: Prepared, hard: Sequence[Tensor], world: World) -> Prepared:
    """The batch of the student: the strong view of the heap and no labelled image.

    Args:
        prepared: The whole batch.
        hard: Hard labels of its heap, (heap images, outputs) per level.
        world: The processes that share the batch.
    """
    batch, first = prepared.batch, prepared.batch.num_labelled
    targets = tuple(level[first:] for level in _mixed(prepared, hard))
    summed = torch.cat([level.sum(dim=0) for level in targets])
    sum_over(world, summed)
    whole = torch.split(summed, [level.shape[1] for level in targets])
    own = replace(
        batch,
        images=batch.images[first:],
        targets=targets,
        num_labelled=0,
        rows=batch.rows[first:],
        whole_images=(0, batch.whole_images[1]),
        views={},
    )
    return replace(
        prepared,
        batch=own,
        images=prepared.images[first:],
        targets=targets,
        whole_mass=tuple(torch.stack([torch.zeros_like(level), level]) for level in whole),
        mixture=None,
    )


def for_teacher(prepared: Prepared, weak: Tensor, consistent: Sequence[Tensor], signed: Sequence[Tensor]) -> Prepared:
    """The batch of the teacher: labelled images, the strong view of the heap, and after it the weak one.

    Args:
        prepared: The whole batch.
        weak: The weak view of the heap, float32 (heap images, 3, side, side).
        consistent: What the strong view teaches, (heap images, outputs) per level; mixed here as the images are.
        signed: What the weak view teaches, likewise; it may be negative.
    """
    batch, first = prepared.batch, prepared.batch.num_labelled
    rows = zip(prepared.targets, _mixed(prepared, consistent), signed, strict=True)
    targets = tuple(torch.cat([given[:first], strong[first:], own]) for given, strong, own in rows)
    own = replace(
        batch,
        images=torch.cat([batch.images, batch.views[WEAK][first:]]),
        targets=targets,
        rows=torch.cat([batch.rows, batch.rows[first:]]),
        whole_images=(batch.whole_images[0], 2 * batch.whole_images[1]),
        views={},
    )
    return replace(prepared, batch=own, images=torch.cat([prepared.images, weak]), targets=targets, mixture=None)


def _mixed(prepared: Prepared, of_heap: Sequence[Tensor]) -> Mass:
    """What a whole batch teaches whose heap teaches ``of_heap``, mixed as its images are."""
    first = prepared.batch.num_labelled
    plain = tuple(torch.cat([given[:first], own]) for given, own in zip(prepared.batch.targets, of_heap, strict=True))
    return plain if prepared.mixture is None else prepared.mixture.of(plain)
