"""What cross-fitted members say of the labelled images that they were trained without, and how it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nstudent.data.curation.folds import Folds
from nstudent.data.dataset import Dataset, Ids
from nstudent.errors import ArtifactError
from nstudent.models.ensemble import Ensemble, Probabilities
from nstudent.models.inference import Walk, batches, predict
from nstudent.storage.artifact import Artifact
from nstudent.storage.hdf5 import mapped, write
from nstudent.taxonomy.outputs import Outputs

FILE = "out_of_fold.h5"


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """What the one member that was trained without an image says of it, for every labelled image."""

    images: Ids
    """Ids of the images, (images,)."""
    members: Folds
    """Number of the member that was trained without each image, (images,)."""
    levels: Probabilities
    """Distributions of that member per level, float32 (images, outputs), before any temperature."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all of it, in memory or on disk."""
        return self.images.nbytes + self.members.nbytes + sum(level.nbytes for level in self.levels)

    def by(self, member: int) -> tuple[Ids, Probabilities]:
        """Ids of the images that a member was trained without, and what it says of them, in their order."""
        rows = np.flatnonzero(self.members == member)
        return self.images[rows], tuple(level[rows] for level in self.levels)

    def save(self, folder: Path) -> None:
        """Write it as one HDF5 file: ``image``, ``member``, and ``level-0`` for the coarsest level, and so on."""
        levels = {f"level-{number}": level for number, level in enumerate(self.levels)}
        write(folder / FILE, {"image": self.images, "member": self.members, **levels}, {})

    @classmethod
    def read(cls, artifact: Artifact, outputs: Outputs) -> OutOfFold:
        """What a committed step holds, after checking its hash.

        Args:
            artifact: The step of the cross-fitted classifier.
            outputs: Outputs of the classifier.

        Raises:
            ArtifactError: The file is missing or damaged, or does not fit the outputs.
        """
        path = artifact.path(FILE)
        held = mapped(path)
        levels = tuple(f"level-{number}" for number in range(len(outputs.sizes)))
        rows = len(held["image"]) if "image" in held and held["image"].ndim else 0
        expected: dict[str, tuple[npt.DTypeLike, tuple[int, ...]]] = {
            "image": (np.int64, (rows,)),
            "member": (np.int16, (rows,)),
            **{name: (np.float32, (rows, size)) for name, size in zip(levels, outputs.sizes, strict=True)},
        }
        if {name: (array.dtype, array.shape) for name, array in held.items()} != expected:
            raise ArtifactError(f"{path} does not hold a distribution of each level for each labelled image")
        return cls(held["image"], held["member"], tuple(held[name] for name in levels))


def predict_out_of_fold(
    ensemble: Ensemble, dataset: Dataset, batch_size: int | None, walk: Walk = batches
) -> OutOfFold:
    """Let every member label the images of its own fold, which is that of its number.

    Args:
        ensemble: Members that were each trained without their fold, as many as there are folds.
        dataset: The images and their folds.
        batch_size: Largest number of images labelled at once; ``None``: by their size and the device.
        walk: How the images are walked through.
    """
    images, folds = dataset.labelled, dataset.folds()
    levels = tuple(np.empty((len(images), size), np.float32) for size in ensemble.recipe.outputs.sizes)
    for member in range(len(ensemble.members)):
        rows = np.flatnonzero(folds == member)
        said = predict(ensemble.alone(member), dataset.pixels, images[rows], batch_size, walk=walk)
        for level, own in zip(levels, said, strict=True):
            level[rows] = own
    return OutOfFold(images, folds, levels)
