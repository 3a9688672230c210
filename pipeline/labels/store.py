"""The pseudo-label store: HDF5 shards, each written once, readable with plain h5py (docs/PSEUDO_LABELS.md).

Shard ``i`` holds rows ``[i * rows, (i + 1) * rows)`` of the heap in the order of the image ids, so that any number of
processes can make shards in any order, and an interrupted run makes only those that are missing. ``labels.h5`` shows
all of them as one file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nstudent.artifact import Artifact
from nstudent.hdf5 import mapped, write, write_joined
from nstudent.storage import write_json
from nstudent.taxonomy import UNKNOWN, LabelArray, Taxonomy

SCHEMA = 1
JOINED = "labels.h5"
DESCRIPTION = "labels.json"
_SHARD = "labels-"


def shard_path(folder: Path, first: int, last: int) -> Path:
    """Path of the shard that holds rows ``first`` to ``last - 1``."""
    return folder / f"{_SHARD}{first:09d}-{last:09d}.h5"


def write_shard(
    path: Path,
    images: npt.NDArray[np.int64],
    probabilities: Sequence[npt.NDArray[np.float32]],
    paths: LabelArray,
    confidence: npt.NDArray[np.float32],
    levels: Sequence[str],
) -> None:
    """Write the labels of some images.

    Args:
        images: Ids, (rows,).
        probabilities: Calibrated distribution per level, (rows, outputs).
        paths: The most probable path, (rows, levels).
        confidence: Probability along the path, (rows, levels).
        levels: Names of the levels.
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        "image": images.astype(np.int64),
        "path": paths.astype(np.int32),
        "confidence": confidence.astype(np.float32),
    }
    for name, level in zip(levels, probabilities, strict=True):
        arrays[f"probability/{name}"] = level.astype(np.float16)
    write(path, arrays, {"schema": SCHEMA, "levels": list(levels)})


def shards(folder: Path) -> list[Path]:
    """Every shard in a folder, in the order of its rows."""
    return sorted(folder.glob(f"{_SHARD}*.h5"))


def finish(folder: Path, taxonomy: Taxonomy, temperatures: Sequence[float], labeller_id: str) -> None:
    """Write the joined view and the description, once every shard is there."""
    description = {
        "schema": SCHEMA,
        "labeller": labeller_id,
        "temperatures": list(temperatures),
        "taxonomy": taxonomy.to_json(),
    }
    write_json(folder / DESCRIPTION, description)
    attributes = {"schema": SCHEMA, "levels": list(taxonomy.levels)}
    write_joined(folder / JOINED, shards(folder), attributes)


class LabelStore:
    """The labels of a whole heap, mapped: memory does not grow with it."""

    def __init__(self, paths: Sequence[Path], levels: Sequence[str]) -> None:
        shards = [mapped(path) for path in paths]
        self.images: npt.NDArray[np.int64] = np.concatenate([shard["image"] for shard in shards])
        """Image id of each row, ascending."""
        self.paths: LabelArray = np.concatenate([shard["path"] for shard in shards])
        """Most probable path, (rows, levels)."""
        self.confidence: npt.NDArray[np.float32] = np.concatenate([shard["confidence"] for shard in shards])
        """Probability along that path, (rows, levels); where it has ended, of 'nothing', or 0."""
        self.probabilities = tuple(JoinedRows([shard[f"probability/{name}"] for shard in shards]) for name in levels)
        """Per level: indexing with rows gives float16 (rows, outputs)."""

    @classmethod
    def open(cls, artifact: Artifact) -> LabelStore:
        """The store of a committed step, its hashes checked."""
        levels = Taxonomy.from_json(artifact.json(DESCRIPTION)["taxonomy"]).levels
        return cls([artifact.path(name) for name in artifact.matching(_SHARD)], levels)

    def __len__(self) -> int:
        return len(self.images)

    def kept_labels(self, keep: npt.NDArray[np.bool_]) -> LabelArray:
        """The paths as labels, (rows, levels), unknown at the levels that are not kept."""
        return np.where(keep, self.paths, UNKNOWN).astype(np.int32)


class JoinedRows:
    """Mapped arrays of equal width, indexed as one by row."""

    def __init__(self, parts: list[npt.NDArray[np.float16]]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        which = np.searchsorted(self._ends, rows, side="right")
        found = np.empty((len(rows), self._parts[0].shape[1]), dtype=np.float16)
        for number in np.unique(which):
            here = which == number
            start = self._ends[number] - len(self._parts[number])
            found[here] = self._parts[number][rows[here] - start]
        return found
