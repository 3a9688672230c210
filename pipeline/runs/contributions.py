"""What each part of several that vote together costs and adds: what they score, and what they score without it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from nstudent.data.dataset import Dataset
from nstudent.evaluation.bootstrap import paired_difference
from nstudent.evaluation.calibration import fit_calibration, images_to_fit
from nstudent.evaluation.metrics import Ratio, tally
from nstudent.evaluation.scores import HEADLINE
from nstudent.labels.decoders import build_decoder
from nstudent.models.ensemble import Ensemble, Probabilities
from nstudent.models.inference import Walk, batches, predict
from nstudent.runs.step_metrics import Contribution
from nstudent.taxonomy.tree import LabelArray


def headline_of(ensemble: Ensemble, raw: Probabilities, labels: LabelArray) -> Ratio:
    """Headline score of each image, (images, 2), by a classifier.

    Args:
        ensemble: The classifier.
        raw: What its members say together before they are calibrated, (images, outputs) per level.
        labels: (images, levels).
    """
    recipe = ensemble.recipe
    levels = ensemble.calibrate(tuple(torch.from_numpy(level) for level in raw))
    paths = build_decoder(recipe.decoder, recipe.outputs).decode(levels).paths
    return tally(paths.numpy(), labels, recipe.taxonomy.levels)[HEADLINE]


def contributions_of(
    ensemble: Ensemble, dataset: Dataset, batch_size: int | None, walk: Walk = batches
) -> tuple[Contribution, ...] | None:
    """What each member of an ensemble costs and adds on the validation images; ``None`` of a single member.

    The ensemble and the one without a member are calibrated alike, each on the same images.

    Args:
        ensemble: Its members vote with their weights and temperatures, which stay as they are.
        dataset: The images and their labels.
        batch_size: Largest number of images labelled at once; ``None``: by their size and the device.
        walk: How the validation images are walked through.
    """
    numbers = range(len(ensemble.members))
    if len(numbers) < 2:
        return None
    ids = images_to_fit(dataset.validation, ensemble.recipe.outputs)
    labels = dataset.labels[ids]
    votes = [predict(ensemble.alone(number), dataset.pixels, ids, batch_size, walk=walk) for number in numbers]
    whole = _calibrated_headline(ensemble, votes, labels)
    shares = ensemble.recipe.weights or (1.0,) * len(numbers)
    found = []
    for number in numbers:
        others = [vote for other, vote in enumerate(votes) if other != number]
        gain = paired_difference(whole, _calibrated_headline(ensemble.without(number), others, labels))
        cost = round(ensemble.members[number].gmacs(ensemble.recipe.image_size), 6)
        found.append(Contribution(weight=round(shares[number] / sum(shares), 6), gmacs=cost, gain=gain))
    return tuple(found)


def _calibrated_headline(ensemble: Ensemble, votes: Sequence[Probabilities], labels: LabelArray) -> Ratio:
    raw = tuple(level.numpy() for level in ensemble.pool([tuple(map(torch.from_numpy, each)) for each in votes]))
    return headline_of(ensemble.calibrated(fit_calibration(raw, labels, ensemble.recipe.outputs)), raw, labels)


def in_words(members: Sequence[Contribution] | None) -> Iterator[str]:
    """A line for each member of an ensemble; none if there is a single one."""
    for number, each in enumerate(members or ()):
        low, high = 100 * each.gain.low, 100 * each.gain.high
        yield (
            f"  member {number:<11}{each.weight:5.0%} of the vote{each.gmacs:9.4g} GMACs, adds "
            f"{100 * each.gain.value:+.1f} points on validation ({low:+.1f} to {high:+.1f})"
        )
