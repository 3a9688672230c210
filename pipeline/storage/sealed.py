"""Files that an unfinished step has finished, and that a later attempt takes over: each has its hash beside it.

A committed file has its hash in the manifest. Until then a seal stands in: an empty file in the scratch folder whose
name is the sha256 of what was written, made before the file has its name. A file without a seal that fits was
cut short, has rotted, or is of somebody else: it is dropped and made again.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from nstudent.errors import ArtifactError
from nstudent.storage.files import atomic_write, explained, make_folder, remove_file, sha256_of

SCRATCH = "scratch"
"""Folder of a partial step for its checkpoints and seals: removed when the step commits."""
WALKS = f"{SCRATCH}/walks"
"""Folder for what classifiers have said of images. It holds good also where the rest of a step begins anew."""
_SEALS = f"{SCRATCH}/sealed"


class SealedFiles:
    """The finished files of a partial step. Several processes may write them at once, also one file twice."""

    def __init__(self, partial: Path, say: Callable[[str], None] = lambda line: None) -> None:
        """Look into a partial folder; ``say`` is told of a file that has to be made again."""
        self._partial = partial
        self._seals = partial / _SEALS
        self._say = say

    def path(self, name: str) -> Path:
        """Where a file of the step lies, or would."""
        return self._partial / name

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the step, by its path in the partial folder, and its seal."""
        self.seal(name, hashlib.sha256(content).hexdigest())
        atomic_write(self._partial / name, content)

    def seal(self, name: str, sha256: str) -> None:
        """Say what a file is to hold. Two writers of one file may both say it."""
        make_folder(self._seals / name)
        atomic_write(self._seals / name / sha256, b"")

    def has(self, name: str) -> bool:
        """Whether a file is there and holds what was written. One that does not is removed, and so are its seals."""
        path = self._partial / name
        if not path.is_file():
            return False
        wanted = dict(self._sealed(name))
        if wanted and sha256_of(path) in wanted:
            return True
        self._say(f"  {path} is not what was written there: it is made again")
        self.drop(name)
        return False

    def leave_walks(self, mark: str) -> None:
        """Remove every file but those of ``WALKS``, their seals, and the one that says what the step is made for."""
        for path in self._partial.rglob("*"):
            name = path.relative_to(self._partial).as_posix()
            if not path.is_dir() and name != mark and not name.startswith((f"{WALKS}/", f"{_SEALS}/{WALKS}/")):
                remove_file(path)

    def drop(self, name: str) -> None:
        """Remove a file and its seals, where they are there."""
        with explained(self._partial / name, "remove"):
            (self._partial / name).unlink(missing_ok=True)
            for seal in dict(self._sealed(name)).values():
                seal.unlink(missing_ok=True)

    def check(self, name: str, sha256: str) -> None:
        """Hold what a file was found to hold now, when the step commits, against its seal if it has one.

        Raises:
            ArtifactError: It has changed since it was written; it is removed, so that it is made again.
        """
        wanted = dict(self._sealed(name))
        if wanted and sha256 not in wanted:
            self.drop(name)
            raise ArtifactError(
                f"{self._partial / name} has changed since it was written, and was removed: the same command makes it "
                "again; check the disk"
            )

    def _sealed(self, name: str) -> Iterator[tuple[str, Path]]:
        """(sha256, seal) of each seal of a file."""
        with contextlib.suppress(FileNotFoundError):
            for path in sorted((self._seals / name).iterdir()):
                if not path.name.startswith("."):
                    yield path.name, path
