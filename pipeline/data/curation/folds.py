"""The labelled training images in K parts of equal size, class by class, so that a network can label what it never saw.

The division is a pure function of the seed and of what the images are: their names and labels, and which of them are
copies of one another. The order of the files plays no part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from nstudent.errors import DataError
from nstudent.randomness import seed as seed_of
from nstudent.taxonomy.tree import LabelArray

Folds = npt.NDArray[np.int16]
"""Number of the fold of each image, from 0."""


def draw_folds(names: Sequence[str], labels: LabelArray, groups: Sequence[bytes], count: int, seed: int) -> Folds:
    """Divide images into folds.

    Images of one group come into the same fold. Where every image is a group of its own, folds differ by at most one
    image, in each class and in all. A group of several is as much as that further out of balance.

    Args:
        names: Name of each image, each once, (images,).
        labels: Label of each image, (images, levels); images with equal rows are of one class.
        groups: What images have in common that are to stay together, such as the digest of their content, (images,).
        count: Number of folds, at least 2.
        seed: Of the run.

    Returns:
        The fold of each image, (images,).

    Raises:
        DataError: There are fewer groups than folds.
    """
    members: dict[bytes, list[int]] = defaultdict(list)
    for image, group in enumerate(groups):
        members[group].append(image)
    if len(members) < count:
        raise DataError(
            f"data.folds={count} wants at least {count} different labelled images: there are {len(members)}"
        )
    strata: dict[tuple[int, ...], list[tuple[int, int, list[int]]]] = defaultdict(list)
    for images in members.values():
        first = min(images, key=lambda image: names[image])
        # Large groups come first, so that small ones can make up for them; a hash decides among equal ones.
        entry = (-len(images), seed_of(seed, "fold", names[first]), images)
        strata[tuple(labels[first].tolist())].append(entry)
    folds: Folds = np.full(len(names), -1, dtype=np.int16)
    sizes = [0] * count
    for stratum in sorted(map(sorted, strata.values()), key=lambda entries: entries[0][1]):
        here = [0] * count
        for _, _, images in stratum:
            fold = min(range(count), key=lambda fold: (here[fold], sizes[fold], fold))
            folds[images] = fold
            here[fold] += len(images)
            sizes[fold] += len(images)
    return folds
