"""Score an ensemble on images whose labels are known."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from nstudent.data.dataset import Dataset, Ids
from nstudent.evaluation.metrics import Tallies, tally
from nstudent.evaluation.predictions import PredictionWriter
from nstudent.evaluation.scores import TreeScores
from nstudent.evaluation.tree_scores import tree_scores
from nstudent.labels.decoders import build_decoder
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import BatchSize, Found, Walk, batches
from nstudent.models.members import Levels
from nstudent.taxonomy.tree import LabelArray, Taxonomy
from torch import Tensor

_TIE = 1e-9
_SAID = ("path", "confidence")


@dataclass(frozen=True)
class Assessed:
    """What an ensemble says of images whose labels are known, and how right that is."""

    paths: LabelArray
    """The path that each image is labelled with, (images, levels); -1 below its end."""
    confidence: npt.NDArray[np.float32]
    """Probability along that path, (images, levels); where it has ended, of 'nothing', or 0."""
    tallies: Tallies
    """Per image, what each score sums up."""
    on_tree: TreeScores | None = None
    """How bad the mistakes are, and how deep the labels go."""
    also: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    """Further columns that were asked for, (images, ...) each."""


def assess(
    ensemble: Ensemble,
    dataset: Dataset,
    ids: Ids,
    batch_size: int | None,
    writer: PredictionWriter | None = None,
    walk: Walk = batches,
    also: Callable[[Levels], Mapping[str, Tensor]] | None = None,
) -> Assessed:
    """Label images as the classifier decodes them, and score the labels.

    Args:
        ensemble: The classifier.
        dataset: The images and their labels.
        ids: Ids of the images, (images,).
        batch_size: Largest number of images labelled at once; ``None``: by their size and the device.
        writer: Keeps the predictions in full.
        walk: How the images are walked through.
        also: Gives further columns, (images, ...), from the distributions that are decoded; not beside a writer.
    """
    decoder = build_decoder(ensemble.recipe.decoder, ensemble.recipe.outputs)

    def wanted(levels: Levels) -> Mapping[str, Tensor]:
        found = decoder.decode(levels)
        said = writer.columns(levels, found) if writer else {"path": found.paths, "confidence": found.confidence}
        return said if also is None else {**said, **also(levels)}

    made: list[Found] = []
    first = 0
    with closing(walk(ensemble, dataset.pixels, ids, BatchSize.starting(batch_size, ensemble), wanted)) as parts:
        for found in parts:
            if writer:
                writer.put(ids[first : first + len(found["path"])], found)
            first += len(found["path"])
            made.append({name: column for name, column in found.items() if also or name in _SAID})
    columns = {name: np.concatenate([part[name] for part in made]) for name in made[0]}
    said, truth = columns.pop("path"), dataset.labels[ids]
    on_tree = tree_scores(said, truth, dataset.taxonomy)
    return Assessed(said, columns.pop("confidence"), tally(said, truth, dataset.taxonomy.levels), on_tree, columns)


def best_constant(truth: LabelArray, taxonomy: Taxonomy) -> Tallies:
    """Tallies of the best constant prediction, a no-skill baseline; ``truth``: (images, levels)."""
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
