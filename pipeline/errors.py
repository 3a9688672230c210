"""Errors a person can mend: each message names the thing that is wrong and what would put it right."""


class NstudentError(Exception):
    """Base of every error that is about the user's input or machine and not about our code."""


class ConfigError(NstudentError):
    """A configuration page, an override, or a combination of keys that cannot be used."""


class DataError(NstudentError):
    """Images, labels or a taxonomy that cannot be used as they are."""


class ImageError(DataError):
    """One image that cannot be decoded; it is quarantined, and the run goes on."""


class ArtifactError(NstudentError):
    """A run folder or a file in it that is missing, damaged, or made for something else."""


class TrainingError(NstudentError):
    """Training that cannot lead anywhere: a loss that is not finite, a teacher no better than chance."""


class BusyError(NstudentError):
    """Another process holds the run folder."""


class StoppedError(NstudentError):
    """Somebody asked the run to stop (SIGTERM, Ctrl-C); what it was doing is on disk, and the same call goes on."""
