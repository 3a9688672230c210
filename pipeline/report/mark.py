"""What a report was made from, as one hash that the page carries: a run that has not changed keeps its report."""

from __future__ import annotations

from pathlib import Path

from nstudent.storage.artifact import MANIFEST
from nstudent.storage.files import fingerprint_of, sha256_of

REPORT = "report.html"
_HEAD_BYTES = 2000
"""The mark stands within so many bytes from the beginning of a page."""
_VERSION = 1
"""Raised when the same run should give another page."""


def mark(run_dir: Path, scores: str, config: str) -> str:
    """Hash of what decides a report: the scores, which name all that they were made from, and the configuration.

    Args:
        run_dir: The run folder.
        scores: Name of the step that scored.
        config: Name of the file with the configuration.

    Raises:
        ArtifactError: One of them cannot be read.
    """
    files = [run_dir / scores / MANIFEST, run_dir / config]
    return fingerprint_of([_VERSION, *(sha256_of(path) for path in files)])


def is_current(run_dir: Path, found: str) -> bool:
    """Whether the report in a run folder carries this mark."""
    path = run_dir / REPORT
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return found.encode() in file.read(_HEAD_BYTES)
