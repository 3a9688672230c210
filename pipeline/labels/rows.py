"""Rows of many mapped files, read as if they were one array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nstudent.errors import ArtifactError
from nstudent.storage.hdf5 import Array, mapped

Rows = npt.NDArray[np.int64]


class Shards:
    """Files with the same data sets, each mapped once, when the first row is asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._arrays: list[dict[str, Array]] | None = None

    def __getstate__(self) -> dict[str, list[Path]]:
        # Another process opens its own maps: pickling one would copy the whole file.
        return {"paths": self._paths}

    def __setstate__(self, state: dict[str, list[Path]]) -> None:
        self._paths = state["paths"]
        self._arrays = None

    def __getitem__(self, name: str) -> list[Array]:
        """One data set of every file."""
        if self._arrays is None:
            self._arrays = [mapped(path) for path in self._paths]
        return [shard[name] for shard in self._arrays]


class JoinedRows:
    """A data set of several shards, end to end: indexing with row numbers gives (rows, width)."""

    def __init__(self, shards: Shards, name: str) -> None:
        self._shards = shards
        self._name = name
        self._parts: list[memoryview] = []
        self._ends: Rows = np.zeros(0, dtype=np.int64)
        self._dtype: np.dtype[Any] = np.dtype(np.float16)
        self._width = 0

    def __getstate__(self) -> tuple[Shards, str]:
        return self._shards, self._name

    def __setstate__(self, state: tuple[Shards, str]) -> None:
        JoinedRows.__init__(self, *state)

    def __len__(self) -> int:
        self._open()
        return int(self._ends[-1])

    def __getitem__(self, rows: Rows) -> npt.NDArray[Any]:
        self._open()
        which = np.searchsorted(self._ends, rows, side="right")
        row_bytes = self._width * self._dtype.itemsize
        firsts = (rows - np.concatenate([[0], self._ends])[which]) * row_bytes
        # Random rows of a large store lie in nearly as many shards: a numpy call for each shard takes ten times as
        # long as cutting the bytes out of the maps one row at a time.
        pieces = [
            self._parts[part][at : at + row_bytes] for part, at in zip(which.tolist(), firsts.tolist(), strict=True)
        ]
        return np.frombuffer(b"".join(pieces), self._dtype).reshape(len(rows), self._width)

    def _open(self) -> None:
        if self._parts:
            return
        arrays = self._shards[self._name]
        self._dtype, self._width = arrays[0].dtype, arrays[0].shape[1]
        if any(array.dtype != self._dtype or array.shape[1:] != (self._width,) for array in arrays):
            raise ArtifactError(f"the shards of the label store differ in the type or width of '{self._name}'")
        self._ends = np.cumsum([len(array) for array in arrays])
        self._parts = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays]
