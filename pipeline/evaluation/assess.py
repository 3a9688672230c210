"""Score an ensemble on images whose labels are known."""

import numpy as np
from nstudent.data.dataset import Dataset, Ids
from nstudent.evaluation.metrics import Tallies, tally
from nstudent.labels.decoding import best_paths
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import predict
from nstudent.taxonomy import LabelArray

HEADLINE = "contest alone"
"""The score that choices are made by: matched levels / levels that exist, mean over images."""


def assess(ensemble: Ensemble, dataset: Dataset, ids: Ids, batch_size: int) -> Tallies:
    """Per image, what each score sums up, for the most probable paths."""
    probabilities = predict(ensemble, dataset.pixels, ids, batch_size)
    predicted = best_paths(probabilities, dataset.taxonomy)
    return tally(predicted, dataset.labels[ids], dataset.taxonomy.levels)


def majority_label(labels: LabelArray, count: int) -> LabelArray:
    """What guessing the most frequent label says of ``count`` images: the score of no skill."""
    rows, sizes = np.unique(labels, axis=0, return_counts=True)
    return np.repeat(rows[[sizes.argmax()]], count, axis=0)
