"""From the path in a row of a table to a file below the root, and nowhere else."""

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from nstudent.data.sources.source import printable
from nstudent.errors import DataError
from nstudent.taxonomy.spelling import alike, spelled

_MOST_LISTED = 10_000
"""Files of a folder that are looked at for a name that is nearly the one that is missing."""


class Files:
    """Files below a root, by the paths that a table names them by. A million paths name a few thousand folders."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._real_folders: dict[str, str] = {}
        self._real_root = self._real_folder("")

    def located(self, name: str, where: str) -> tuple[str, str]:
        """(path of the file, its name below the root).

        A file that is a link is taken wherever it leads, as in a folder; the folders above it may not lead out.

        Raises:
            DataError: It is not there, not a file, or not below the root.
        """
        if not name.strip() or "\0" in name:
            raise DataError(f"{where}: the path is empty or not a path")
        reason = ""
        for spelling, shown in self._spellings(name):
            folder, leaf = os.path.split(spelling)
            real = self._real_folder(folder)
            path = os.path.join(real, leaf)
            try:
                mode = os.lstat(path).st_mode
            except OSError as error:
                reason = reason or str(error.strerror)
                continue
            is_file = stat.S_ISREG(mode)
            if not self._is_inside(real if is_file or stat.S_ISLNK(mode) else os.path.realpath(path)):
                raise self._leads_out(name, where)
            if not (is_file or os.path.isfile(path)):
                raise DataError(f"{where}: {printable(name)} is not a file")
            return path, shown
        if not self._is_inside(os.path.realpath(os.path.join(self._root, name.strip()))):
            raise self._leads_out(name, where)
        missing = f"{where}: there is no file {printable(name)} in {printable(self._root)} ({reason})"
        raise DataError(f"{missing}{self._meant(name.strip())}")

    def below_root(self, path: str) -> str:
        """A path that was ``located``, relative to the root: the same wherever the root lies."""
        return path[len(self._real_root.rstrip(os.sep)) + 1 :]

    def _spellings(self, name: str) -> Iterator[tuple[str, str]]:
        """Ways to read a path, each with the name that the image then has: as it is written comes first.

        The same letters may be spelled in two ways (é as one character or as e and an accent), and names on disk follow
        the system that wrote them; a table from Windows has backslashes; one that is made for one machine, whole paths.
        """
        plain = name.strip()
        if not os.path.isabs(plain):
            yield plain, plain
        for text in dict.fromkeys((plain, plain.replace("\\", "/"), name, spelled(name))):
            below = self._relative(text)
            shown = plain if below == plain else below
            for form in dict.fromkeys((below, *(unicodedata.normalize(form, below) for form in ("NFC", "NFD")))):
                yield form, shown

    def _relative(self, path: str) -> str:
        """An absolute path below the root as one that is relative to it; any other as it is."""
        if not os.path.isabs(path):
            return path
        for root in (os.path.abspath(self._root), self._real_root):
            if path.startswith(root.rstrip(os.sep) + os.sep):
                return os.path.relpath(path, root)
        return path

    def _leads_out(self, name: str, where: str) -> DataError:
        return DataError(f"{where}: {printable(name)} leads out of {printable(self._root)}: refused{self._meant(name)}")

    def _meant(self, name: str) -> str:
        """A file that is there and may be meant, as the end of a sentence; empty if there is none."""
        parts = [part for part in re.split(r"[\\/]", name) if part not in ("", ".", "..")]
        for first in range(1, len(parts)):
            shorter = "/".join(parts[first:])
            if len(shorter) < len(name) and os.path.isfile(self._root / shorter):
                return f". Write '{printable(shorter)}': paths are relative to data.root"
        folder, leaf = "/".join(parts[:-1]), parts[-1] if parts else ""
        try:
            with os.scandir(self._root / folder) as entries:
                names = [entry.name for entry in islice(entries, _MOST_LISTED)]
        except (OSError, ValueError):
            return ""
        stem = alike(os.path.splitext(leaf)[0])
        near = [other for other in sorted(names) if alike(other) == alike(leaf)]
        near += [other for other in sorted(names) if alike(os.path.splitext(other)[0]) in (stem, alike(leaf))]
        return f". Did you mean '{printable('/'.join([*parts[:-1], near[0]]))}'?" if near else ""

    def _is_inside(self, real: str) -> bool:
        return real == self._real_root or real.startswith(self._real_root.rstrip(os.sep) + os.sep)

    def _real_folder(self, folder: str) -> str:
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(os.path.join(self._root, folder))
        return self._real_folders[folder]
