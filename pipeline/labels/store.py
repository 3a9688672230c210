"""The pseudo-label store: HDF5 shards, each written once, readable with plain h5py (docs/PSEUDO_LABELS.md).

Shard ``i`` holds rows ``[i * rows, (i + 1) * rows)`` of the heap in the order of the image ids, so that any number of
processes can make shards in any order, and an interrupted run makes only those that are missing. ``labels.h5`` shows
all of them as one file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from nstudent.labels.rows import JoinedRows, Shards
from nstudent.labels.selection import deep_enough, kept_confidence
from nstudent.labels.top import TopRows, class_type, classes_kept, top_classes
from nstudent.storage.artifact import Artifact
from nstudent.storage.files import write_json
from nstudent.storage.hdf5 import attributes, encoded, mapped, write_joined
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import UNKNOWN, LabelArray, Taxonomy

if TYPE_CHECKING:
    # A report reads the store without torch.
    from nstudent.labels.path_posterior import Calibration
    from torch import Tensor

JOINED = "labels.h5"
DESCRIPTION = "labels.json"
_SHARD = "labels-"
_WHOLE, _SOME_TOP = 1, 2
"""Schema: every level has its whole distribution, or some have their most probable classes alone."""


@dataclass(frozen=True)
class Layout:
    """What is stored of each level."""

    outputs: Outputs
    """Outputs of the labeller."""
    kept: tuple[int, ...]
    """Classes per level that are stored; as many as outputs: the whole distribution."""

    @classmethod
    def of(cls, outputs: Outputs, top_k: int | None) -> Layout:
        """What the configuration's ``pseudolabel.top_k`` leaves of a labeller's outputs."""
        return cls(outputs, tuple(classes_kept(size, top_k) for size in outputs.sizes))

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels, coarse first."""
        return self.outputs.taxonomy.levels

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of outputs of each level."""
        return self.outputs.sizes

    @property
    def row_bytes(self) -> int:
        """Bytes of one image in a shard."""
        columns = zip(self.sizes, self.kept, self.tops, strict=True)
        # A probability in half precision, and where not every class is there, its number, and what the others share.
        per_level = [
            kept * (2 + class_type(outputs)().itemsize) + 2 if top else kept * 2 for outputs, kept, top in columns
        ]
        return 8 + 8 * len(self.levels) + sum(per_level)

    @property
    def tops(self) -> tuple[bool, ...]:
        """Per level, whether only the most probable classes are stored."""
        return tuple(kept < outputs for kept, outputs in zip(self.kept, self.sizes, strict=True))

    @property
    def schema(self) -> int:
        """Which data sets a reader finds."""
        return _SOME_TOP if any(self.tops) else _WHOLE

    def columns(self, levels: Sequence[Tensor], paths: Tensor, confidence: Tensor) -> dict[str, Tensor]:
        """The labels of some images as they are stored, on whichever device they are.

        Args:
            levels: Calibrated distribution per level, (rows, outputs).
            paths: The path of each label, (rows, levels).
            confidence: Probability along the path, (rows, levels).
        """
        found = {"path": paths.int(), "confidence": confidence.float()}
        for name, kept, is_top, level in zip(self.levels, self.kept, self.tops, levels, strict=True):
            if is_top:
                classes, chosen = top_classes(level, kept)
                wide = class_type(level.shape[1]) is np.int32
                found[f"top/{name}/class"] = classes.int() if wide else classes.short()
                found[f"top/{name}/probability"] = chosen.half()
                rest = level.sum(dim=1, keepdim=True) - chosen.sum(dim=1, keepdim=True)
                found[f"top/{name}/rest"] = rest.clamp_min(0).half()
            else:
                found[f"probability/{name}"] = level.half()
        return found

    def attributes(self) -> dict[str, Any]:
        """Attributes of the root of every file."""
        said = {"schema": self.schema, "levels": list(self.levels)}
        return said | ({"outputs": list(self.sizes)} if any(self.tops) else {})


class Shard:
    """The labels of some images while they are made, in the types they are stored in."""

    def __init__(self, images: npt.NDArray[np.int64], layout: Layout) -> None:
        """``images``: ids, (rows,)."""
        rows, num_levels = len(images), len(layout.levels)
        self._layout = layout
        self._arrays: dict[str, npt.NDArray[Any]] = {
            "image": images.astype(np.int64),
            "path": np.empty((rows, num_levels), dtype=np.int32),
            "confidence": np.empty((rows, num_levels), dtype=np.float32),
        }
        for name, outputs, kept, is_top in zip(layout.levels, layout.sizes, layout.kept, layout.tops, strict=True):
            if is_top:
                self._arrays[f"top/{name}/class"] = np.empty((rows, kept), dtype=class_type(outputs))
                self._arrays[f"top/{name}/probability"] = np.empty((rows, kept), dtype=np.float16)
                self._arrays[f"top/{name}/rest"] = np.empty((rows, 1), dtype=np.float16)
            else:
                self._arrays[f"probability/{name}"] = np.empty((rows, outputs), dtype=np.float16)

    def put(self, first: int, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take in the labels of a batch, (images, ...) each as ``Layout.columns`` gives them, from row ``first`` on."""
        for name, rows in columns.items():
            self._arrays[name][first : first + len(rows)] = rows

    def encoded(self, rows: int) -> bytes:
        """The content of a file with the first so many rows: once every row was put in, of the shard."""
        arrays = {name: array[:rows] for name, array in self._arrays.items()}
        return encoded(arrays, self._layout.attributes())

    def take(self, path: Path) -> int:
        """Take in the first rows, from a file that ``encoded`` has given; returns how many these are."""
        found = mapped(path)
        for name, array in self._arrays.items():
            array[: len(found[name])] = found[name]
        return len(found["image"])


def shard_path(folder: Path, first: int, last: int) -> Path:
    """Path of the shard that holds rows ``first`` to ``last - 1``."""
    return folder / f"{_SHARD}{first:09d}-{last:09d}.h5"


def shards(folder: Path) -> list[Path]:
    """Every shard in a folder, in the order of its rows."""
    return sorted(folder.glob(f"{_SHARD}*.h5"))


def finish(folder: Path, layout: Layout, calibration: Calibration | None, labeller_id: str) -> None:
    """Write the joined view and the description, once every shard is there."""
    description = {
        "schema": layout.schema,
        "labeller": labeller_id,
        "temperatures": list(calibration.temperatures) if calibration else None,
        "ends": list(calibration.ends) if calibration else None,
        "taxonomy": layout.outputs.taxonomy.to_json(),
    }
    write_json(folder / DESCRIPTION, description)
    write_joined(folder / JOINED, shards(folder), layout.attributes())


@dataclass(frozen=True)
class ShardLabels:
    """The labels of one shard, mapped; the map goes with the part."""

    rows: slice
    """Where they stand among all rows."""
    images: npt.NDArray[np.int64]
    paths: LabelArray
    confidence: npt.NDArray[np.float32]


class LabelStore:
    """The labels of a whole heap, on disk: memory grows with it only where a whole column is asked for."""

    def __init__(self, paths: Sequence[Path], levels: Sequence[str]) -> None:
        self._paths = list(paths)
        self._num_rows = sum(len(part.images) for part in self.parts())
        shards = Shards(self._paths)
        self.probabilities = tuple(_distributions(self._paths[0], shards, name, i) for i, name in enumerate(levels))
        """Per level: indexing with rows gives the distributions, float16 or float32 (rows, outputs)."""
        self.path_rows = JoinedRows(shards, "path")
        """Indexing with rows gives the paths of the labels, int32 (rows, levels)."""

    @classmethod
    def open(cls, artifact: Artifact) -> LabelStore:
        """The store of a committed step, its hashes checked."""
        levels = Taxonomy.from_json(artifact.json(DESCRIPTION)["taxonomy"]).levels
        return cls(artifact.paths(artifact.matching(_SHARD)), levels)

    def __len__(self) -> int:
        return self._num_rows

    def parts(self) -> Iterator[ShardLabels]:
        """One shard after the other, in the order of the rows."""
        first = 0
        for path in self._paths:
            arrays = mapped(path)
            rows = slice(first, first + len(arrays["image"]))
            yield ShardLabels(rows, arrays["image"], arrays["path"], arrays["confidence"])
            first = rows.stop

    @cached_property
    def images(self) -> npt.NDArray[np.int64]:
        """Image id of each row, ascending."""
        return np.concatenate([part.images for part in self.parts()])

    @property
    def paths(self) -> LabelArray:
        """Path of each label, (rows, levels): a new array of the whole heap."""
        return np.concatenate([part.paths for part in self.parts()])

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """Probability along that path, (rows, levels); where it has ended, of 'nothing', or 0. A new array."""
        return np.concatenate([part.confidence for part in self.parts()])

    def terminals(self, taxonomy: Taxonomy) -> npt.NDArray[np.int32]:
        """Index of the terminal that each row's path leads to, (rows,)."""
        found = np.empty(len(self), dtype=np.int32)
        for part in self.parts():
            found[part.rows] = taxonomy.terminal_of(part.paths)
        return found

    def deep_enough(self, threshold: Sequence[float] | float) -> npt.NDArray[np.bool_]:
        """Levels that are sure, (rows, levels); see ``selection.deep_enough``."""
        return np.concatenate([deep_enough(part.confidence, threshold) for part in self.parts()])

    def kept_confidence(self, keep: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Probability of the deepest kept class of each row, (rows,); 0 where nothing is kept."""
        found = np.empty(len(self), dtype=np.float32)
        for part in self.parts():
            found[part.rows] = kept_confidence(part.confidence, keep[part.rows])
        return found

    def kept_labels(self, keep: npt.NDArray[np.bool_]) -> LabelArray:
        """The paths as labels, (rows, levels), unknown at the levels that are not kept."""
        labels = np.full(keep.shape, UNKNOWN, dtype=np.int32)
        for part in self.parts():
            np.copyto(labels[part.rows], part.paths, where=keep[part.rows])
        return labels


def _distributions(first: Path, shards: Shards, level: str, number: int) -> JoinedRows | TopRows:
    classes, probabilities, rest = (f"top/{level}/{name}" for name in ("class", "probability", "rest"))
    if classes not in mapped(first):
        return JoinedRows(shards, f"probability/{level}")
    outputs = int(attributes(first)["outputs"][number])
    # Earlier versions did not write it: every distribution summed to one.
    others = JoinedRows(shards, rest) if rest in mapped(first) else None
    return TopRows(JoinedRows(shards, classes), JoinedRows(shards, probabilities), outputs, others)
