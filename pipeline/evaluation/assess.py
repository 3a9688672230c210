"""Score an ensemble on images whose labels are known."""

import numpy as np
from nstudent.data.dataset import Dataset, Ids
from nstudent.evaluation.metrics import Tallies, scores, tally
from nstudent.labels.decoding import best_paths
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import predict
from nstudent.taxonomy import LabelArray, Taxonomy

HEADLINE = "contest alone"
"""The score that choices are made by: matched levels / levels that exist, mean over images."""


def assess(ensemble: Ensemble, dataset: Dataset, ids: Ids, batch_size: int) -> Tallies:
    """Per image, what each score sums up, for the most probable paths."""
    probabilities = predict(ensemble, dataset.pixels, ids, batch_size)
    predicted = best_paths(probabilities, dataset.taxonomy)
    return tally(predicted, dataset.labels[ids], dataset.taxonomy.levels)


def best_constant(truth: LabelArray, taxonomy: Taxonomy) -> Tallies:
    """Tallies of the one legal label that, said of every image, scores best: no skill at all, and all the luck."""
    guesses = [np.repeat(row[None], len(truth), axis=0) for row in taxonomy.terminal_rows]
    return max(
        (tally(guess, truth, taxonomy.levels) for guess in guesses), key=lambda made: scores(made)[HEADLINE] or 0.0
    )
