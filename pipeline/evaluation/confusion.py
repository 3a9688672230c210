"""Which classes are taken for each other, and groups of classes that are: a tree where nobody has one.

Classes that a classifier confuses on held-out images are put together by spectral clustering (Ng, Jordan & Weiss, NIPS
2001; scikit-learn's), as HD-CNN does to find its coarse classes (Yan et al., arXiv 1410.0736, section 4.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from nstudent.data.dataset import Dataset, Ids
from nstudent.errors import DataError
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import BatchSize, batches
from nstudent.models.kernel_ridge import KernelRidge
from nstudent.models.probe import Features
from nstudent.models.probe_member import features_of
from nstudent.models.regression import Points, Solution, choose, held_out
from nstudent.progress import Progress
from nstudent.randomness import Key, generator, seed
from nstudent.taxonomy.proposal import Group, check_sizes, nested
from scipy.special import softmax
from sklearn.cluster import SpectralClustering
from torch import Tensor

_PARTS = 5
_MOST_IMAGES = 5_000
"""Labelled images that a quick look goes by; of more, so many are drawn."""
_LEAST_AFFINITY = 1e-6
"""Affinity of two classes that are never confused, so that no class stands apart from all others."""

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Confusion:
    """What a classifier says of held-out images of each class."""

    names: tuple[str, ...]
    """The classes, without those of which there is no image."""
    said: Matrix
    """Mean probability of each class (column) over the images of each class (row), (classes, classes)."""
    images: int
    """Number of images behind it."""
    without: tuple[str, ...]
    """Classes of which there is no image."""
    right: float
    """Share of the images whose most probable class is the true one, in the mean over the classes."""

    @classmethod
    def of(cls, names: Sequence[str], said: Matrix, truth: npt.NDArray[np.integer]) -> Confusion:
        """The confusion of some images.

        Args:
            names: Names of all classes.
            said: Probabilities, (images, classes).
            truth: True class of each image, (images,).
        """
        counts = np.bincount(truth, minlength=len(names))
        there = np.flatnonzero(counts)
        sums = np.zeros((len(names), len(names)))
        np.add.at(sums, truth, said)
        means = (sums[there] / counts[there, None])[:, there]
        hits = np.bincount(truth[said.argmax(axis=1) == truth], minlength=len(names))
        absent = tuple(name for name, count in zip(names, counts, strict=True) if not count)
        return cls(
            tuple(names[int(number)] for number in there),
            means,
            len(truth),
            absent,
            float((hits[there] / counts[there]).mean()),
        )

    @property
    def affinity(self) -> Matrix:
        """How much two classes are taken for each other, symmetric, with zeros on the diagonal."""
        mean = (self.said + self.said.T) / 2 + _LEAST_AFFINITY
        np.fill_diagonal(mean, 0.0)
        return np.asarray(mean)


def confusion_of(ensemble: Ensemble, dataset: Dataset, progress: Progress) -> Confusion:
    """That of a classifier on the validation images, at the finest level.

    Raises:
        DataError: No validation image has a class there.
    """
    ids = _known(dataset, dataset.validation)
    names = dataset.taxonomy.classes[-1]
    said: list[npt.NDArray[np.generic]] = []
    size = BatchSize.starting(None, ensemble)
    with (
        progress.task("validation", len(ids), "images") as task,
        closing(batches(ensemble, dataset.pixels, ids, size, lambda levels: {"finest": levels[-1]})) as parts,
    ):
        for part in parts:
            said.append(part["finest"][:, : len(names)])
            task.advance(len(part["finest"]))
    return Confusion.of(names, np.concatenate(said).astype(np.float64), dataset.labels[ids, -1])


def quick_confusion(
    dataset: Dataset, features: Features, placement: Placement, key: Key, progress: Progress
) -> Confusion:
    """That of a kernel ridge regression on the labelled images, each predicted by one that has not learnt from it.

    Args:
        dataset: The images.
        features: What the regression goes by; on the device of ``placement``.
        placement: Where the features are computed.
        key: Decides which images are held out together.
        progress: Told how far it is.

    Raises:
        ConfigError: A backbone cannot take these images.
        DataError: There are too few labelled images with a class at the finest level.
        RefusedError: The memory does not do for the features of one image.
    """
    ids = _known(dataset, dataset.labelled)
    if len(ids) > _MOST_IMAGES:
        ids = np.sort(generator(*key, "images").choice(ids, _MOST_IMAGES, replace=False))
    truth, names = dataset.labels[ids, -1], dataset.taxonomy.classes[-1]

    def images(some: Ids) -> Tensor:
        return placement.images(torch.from_numpy(dataset.pixels[some]))

    found = features_of(features, images, ids, progress, "features")
    points = Points(found, np.eye(len(names))[truth], np.arange(len(ids)))
    chosen = choose(KernelRidge(key), points, key)
    part_of = np.argsort(generator(*key, "parts").permutation(len(ids))) % _PARTS
    with progress.task("held out", _PARTS, "parts") as task:

        def fitted(known: Points) -> Solution:
            solution = chosen.fitted(known)
            task.advance(1)
            return solution

        said = softmax(held_out(points, part_of, fitted), axis=1)
    return Confusion.of(names, said, truth)


def _known(dataset: Dataset, ids: Ids) -> Ids:
    known = ids[dataset.labels[ids, -1] >= 0]
    if len(known) < _PARTS:
        raise DataError(
            f"{len(known)} images have a class of the level '{dataset.taxonomy.levels[-1]}' and can be looked at: "
            "label more"
        )
    return np.asarray(known)


def best_number(affinity: Matrix) -> int:
    """The number of groups before the largest gap of the eigenvalues of the normalised Laplacian (von Luxburg, 2007).

    At least 2, and at most half of the classes.
    """
    scale = 1 / np.sqrt(affinity.sum(axis=1))
    values = np.linalg.eigvalsh(np.eye(len(affinity)) - scale[:, None] * affinity * scale)
    most = max(2, len(affinity) // 2)
    return 2 + int(np.argmax(np.diff(values)[1:most]))


def _clustered(affinity: Matrix, size: int, key: Key) -> list[int]:
    if size >= len(affinity):
        return list(range(len(affinity)))
    model = SpectralClustering(
        size, affinity="precomputed", assign_labels="cluster_qr", random_state=seed(*key, size) % 2**32
    )
    return [int(number) for number in model.fit_predict(affinity)]


def proposed_groups(confusion: Confusion, sizes: Sequence[int], key: Key) -> tuple[Group, ...]:
    """Groups of classes that are taken for each other, level by level.

    The finest groups are found first; coarser ones are groups of those, by the mean affinity of their classes.

    Args:
        confusion: What was said of held-out images.
        sizes: Number of groups of each level above the classes, coarse first; none: one level, of ``best_number``.
        key: Decides what scikit-learn draws.

    Raises:
        DataError: There is no tree with these numbers of groups.
    """
    check_sizes(sizes, len(confusion.names))
    wanted = list(sizes) or [best_number(confusion.affinity)]
    levels: list[list[int]] = []
    affinity, of_class = confusion.affinity, list(range(len(confusion.names)))
    for size in reversed(wanted):
        groups = _clustered(affinity, size, key)
        of_class = [groups[before] for before in of_class]
        levels.insert(0, of_class)
        affinity = _between(confusion.affinity, np.array(of_class))
    leaves = [Group(name) for name in confusion.names]
    return nested(leaves, levels, _namer(confusion))


def _between(affinity: Matrix, group: npt.NDArray[np.integer]) -> Matrix:
    """Mean affinity between the classes of each two groups, (groups, groups), zeros on the diagonal."""
    numbers = np.unique(group)
    member = (group[None, :] == numbers[:, None]).astype(np.float64)
    mean = (member @ affinity @ member.T) / np.outer(member.sum(axis=1), member.sum(axis=1))
    np.fill_diagonal(mean, 0.0)
    return np.asarray(mean)


def _namer(confusion: Confusion) -> Callable[[Sequence[str]], tuple[str, str]]:
    place = {name: number for number, name in enumerate(confusion.names)}
    affinity = confusion.affinity

    def name(classes: Sequence[str]) -> tuple[str, str]:
        """A group is called after the class in it that is nearest to the others."""
        if len(classes) == 1:
            return classes[0], ""
        rows = [place[each] for each in classes]
        inside = affinity[np.ix_(rows, rows)]
        middle = int(inside.sum(axis=1).argmax())
        other = int(inside[middle].argmax())
        note = f"{classes[middle]} and {classes[other]} are taken for each other with {inside[middle, other]:.1%}"
        return f"like {classes[middle]}", note

    return name
