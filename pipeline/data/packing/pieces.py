"""The images of an unfinished shard, kept piece by piece, so that an attempt that is cut off has not been for nothing.

A shard of small images holds tens of thousands: on a machine that is taken away every few minutes it would never end.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from nstudent.data.packing.decoders import Read
from nstudent.data.packing.jpeg_shards import unreadable_rows
from nstudent.data.packing.reader import Decoded
from nstudent.errors import NstudentError, StoppedError
from nstudent.progress import Task
from nstudent.signals import OverdueStop
from nstudent.storage.hdf5 import mapped
from nstudent.storage.sealed import SCRATCH, SealedFiles

_NO_PIXELS = np.zeros((0, 0, 3), dtype=np.uint8)
_KEEP_SECONDS = 60.0
"""What was decoded for so long is kept, should the process be killed without a warning."""


class Pieces:
    """The pieces of one shard, in the scratch folder of the step: files of the same form as the shard."""

    def __init__(
        self,
        sealed: SealedFiles,
        shard: str,
        encoded: Callable[[Sequence[Decoded]], bytes],
        check: Callable[[Sequence[Decoded]], None],
    ) -> None:
        """Find what earlier attempts have kept.

        Args:
            sealed: The finished files of the step.
            shard: Name of the shard.
            encoded: Gives the content of a file with some images.
            check: Raises an error where the images of a shard so far are not to be kept.
        """
        self._sealed = sealed
        self._stem = Path(shard).stem
        self._encoded = encoded
        self._check = check
        self._images: list[Decoded] = []
        self._kept = 0
        while sealed.has(self._name()):
            self._images += _read(sealed.path(self._name()))
            self._kept = len(self._images)

    def gather(self, ids: Sequence[int], read: Read[int], task: Task) -> list[Decoded]:
        """The images of the shard: those that were kept, and the others read.

        Raises:
            StoppedError: The task asked to stop; what was read is kept.
        """
        task.advance(len(self._images))
        due = time.monotonic() + _KEEP_SECONDS
        try:
            for found in read(ids[len(self._images) :]):
                self._images += found
                # Also where nothing was ready: it asks whether to go on.
                task.advance(len(found))
                if time.monotonic() >= due:
                    self._keep()
                    due = time.monotonic() + _KEEP_SECONDS
        except (StoppedError, OverdueStop):
            self._keep()
            raise
        return self._images

    def remove(self) -> None:
        """Remove the files, once the shard is there."""
        kept, self._kept = self._kept, 0
        while self._kept < kept:
            name = self._name()
            self._kept += len(mapped(self._sealed.path(name))["digest"])
            self._sealed.drop(name)

    def _name(self) -> str:
        return f"{SCRATCH}/{self._stem}-from-{self._kept:06d}.h5"

    def _keep(self) -> None:
        new = self._images[self._kept :]
        try:
            self._check(self._images)
        except NstudentError:
            return
        if new:
            self._sealed.write(self._name(), self._encoded(new))
            self._kept = len(self._images)


def _read(path: Path) -> list[Decoded]:
    arrays = mapped(path)
    digests = [row.tobytes() for row in arrays["digest"]]
    reasons = unreadable_rows(path, len(digests))
    found = []
    for row, digest in enumerate(digests):
        if row in reasons:
            found.append(Decoded(None, digest, reasons[row]))
        elif "jpeg" in arrays:
            first, last = arrays["offset"][row : row + 2]
            found.append(Decoded(None, digest, jpeg=arrays["jpeg"][first:last].tobytes()))
        else:
            # Of originals nothing but the digest is kept.
            found.append(Decoded(arrays["pixels"][row] if "pixels" in arrays else _NO_PIXELS, digest))
    return found
