"""Score an ensemble on images whose labels are known."""

import numpy as np
from nstudent.data.dataset import Dataset, Ids
from nstudent.evaluation.metrics import Tallies, tally
from nstudent.labels.decoders import build_decoder
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import BatchSize, batches
from nstudent.taxonomy import LabelArray, Taxonomy

_TIE = 1e-9


def assess(ensemble: Ensemble, dataset: Dataset, ids: Ids, batch_size: int | None) -> Tallies:
    """Per image, what each score sums up, for the most probable paths."""
    decoder = build_decoder(ensemble.recipe.decoder, ensemble.recipe.outputs)
    size = BatchSize.starting(batch_size, ensemble)
    found = batches(ensemble, dataset.pixels, ids, size, lambda levels: {"path": decoder.decode(levels).paths})
    predicted = np.concatenate([batch["path"] for batch in found])
    return tally(predicted, dataset.labels[ids], dataset.taxonomy.levels)


def best_constant(truth: LabelArray, taxonomy: Taxonomy) -> Tallies:
    """Tallies of the one legal label that, said of every image, scores best: no skill at all, and all the luck."""
    exists = truth >= 0
    share = 1.0 / np.maximum(1, exists.sum(axis=1))
    score = np.zeros(len(taxonomy.terminals))
    for level, size in enumerate(taxonomy.num_classes):
        seen = exists[:, level]
        # What naming each class is worth; naming none is worth nothing, and stands last.
        worth = np.append(np.bincount(truth[seen, level], share[seen], minlength=size), 0.0)
        score += worth[taxonomy.terminal_rows[:, level]]
    best = taxonomy.terminal_rows[int((score >= score.max() - _TIE).argmax())]
    return tally(np.repeat(best[None], len(truth), axis=0), truth, taxonomy.levels)
