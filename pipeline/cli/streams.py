"""Standard output and error that may be closed, full, in ASCII, or read by somebody who has left: no run ends by that.

What a run makes lies in its folder, and its log is not worth ending it for.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TextIO

_PLAIN = {"±": "+-", "…": "...", "—": "-", "–": "-", "×": "x", "━": "-", "╸": "-", "╺": "-", "→": ">"}
"""What stands for characters of ours where a stream has none."""


class LenientStream(io.TextIOBase):
    """A stream that writes what it can; after an error of the system it drops all that comes.

    It has no ``buffer`` on purpose: nobody is to write past it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """Write to a stream; ``None``: it was closed before there was anything to write."""
        self._stream = stream
        self.failure: OSError | None = None
        """Why it writes no more; ``None`` if it does, or was closed from the beginning."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As of the stream behind it."""
        return (self._stream.encoding if self._stream is not None else None) or "utf-8"

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        with suppress(ValueError, OSError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """As of the stream behind it."""
        if self._stream is None:
            raise OSError(errno.EBADF, "closed")
        return self._stream.fileno()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Write, in other characters where there is no other way; returns the number of characters that were given."""
        if not isinstance(text, str):
            raise TypeError(f"text is written here, not {type(text).__name__}")
        self._do(lambda stream: stream.write(self._possible(text, stream)))
        return len(text)

    def flush(self) -> None:
        """Flush what was written."""
        self._do(lambda stream: stream.flush())

    def _do(self, what: Callable[[TextIO], object]) -> None:
        if self.failure is not None or self._stream is None:
            return
        try:
            what(self._stream)
        except OSError as error:
            self.failure = error
            # What still waits in its buffer would raise again when Python ends.
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def _possible(self, text: str, stream: TextIO) -> str:
        """The text, as far as the encoding of the stream has its characters; others as they are written without."""
        try:
            text.encode(self.encoding, stream.errors or "strict")
            return text
        except UnicodeEncodeError:
            return "".join(map(self._in_encoding, text))

    def _in_encoding(self, character: str) -> str:
        try:
            character.encode(self.encoding)
            return character
        except UnicodeEncodeError:
            return _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode()


@contextmanager
def lenient_streams() -> Iterator[None]:
    """Standard output and error as lenient streams, for the time of a ``with``."""
    _occupy()
    out, error = LenientStream(sys.stdout), LenientStream(sys.stderr)
    with redirect_stdout(out), redirect_stderr(error):
        try:
            yield
        finally:
            out.flush()
            error.flush()


def lost_output() -> str | None:
    """What to say of output that is lost, and why; ``None`` if none is, if nobody reads it, or it was closed before."""
    sys.stdout.flush()
    failure = sys.stdout.failure if isinstance(sys.stdout, LenientStream) else None
    if failure is None or failure.errno == errno.EPIPE:
        return None
    return (
        f"the output could not be written ({failure.strerror or failure}): with room for it, the same command gives it "
        "again"
    )


def _occupy() -> None:
    """Let no file that is opened take the number of a closed standard stream: what is printed would end up in it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
