"""Errors that a person can put right: each message names the thing that is wrong and the remedy."""

from collections.abc import Sequence

_MAX_CHARACTERS = 1_000


def one_line(text: str) -> str:
    """The text as a terminal may show it: one line of at most a thousand characters that steers nothing.

    Names of classes and files come from strangers. What cannot be printed (escape sequences, line ends, marks that
    turn the direction of writing, bytes that are no UTF-8) is written as its escape.
    """
    cut = text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def summary(error: BaseException, most: int = 200) -> str:
    """What an error of a library says, on one line of at most so many characters: its own lines can be hundreds."""
    return " ".join(str(error).split())[:most]


class NstudentError(Exception):
    """Base of every error that is about the user's input or machine and not about our code. Its text is one line."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class ConfigError(NstudentError):
    """A configuration page, an override, or a combination of keys that cannot be used."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        """Where there are several: one line each, below the message."""

    def __str__(self) -> str:
        return "\n  ".join([super().__str__(), *map(one_line, self.problems)])


class DataError(NstudentError):
    """Images, labels or a taxonomy that cannot be used as they are."""


class LevelsError(DataError):
    """A source has more levels than have usual names, and nobody named them."""

    def __init__(self, message: str, depth: int) -> None:
        super().__init__(message)
        self.depth = depth
        """Number of levels that the source has."""


class ImageError(DataError):
    """One image that cannot be decoded; it is quarantined, and the run goes on."""


class ArtifactError(NstudentError):
    """A run folder or a file in it that is missing, damaged, or made for something else."""


class TrainingError(NstudentError):
    """Training that cannot lead anywhere: a loss that is not finite, a teacher no better than chance."""


class RefusedError(TrainingError):
    """Training that the same settings end in the same way: what was done of it is of no use to others."""


class BusyError(NstudentError):
    """Another process holds the run folder."""


class StoppedError(NstudentError):
    """Somebody asked the run to stop (SIGTERM, Ctrl-C); what it was doing is on disk, and the same call goes on."""
