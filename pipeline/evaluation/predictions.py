"""What the classifiers of a run say of the validation and test images, kept for reports (docs/PREDICTIONS.md).

A file holds rows of one classifier, in the layout of a shard of the pseudo-label store with the truth beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from nstudent.data.dataset import Dataset, Ids
from nstudent.errors import ArtifactError
from nstudent.labels.store import LabelStore, Layout
from nstudent.labels.targets import StoredRows
from nstudent.storage.artifact import Artifact
from nstudent.storage.hdf5 import attributes, mapped, write
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import LabelArray

if TYPE_CHECKING:
    # A report reads predictions without torch.
    from nstudent.labels.decoding import Decoded
    from torch import Tensor

_FILE = re.compile(r"predictions-(.+)-\d{9,}-\d{9,}\.h5")
_FILE_BYTES = 64 << 20
"""Bytes of a file, and so of the rows that are held in memory while they are made."""


class PredictionWriter:
    """Writes the predictions of one classifier: a file whenever so many bytes of them are there."""

    def __init__(self, folder: Path, step: str, dataset: Dataset, outputs: Outputs) -> None:
        """Write into ``folder``; ``step`` names the classifier, ``outputs`` are its outputs."""
        self._folder = folder
        self._step = step
        self._dataset = dataset
        self._layout = Layout.of(outputs, None)
        self._pieces: list[dict[str, npt.NDArray[Any]]] = []
        """Rows that are not in a file yet, by data set."""
        self._first = 0

    @property
    def row_bytes(self) -> int:
        """Bytes of one image, without its name."""
        return self._layout.row_bytes + 1 + 4 * len(self._layout.levels)

    def columns(self, levels: Sequence[Tensor], found: Decoded) -> Mapping[str, Tensor]:
        """The predictions of some images as they are stored, on their device.

        Args:
            levels: Distribution per level, (images, outputs).
            found: The labels that were decoded from them.
        """
        return self._layout.columns(levels, found.paths, found.confidence)

    def put(self, images: Ids, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take in the predictions of some images, ids (images,), as ``columns`` gives them: (images, ...) each."""
        known = {
            "image": images.astype(np.int64),
            "name": self._dataset.names(images),
            "split": self._dataset.split[images],
            "truth": self._dataset.labels[images],
        }
        self._pieces.append(known | dict(columns))
        # Cut at rows that do not depend on the size of a batch: an interrupted step leaves no file under another name.
        most = max(1, _FILE_BYTES // self.row_bytes)
        while sum(len(piece["image"]) for piece in self._pieces) >= most:
            self._write(most)

    def finish(self) -> None:
        """Write the rows that are not in a file yet."""
        if left := sum(len(piece["image"]) for piece in self._pieces):
            self._write(left)

    def _write(self, count: int) -> None:
        """Write a file of the first ``count`` rows that are not in one yet."""
        rows = {name: np.concatenate([piece[name] for piece in self._pieces]) for name in self._pieces[0]}
        last = self._first + count
        path = self._folder / f"predictions-{self._step}-{self._first:09d}-{last:09d}.h5"
        write(path, {name: column[:count] for name, column in rows.items()}, self._layout.attributes())
        self._pieces = [{name: column[count:] for name, column in rows.items()}]
        self._first = last


@dataclass(frozen=True)
class Predictions:
    """What one classifier says of the validation and test images."""

    levels: tuple[str, ...]
    images: Ids
    """Image ids, (rows,)."""
    names: npt.NDArray[np.bytes_]
    """Names of the images in their source, UTF-8, (rows,)."""
    split: npt.NDArray[np.int8]
    """``VALIDATION`` or ``TEST`` of ``nstudent.data.curation.split``, (rows,)."""
    truth: LabelArray
    """Class index per level, (rows, levels); negative where there is none or it is not known."""
    paths: LabelArray
    """The label that the classifier gives, (rows, levels); -1 below its end."""
    confidence: npt.NDArray[np.float32]
    """Probability along that path, (rows, levels), of the calibrated classifier."""
    probabilities: tuple[StoredRows, ...]
    """Per level: indexing with rows gives the distributions, float16 or float32 (rows, outputs)."""

    @classmethod
    def steps(cls, scores: Artifact) -> list[str]:
        """Steps whose classifiers' predictions a scores step holds."""
        return sorted({found[1] for name in scores.manifest.files if (found := _FILE.fullmatch(name))})

    @classmethod
    def open(cls, scores: Artifact, step: str) -> Predictions:
        """The predictions of the classifier of one step, as a committed scores step holds them; hashes are checked.

        Raises:
            ArtifactError: It holds none of this classifier, or a file is damaged.
        """
        wanted = [name for name in scores.matching("predictions-") if (f := _FILE.fullmatch(name)) and f[1] == step]
        if not wanted:
            raise ArtifactError(
                f"{scores.folder} holds no predictions of {step}: run `nstudent stage {scores.manifest.stage}` again"
            )
        paths = scores.paths(wanted)
        files = [mapped(path) for path in paths]
        levels = tuple(str(level) for level in attributes(paths[0])["levels"])

        def column(name: str) -> npt.NDArray[Any]:
            return np.concatenate([file[name] for file in files])

        return cls(
            levels,
            images=column("image"),
            names=column("name"),
            split=column("split"),
            truth=column("truth"),
            paths=column("path"),
            confidence=column("confidence"),
            probabilities=LabelStore(paths, levels).probabilities,
        )

    def rows_of(self, split: int) -> Ids:
        """Rows of the images of one split, (rows,)."""
        return np.flatnonzero(self.split == split)
