"""The calibration of a classifier: first of each member, then of their pool, on images they were not trained on.

Without cross-fitting these are the validation images. Cross-fitted members have more: each was trained without a fold
of its own of the labelled images. If the source gives the validation images they may come from elsewhere than labels
and heap, and the calibration is fitted to the folds alone.

The pool has learnt from every labelled image, so that on these only single members can be asked. A pool is more
doubtful than its members and more often right: fitted to what single members say it would be too doubtful
(docs/METHOD.md). The distributions of single members are therefore softened until they are as doubtful as those of the
pool; how much that takes is measured on validation, where members and pool are asked about the same images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from nstudent.data.dataset import Dataset
from nstudent.evaluation.calibration import fit_calibration, fit_temperatures, images_to_fit
from nstudent.evaluation.out_of_fold import OutOfFold
from nstudent.models.ensemble import Ensemble, Probabilities
from nstudent.models.inference import Walk, batches, predict
from nstudent.models.pooling import tempered
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import LabelArray

_Votes = tuple[Probabilities, LabelArray]
"""What is said of some images, distributions per level (images, outputs), and their labels, (images, levels)."""


def calibrated(
    ensemble: Ensemble,
    dataset: Dataset,
    batch_size: int | None,
    out_of_fold: OutOfFold | None = None,
    walk: Walk = batches,
) -> Ensemble:
    """The same ensemble with temperatures for its members and a calibration for their pool.

    Args:
        ensemble: The members, and how they are pooled.
        dataset: The images and their labels.
        batch_size: Largest number of images labelled at once; ``None``: by their size and the device.
        out_of_fold: What the members say of their own folds, if they were cross-fitted.
        walk: How the validation images are walked through.
    """
    outputs, members = ensemble.recipe.outputs, range(len(ensemble.members))
    ids = images_to_fit(dataset.validation, outputs)
    labels = dataset.labels[ids]
    validation = [
        (predict(ensemble.alone(member), dataset.pixels, ids, batch_size, walk=walk), labels) for member in members
    ]
    if out_of_fold is not None:
        return _cross_calibrated(ensemble, validation, _own_folds(out_of_fold, dataset, outputs), dataset)
    sharpened = ensemble.with_member_temperatures([fit_temperatures(*votes, outputs) for votes in validation])
    return sharpened.calibrated(fit_calibration(*_pooled(sharpened, validation), outputs))


def _cross_calibrated(
    ensemble: Ensemble, validation: Sequence[_Votes], folds: Sequence[_Votes], dataset: Dataset
) -> Ensemble:
    """The same for cross-fitted members.

    Args:
        ensemble: The members.
        validation: What each member says of the validation images.
        folds: What each member says of its own fold.
        dataset: Says whether the validation images were drawn.
    """
    outputs, drawn = ensemble.recipe.outputs, dataset.validation_is_drawn()
    unseen = [_joined(votes) for votes in zip(folds, validation, strict=True)] if drawn else folds
    sharpened = ensemble.with_member_temperatures([fit_temperatures(*votes, outputs) for votes in unseen])
    pool = _pooled(sharpened, validation)
    softening = _softening(_joined(_tempered(sharpened, validation)), pool, outputs)
    levels, labels = _joined(_tempered(sharpened, folds))
    softened = _at(levels, (softening,) * len(levels)), labels
    return sharpened.calibrated(fit_calibration(*(_joined([pool, softened]) if drawn else softened), outputs))


def _softening(alone: _Votes, pool: _Votes, outputs: Outputs) -> float:
    """The temperature, at least 1, that makes single members as doubtful as their pool for how often each is right.

    With weights that add up to w, of the pool and of single members, it is the ratio of both w: raw distributions at
    this temperature ask for the weights of the pool. The mean of distributions is never surer than they are, so that a
    ratio below 1 is noise.

    Args:
        alone: What the members say of the validation images, one after the other.
        pool: What they say of the same images together.
        outputs: Outputs of the members.
    """
    weights = [sum(1 / t for t in fit_calibration(*votes, outputs).temperatures) for votes in (pool, alone)]
    return max(1.0, weights[0] / weights[1])


def _own_folds(out_of_fold: OutOfFold, dataset: Dataset, outputs: Outputs) -> list[_Votes]:
    """What each member says of its own fold, or of some images of it if there are more than a fit needs."""
    found = []
    for member in range(int(out_of_fold.members.max()) + 1):
        images, levels = out_of_fold.by(member)
        rows = images_to_fit(np.arange(len(images)), outputs)
        found.append((tuple(level[rows] for level in levels), dataset.labels[images[rows]]))
    return found


def _pooled(ensemble: Ensemble, votes: Sequence[_Votes]) -> _Votes:
    """What the members say together of images that all of them were asked about."""
    raw = ensemble.pool([tuple(map(torch.from_numpy, levels)) for levels, _ in votes])
    return tuple(level.numpy() for level in raw), votes[0][1]


def _tempered(ensemble: Ensemble, votes: Sequence[_Votes]) -> list[_Votes]:
    """What each member says at the temperatures that it has in the ensemble."""
    temperatures = ensemble.recipe.member_temperatures
    assert temperatures is not None
    return [(_at(levels, own), labels) for (levels, labels), own in zip(votes, temperatures, strict=True)]


def _at(levels: Probabilities, temperatures: Sequence[float]) -> Probabilities:
    pairs = zip(levels, temperatures, strict=True)
    return tuple(tempered(torch.from_numpy(level), temperature).numpy() for level, temperature in pairs)


def _joined(votes: Sequence[_Votes]) -> _Votes:
    """What is said of several groups of images, one group after the other."""
    levels = zip(*(levels for levels, _ in votes), strict=True)
    return tuple(np.concatenate(level) for level in levels), np.concatenate([labels for _, labels in votes])
