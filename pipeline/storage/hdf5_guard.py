"""A guard for the one place where a damaged HDF5 file makes the library itself run for ever.

Texts of any length lie in "global heaps". HDF5 (2.0 and before) steps through a heap by the sizes written in it, and
takes no step at all where one of them is nothing: found by fuzzing. So the file is opened through this class, which
looks at each heap as it is read and raises before HDF5 gets to see it. Layout: HDF5 File Format Specification 3.0,
section III.E; sizes of 8 bytes are assumed, and checked by ``hdf5``.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_SIGNATURE = b"GCOL"
_HEADER_BYTES = 16
_OBJECT_BYTES = 16
_SMALLEST_BYTES = 4096


class HeapGuard(io.FileIO):
    """A file for reading that refuses damaged heaps with an ``OSError``."""

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        """Read as any file does, after a look at what would be read."""
        position, view = self.tell(), memoryview(buffer)
        # Some bytes more on both sides: a signature may lie across the ends of two reads.
        more = len(_SIGNATURE) - 1
        first = max(0, position - more)
        content = self._bytes(first, position + view.nbytes + more - first)
        found = content.find(_SIGNATURE)
        while found >= 0:
            self._check(first + found)
            found = content.find(_SIGNATURE, found + 1)
        self.seek(position)
        return super().readinto(view)

    def _bytes(self, at: int, count: int) -> bytes:
        self.seek(at)
        return self.read(count)

    def _check(self, at: int) -> None:
        size = int.from_bytes(self._bytes(at + 8, 8), "little")
        if not _SMALLEST_BYTES <= size <= self.seek(0, io.SEEK_END) - at:
            raise OSError("a heap of texts is longer than the file, or too short")
        heap = self._bytes(at, size)
        position = _HEADER_BYTES
        while size - position >= _OBJECT_BYTES:
            index = int.from_bytes(heap[position : position + 2], "little")
            length = int.from_bytes(heap[position + 8 : position + 16], "little")
            # Number 0 is the free space at the end, whose length includes its header; others are padded to 8 bytes.
            step = length if index == 0 else _OBJECT_BYTES + (length + 7) // 8 * 8
            if not _OBJECT_BYTES <= step <= size - position:
                raise OSError("a heap of texts is damaged")
            position += step
