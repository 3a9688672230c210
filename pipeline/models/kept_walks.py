"""Walks through images with a classifier that go on where a stopped attempt at a step left them.

What a classifier has said is held in memory, and written into the scratch folder of the step if that is stopped or
there is much of it, in files of consecutive rows: a choice, a calibration or an evaluation that is stopped again and
again gets further each time, and one that is left alone writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from nstudent.data.dataset import Ids, PixelStore
from nstudent.errors import StoppedError
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import BatchSize, Found, Wanted, batches
from nstudent.models.members import Member
from nstudent.session import Session
from nstudent.signals import OverdueStop
from nstudent.storage.files import fingerprint_of, make_folder
from nstudent.storage.hdf5 import encoded, mapped
from nstudent.storage.sealed import WALKS, SealedFiles

_FILE_BYTES = 64 << 20
"""Bytes of rows that are held in memory beside those of the caller; when there are more they are written."""
_Columns = Mapping[str, tuple[np.dtype, tuple[int, ...]]]
"""Type of each column, and shape of its rows."""


class KeptWalks:
    """The walks of one step, told apart by what is asked of which classifier about which images."""

    def __init__(
        self, folder: Path, session: Session, *, check: Callable[[], None] | None = None, passing: bool = False
    ) -> None:
        """Keep the walks of the step whose partial folder this is.

        Args:
            folder: The partial folder.
            session: Is told of files that have rotted, and asked after each batch whether to go on.
            check: Called after each batch instead; it may raise ``StoppedError``.
            passing: What comes of a walk is kept elsewhere: rows are written only if the walk is stopped, and removed
                once it has come to its end.
        """
        self._sealed = SealedFiles(folder, session.progress.say)
        self._stop = session.stop
        self._check = check or session.stop.check
        self._passing = passing
        self._held: list[tuple[_Files, int, list[Found]]] = []
        """Batches that are made and not written, and the row at which they begin."""

    def keep(self) -> None:
        """Write everything that is made: the step was asked to stop."""
        for files, first, made in self._held:
            files.write(first, made)
        self._held.clear()

    def batches(
        self, ensemble: Ensemble, pixels: PixelStore, ids: Ids, size: BatchSize, wanted: Wanted
    ) -> Generator[Found, None, None]:
        """What ``nstudent.models.inference.batches`` gives, without making again the rows that are made.

        Raises:
            StoppedError: The run was asked to stop; the rows that were made are kept.
            torch.OutOfMemoryError: A single image does not fit.
        """
        files = _Files(self._sealed, ensemble, ids, wanted)
        first = 0
        for found in files.kept():
            yield found
            first += _rows(found)
        if first < len(ids) or not len(ids):
            with closing(batches(ensemble, pixels, ids[first:], size, wanted)) as walk:
                yield from self._made(walk, files, first)
        if self._passing:
            files.remove()

    def _made(self, walk: Iterator[Found], files: _Files, first: int) -> Generator[Found, None, None]:
        """The batches of a walk that begins at row ``first``; they are written by and by."""
        made: list[Found] = []
        try:
            for found in walk:
                made.append(found)
                self._check()
                yield found
                if not self._passing and _num_bytes(made) >= _FILE_BYTES:
                    first = files.write(first, made)
                    made = []
        except (StoppedError, OverdueStop):
            files.write(first, made)
            raise
        except GeneratorExit:
            # The walk was closed because of what became of the caller.
            if self._stop.is_noted:
                files.write(first, made)
            raise
        if not self._passing:
            self._held.append((files, first, made))
            if sum(_num_bytes(batches) for _, _, batches in self._held) >= _FILE_BYTES:
                self.keep()


@dataclass(frozen=True, eq=False)
class _Files:
    """The files of one walk: each holds consecutive rows, and its name says which."""

    sealed: SealedFiles
    ensemble: Ensemble
    ids: Ids
    wanted: Wanted

    def kept(self) -> Iterator[Found]:
        """The rows that are kept, file by file from the first row on."""
        # Without a file nobody has to know the name, for which all weights are hashed.
        if not any(self.sealed.path(WALKS).glob("*.h5")):
            return
        first = 0
        while found := next(self._beginning_at(first), None):
            yield found
            first += _rows(found)

    def write(self, first: int, made: Sequence[Found]) -> int:
        """Write batches, which begin at row ``first``; returns the row behind them."""
        last = first + sum(map(_rows, made))
        if last > first:
            make_folder(self.sealed.path(WALKS))
            columns = {name: np.concatenate([each[name] for each in made]) for name in self._columns}
            self.sealed.write(f"{WALKS}/{self._name}-{first:09d}-{last:09d}.h5", encoded(columns, {}))
        return last

    def remove(self) -> None:
        """Remove all of them."""
        if any(self.sealed.path(WALKS).glob("*.h5")):
            for path in self.sealed.path(WALKS).glob(f"{self._name}-*.h5"):
                self.sealed.drop(f"{WALKS}/{path.name}")

    def _beginning_at(self, first: int) -> Iterator[Found]:
        """The content of each whole file that begins at a row, the longest first."""
        for path in sorted(self.sealed.path(WALKS).glob(f"{self._name}-{first:09d}-*.h5"), reverse=True):
            if self.sealed.has(f"{WALKS}/{path.name}"):
                found = mapped(path)
                if self._fits(found, int(path.stem.rpartition("-")[2]) - first):
                    # A file has its columns in the order of their names.
                    yield {name: found[name] for name in self._columns}

    def _fits(self, found: Found, rows: int) -> bool:
        expected = {name: (dtype, (rows, *shape)) for name, (dtype, shape) in self._columns.items()}
        return rows > 0 and {name: (column.dtype, column.shape) for name, column in found.items()} == expected

    @cached_property
    def _columns(self) -> _Columns:
        """What is wanted of each image."""
        sizes, device = self.ensemble.recipe.outputs.sizes, self.ensemble.device
        none = self.wanted(tuple(torch.empty(0, outputs, device=device) for outputs in sizes))
        arrays = {name: tensor.cpu().numpy() for name, tensor in none.items()}
        return {name: (array.dtype, array.shape[1:]) for name, array in arrays.items()}

    @cached_property
    def _name(self) -> str:
        """How files begin that hold the same columns, said by the same classifier of the same images."""
        columns = {name: [str(dtype), list(shape)] for name, (dtype, shape) in self._columns.items()}
        said = {
            "recipe": self.ensemble.recipe.to_json(),
            "weights": [_hash_of(member) for member in self.ensemble.members],
            "images": hashlib.sha256(np.ascontiguousarray(self.ids, dtype=np.int64).data).hexdigest(),
            "columns": columns,
        }
        return fingerprint_of(said)[:32]


def _num_bytes(made: Sequence[Found]) -> int:
    return sum(rows.nbytes for each in made for rows in each.values())


def _rows(found: Found) -> int:
    return len(next(iter(found.values())))


def _hash_of(member: Member) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(member.tensors().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
