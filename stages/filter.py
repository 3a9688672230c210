"""Drop labels that a self-ensemble does not come to agree with, level by level (SELF, arXiv 1910.01842).

A network is trained on the labels as they are; while it trains, its averaged weights predict every image, and a label
stays where the running average of these predictions agrees with it. The next iteration trains on what stayed, judges
all labels anew (a dropped one can come back), and so on while validation improves. Dropped labels still feed the
consistency loss.
"""

import math

import numpy as np
import numpy.typing as npt
from nstudent import hdf5
from nstudent.data.batches import Examples
from nstudent.data.dataset import Dataset
from nstudent.errors import TrainingError
from nstudent.labels.selection import Selection, select
from nstudent.labels.self_ensemble import RunningAverage
from nstudent.labels.store import LabelStore
from nstudent.labels.targets import GivenTargets
from nstudent.models.ensemble import Ensemble
from nstudent.stage import Context, Metrics
from nstudent.taxonomy import UNKNOWN, LabelArray
from nstudent.training.fit import Length
from nstudent.training.objective import SelfEnsembling
from nstudent.workbench import Workbench, unlabelled_share

LABELLED_KEEP = "labelled.h5"
_Keep = npt.NDArray[np.bool_]


def run(context: Context) -> Metrics:
    """Write the selection that is left, and which of the given labels are."""
    dataset = Dataset(context.inputs["data"])
    labels = LabelStore.open(context.inputs["labels"])
    before = Selection.load(context.inputs["labels"])
    given = dataset.labels[dataset.labelled]
    given_keep = np.ones(given.shape, dtype=bool)
    keep, iterations = before.keep, []
    if context.config.filter.enabled and before.keep.any():
        given_keep, keep, iterations = _self_ensemble(context, dataset, given, labels.kept_labels(before.keep))
        keep &= before.keep
        _check_share(context, before.keep, keep)
    terminal = dataset.taxonomy.terminal_of(labels.paths)
    selection = select(terminal, labels.confidence, keep, context.config.pseudolabel, context.key())
    selection.save(context.folder)
    hdf5.write(context.folder / LABELLED_KEEP, {"keep": given_keep.astype(np.uint8)}, {})
    levels = dataset.taxonomy.levels
    return {
        "kept": dict(zip(levels, keep.sum(axis=0).tolist(), strict=True)),
        "dropped": dict(zip(levels, (before.keep & ~keep).sum(axis=0).tolist(), strict=True)),
        "dropped_given": dict(zip(levels, (~given_keep).sum(axis=0).tolist(), strict=True)),
        "shown": int((selection.copies > 0).sum()),
        "copies": int(selection.copies.sum()),
        "iterations": iterations,
    }


def _self_ensemble(
    context: Context, dataset: Dataset, given: LabelArray, pseudo: LabelArray
) -> tuple[_Keep, _Keep, list[Metrics]]:
    """Iterate while validation improves; returns what stays of the given and of the pseudo-labels."""
    config = context.config.filter
    given_keep, keep = np.ones(given.shape, dtype=bool), np.ones(pseudo.shape, dtype=bool)
    best, history = -math.inf, []
    for iteration in range(config.iterations):
        score, given_agrees, agrees = _iterate(
            context,
            dataset,
            np.where(given_keep, given, UNKNOWN),
            np.where(keep, pseudo, UNKNOWN),
            given,
            pseudo,
            iteration,
        )
        history.append({"validation": score, "dropped": int((~agrees).any(axis=1).sum())})
        if score <= best:
            break
        best, keep = score, agrees
        if config.labelled:
            given_keep = given_agrees
    return given_keep, keep, history


def _iterate(
    context: Context,
    dataset: Dataset,
    given: LabelArray,
    pseudo: LabelArray,
    given_original: LabelArray,
    pseudo_original: LabelArray,
    iteration: int,
) -> tuple[float, _Keep, _Keep]:
    """Train once on what stands; returns the validation score and where the original labels are agreed with."""
    config, taxonomy = context.config.filter, dataset.taxonomy
    bench = Workbench(context.config, dataset, context.scratch, context.progress)
    outputs = taxonomy.columns(context.config.absent)
    averages = [RunningAverage(len(rows), outputs, config.average_momentum) for rows in (given, pseudo)]
    objective = SelfEnsembling(
        bench.supervised(config, unlabelled_weight=1.0),
        *averages,
        config.consistency_weight,
        config.consistency_ramp,
    )
    ids = LabelStore.open(context.inputs["labels"]).images
    heap = Examples(ids, GivenTargets(pseudo, taxonomy, context.config.absent))
    share = unlabelled_share(config.batch_size, config.unlabelled_ratio)
    parts = [(bench.labelled(given), config.batch_size), (heap, share)]
    steps = max(len(ids) / share if share else 0, len(given) / config.batch_size)
    trained = bench.train(
        f"filter {iteration}",
        config.model,
        config,
        parts,
        objective,
        Length(config.epochs, math.ceil(steps)),
        context.key("iteration", iteration),
        with_clean=True,
    )
    score = bench.validation_score(Ensemble(bench.recipe([config.model]), [trained.network], bench.placement))
    given_agrees, agrees = (
        # A level below a dropped one is dropped too: what is left is a path.
        np.logical_and.accumulate(average.agrees(original).numpy(), axis=1)
        for average, original in zip(averages, (given_original, pseudo_original), strict=True)
    )
    return score, given_agrees, agrees


def _check_share(context: Context, before: _Keep, after: _Keep) -> None:
    limit = context.config.filter.max_dropped_share
    images = before.any(axis=1)
    share = float((images & ~after.any(axis=1)).sum() / images.sum())
    if share > limit:
        raise TrainingError(
            f"the filter would drop {share:.0%} of the pseudo-labelled images, more than filter.max_dropped_share "
            f"({limit:.0%}): "
            "train the filter longer (filter.epochs), or set filter.enabled=false"
        )
