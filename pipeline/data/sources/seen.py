"""What a source looks like on disk, without reading an image: whether it has changed since, and how."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

FileSeen = tuple[int, int]
"""Size in bytes and time of change in nanoseconds; (-1, 0): a link to nothing."""
_NOTHING: FileSeen = (-1, 0)


@dataclass(frozen=True)
class Seen:
    """The files that a source reads: a path below its folder each, so that the source is the same elsewhere."""

    content: str = ""
    """Identity of what is known by its content: the version of a library, the id of a pack, the hash of a table."""
    files: Mapping[str, FileSeen] = field(default_factory=dict)
    """Size and time of change of every other file, by its path; the paths of a second folder begin with ``2:``."""
    folders: tuple[tuple[Path, int], ...] = field(default=(), compare=False, repr=False)
    """Where the files lie now: each folder, and the number of files up to its last one."""

    @property
    def stamp(self) -> str:
        """All of it as one hash, or the identity alone if there is nothing else."""
        if not self.files:
            return self.content
        digest = hashlib.sha256(self.content.encode())
        for name, (size, time) in self.files.items():
            digest.update(f"{name}\0{size}\0{time}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def paths(self) -> Iterator[tuple[str, Path]]:
        """Each file by its path below its folder, and where it lies now."""
        names = iter(self.files)
        first = 0
        for number, (folder, last) in enumerate(self.folders):
            for name in islice(names, last - first):
                yield name, folder / (name.removeprefix(f"{number + 1}:") if number else name)
            first = last

    def touched(self, before: "Seen") -> list[str] | None:
        """Files that differ in their time alone from what they were; ``None`` if anything else has changed."""
        if self.content != before.content or list(self.files) != list(before.files):
            return None
        differing = [name for name, found in self.files.items() if found != before.files[name]]
        return None if any(self.files[name][0] != before.files[name][0] for name in differing) else differing

    def difference(self, before: "Seen") -> str:
        """How it differs from what it was before, in words; empty if it does not."""
        new = len(self.files.keys() - before.files.keys())
        gone = len(before.files.keys() - self.files.keys())
        both = [(self.files[name], before.files[name]) for name in self.files.keys() & before.files.keys()]
        changed = sum(now[0] != then[0] for now, then in both)
        touched = sum(now != then for now, then in both) - changed
        counts = [(new, "new"), (gone, "gone"), (changed, "changed"), (touched, "of another time")]
        said = [f"{count:,} {what}" for count, what in counts if count]
        if said:
            number, _, what = said[0].partition(" ")
            said[0] = f"{number} {what} {'file' if number == '1' else 'files'}"
            if what in ("changed", "of another time", "gone"):
                said[0] = f"{number} {'file' if number == '1' else 'files'} {what}"
        if self.content != before.content:
            said.insert(0, "its table has changed" if self.files else "it holds something else")
        return ", ".join(said)


def seen_files(*groups: tuple[Path, Iterable[str]], tables: Sequence[Path] = ()) -> Seen:
    """What some files look like: a stat a file.

    Args:
        groups: Folders, and the paths of files below each.
        tables: Small files that count by their content, wherever they lie and whenever they were written.
    """
    files: dict[str, FileSeen] = {}
    folders: list[tuple[Path, int]] = []
    for number, (root, names) in enumerate(groups):
        start = f"{number + 1}:" if number else ""
        for name in names:
            try:
                found = os.stat(root / name)
                files[start + name] = (found.st_size, found.st_mtime_ns)
            except OSError:
                files[start + name] = _NOTHING
        folders.append((root, len(files)))
    content = " ".join(_sha256(table) for table in tables)
    return Seen(content, files, tuple(folders))


def _sha256(table: Path) -> str:
    with open(table, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
