"""Drop labels that a self-ensemble does not come to agree with, level by level (SELF, arXiv 1910.01842).

A network is trained on the labels as they are; while it trains, its averaged weights predict every image, and a label
stays where the running average of these predictions agrees with it. The next iteration trains on what stayed, judges
all labels anew (a dropped one can come back), and so on while validation improves. Dropped labels still feed the
consistency loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nstudent.data.batches import Examples
from nstudent.data.dataset import Dataset, Ids
from nstudent.labels.heap_labels import HeapLabels
from nstudent.labels.selection import save_given_keep, select
from nstudent.labels.self_ensemble import RunningAverage, check_memory
from nstudent.labels.targets import GivenTargets
from nstudent.models.cost import Spent, total
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import FilterIteration, FilterMetrics, LabelMetrics
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import UNKNOWN, LabelArray
from nstudent.trainer import Trainer, heap_batch_size
from nstudent.training.build import Lesson
from nstudent.training.loop import Length
from nstudent.training.objective import CLEAN, SelfEnsembling


@dataclass(frozen=True)
class _Labels:
    """The labels that are doubted: those that people gave and those of the heap, each (rows, levels)."""

    given: LabelArray
    pseudo: LabelArray


@dataclass(frozen=True)
class _Keep:
    """Which labels stand: bool (rows, levels), for both parts."""

    given: npt.NDArray[np.bool_]
    pseudo: npt.NDArray[np.bool_]


def run(context: Context) -> FilterMetrics | None:
    """Write the selection that is left, and which of the given labels are."""
    dataset = Dataset(context.inputs["data"], context.config.data)
    before = HeapLabels.open(context.inputs["labels"])
    labels = _Labels(dataset.labels[dataset.labelled], before.kept_labels())
    keep = _Keep(np.ones(labels.given.shape, dtype=bool), before.keep)
    iterations: tuple[FilterIteration, ...] = ()
    spent = Spent()
    if context.config.filter.enabled and before.keep.any():
        check_memory(len(before) + len(labels.given), Outputs(dataset.taxonomy, context.config.absent))
        keep, iterations, spent = _self_ensemble(context, dataset, before.images, labels)
        keep = _Keep(keep.given, keep.pseudo & before.keep)
    if not context.world.leads:
        return None
    ended = _nothing_to_learn(context, before.keep, keep.pseudo)
    if ended:
        context.progress.say(f"  {ended}")
        keep = _Keep(keep.given, np.zeros_like(keep.pseudo))
    terminal = before.labels.terminals(dataset.taxonomy)
    sure = before.labels.kept_confidence(keep.pseudo)
    selection = select(terminal, sure, keep.pseudo, dataset.taxonomy, context.config.pseudolabel, context.key())
    selection.save(context.folder)
    save_given_keep(context.folder, keep.given)
    levels = dataset.taxonomy.levels
    num_images = [np.bincount(terminal[shown], minlength=1) for shown in (before.copies > 0, selection.copies > 0)]
    gone = [i for i, was in enumerate(num_images[0]) if was and (i >= len(num_images[1]) or not num_images[1][i])]
    return FilterMetrics(
        ended=ended,
        classes_gone=tuple("/".join(dataset.taxonomy.names(dataset.taxonomy.terminals[i]).values()) for i in gone),
        kept=dict(zip(levels, keep.pseudo.sum(axis=0).tolist(), strict=True)),
        dropped=dict(zip(levels, (before.keep & ~keep.pseudo).sum(axis=0).tolist(), strict=True)),
        dropped_given=dict(zip(levels, (~keep.given).sum(axis=0).tolist(), strict=True)),
        shown=int((selection.copies > 0).sum()),
        copies=int(selection.copies.sum()),
        iterations=iterations,
        image_passes=spent.image_passes,
        training_gmacs=spent.training_gmacs,
    )


def _self_ensemble(
    context: Context, dataset: Dataset, heap: Ids, labels: _Labels
) -> tuple[_Keep, tuple[FilterIteration, ...], Spent]:
    """Iterate while validation improves; returns what stands after the best iteration, all of them, and their cost."""
    config = context.config.filter
    trainer = Trainer(context, dataset)
    keep = _Keep(np.ones(labels.given.shape, dtype=bool), np.ones(labels.pseudo.shape, dtype=bool))
    best, iterations, costs = -math.inf, [], []
    for iteration in range(config.iterations):
        score, agreed, spent = _iterate(context, trainer, heap, labels, keep, iteration)
        dropped = int((~agreed.pseudo).any(axis=1).sum())
        iterations.append(FilterIteration(score, dropped, spent.image_passes, spent.training_gmacs))
        costs.append(spent)
        if score <= best:
            break
        best = score
        keep = _Keep(agreed.given if config.labelled else keep.given, agreed.pseudo)
    return keep, tuple(iterations), total(costs)


def _iterate(
    context: Context, trainer: Trainer, heap: Ids, labels: _Labels, keep: _Keep, iteration: int
) -> tuple[float, _Keep, Spent]:
    """Train once on what stands; returns validation score, where the original labels are agreed with, and cost."""
    config = context.config.filter
    given = np.where(keep.given, labels.given, UNKNOWN).astype(np.int32)
    pseudo = np.where(keep.pseudo, labels.pseudo, UNKNOWN).astype(np.int32)
    of_given, of_pseudo = (trainer.running_average(len(rows), config.average_momentum) for rows in (given, pseudo))
    supervised = trainer.supervised(config, unlabelled_weight=1.0)
    strength = (config.consistency_weight, config.consistency_ramp, 0.0)
    objective = SelfEnsembling(supervised, of_given, of_pseudo, *strength, gather=trainer.gather)
    beside = heap_batch_size(config.batch_size, config.unlabelled_ratio)
    parts = [
        (trainer.labelled(given), config.batch_size),
        (Examples(heap, GivenTargets(pseudo, trainer.outputs)), beside),
    ]
    steps = max(len(heap) / beside if beside else 0, len(given) / config.batch_size)
    lesson = Lesson(parts, objective, Length(config.epochs, math.ceil(steps)), views={CLEAN: None})
    key = context.key("iteration", iteration)
    trained = trainer.train(f"filter {iteration}", config.model, config, lesson, key)
    score = trainer.validation_score(trainer.ensemble([config.model], [trained.network]))
    agreed = _Keep(_path_agreement(of_given, labels.given), _path_agreement(of_pseudo, labels.pseudo))
    return score, agreed, trained.spent


def _path_agreement(average: RunningAverage, labels: LabelArray) -> npt.NDArray[np.bool_]:
    """Where the average agrees, down to the first level where it does not: what is left is a path."""
    return np.logical_and.accumulate(average.agrees(labels).numpy(), axis=1)


def _nothing_to_learn(context: Context, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> str:
    """Why no student can be trained on what is left; empty where one can."""
    images = before.any(axis=1)
    if not images.any():
        made = LabelMetrics.of(context.inputs["labels"].manifest)
        return (
            f"no pseudo-label was kept: of {made.labelled_images} images the surest has confidence "
            f"{made.highest_confidence:.2f} and pseudolabel.threshold is {context.config.pseudolabel.threshold}: "
            "lower it, or train the teacher longer"
        )
    share = float((images & ~after.any(axis=1)).sum() / images.sum())
    limit = context.config.filter.max_dropped_share
    if share > limit:
        return (
            f"the filter would drop {share:.0%} of the pseudo-labelled images, more than filter.max_dropped_share "
            f"({limit:.0%}): train the filter longer (filter.epochs), or set filter.enabled=false"
        )
    return "" if after.any() else "the filter drops every pseudo-label: set filter.enabled=false"
