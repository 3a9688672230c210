"""What lies below a folder: images, and every file that is none of ours to read, with the reason.

Every source that reads a folder lists it here, and so does its stamp: they cannot disagree.
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from nstudent.data.sources.kinds import HEAD_BYTES, IMAGE_SUFFIXES, suffix_of, why_not, why_not_by_name
from nstudent.errors import DataError, one_line
from nstudent.taxonomy.spelling import alike

HIDDEN = "hidden"
_MACHINE_FOLDERS = frozenset(
    {
        # Thumbnails and bins of network drives, systems, archivers and editors. Names that a class could have stay out.
        *("@eadir", "@__thumb", "@tmp", "@recycle", "#recycle", "#snapshot", "~snapshot", "@recently-snapshot"),
        *("$recycle.bin", "system volume information", "lost+found", "found.000", "__macosx", "__pycache__"),
        *("network trash folder", "temporary items", "thefindbycontentfolder", "thevolumesettingsfolder"),
    }
)
_RUN_MARKS = frozenset({".lock", ".lock.mark", ".holder.json", "00-data", "00-data.partial"})
"""Beside its ``config.yaml`` a folder that is a run has one of these."""
_LOCK_FILES = frozenset({".lock", ".lock.mark", ".holder.json"})
"""What lies in the folder ``.NAME.lock`` beside a pack."""
_STEP = re.compile(r"\d\d-[a-z]+(\.partial|\.before)?")
_PACK = frozenset({"manifest.json", "records.h5", "info.json"})
_MOST_GROUPS = 6
"""Number of reasons that the line about files which were not taken spells out."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A file that was not taken, or a folder with all that lies below it."""

    name: str
    """Path below the listed folder."""
    reason: str
    """The group of files that it belongs to, in the plural."""
    files: int = 1
    """Number of files that it stands for."""


@dataclass(frozen=True)
class Listing:
    """What lies below a folder. All names are paths below it, with ``/``, in the order of their parts."""

    root: Path
    images: list[str] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    """Folders that were looked into."""
    linked_folders: list[str] = field(default_factory=list)
    """Links to folders, which are not followed: they can lead in a circle."""
    apart: list[str] = field(default_factory=list)
    """Folders that are no part of the data: those that the caller has set apart, and runs and packs of ours."""

    def refuse_linked_folders(self) -> None:
        """Refuse links to folders: what lies behind one would be lost in silence.

        Raises:
            DataError: There is one.
        """
        if self.linked_folders:
            link = one_line(str(self.root / self.linked_folders[0]))
            raise DataError(f"{link} is a link to a folder, and not followed: put the folder itself there")

    def empty_folders(self) -> Iterator[str]:
        """Folders below which there is no image, unless all that they hold was set apart."""
        occupied = {""}
        for name in (*self.images, *(f"{each}/" for each in self.apart)):
            folder = name.rpartition("/")[0]
            while folder not in occupied:
                occupied.add(folder)
                folder = folder.rpartition("/")[0]
        yield from (folder for folder in self.folders if folder not in occupied)


def list_folder(root: Path, apart: Iterable[str | Path] = ()) -> Listing:
    """List all that lies below a folder. Only files whose suffix says nothing are opened, for their first bytes.

    Whether a file that is named like an image is one is seen when it is read: a pipe or a dead link of that name is
    quarantined, not passed over.

    Args:
        root: The folder.
        apart: Folders that are no part of it, wherever they lie and by whichever links they are reached.

    Raises:
        DataError: A folder cannot be listed.
    """
    listing = Listing(root)
    real = {os.path.realpath(folder) for folder in apart} - {os.path.realpath(root)}
    # A stack, and not a function that calls itself: a tree may be deeper than Python's stack.
    first = _entries(root)
    steps_of_ours = _is_run({entry.name for entry in first})
    open_folders = [("", iter(first))]
    while open_folders:
        below, entries = open_folders[-1]
        entry = next(entries, None)
        if entry is None:
            open_folders.pop()
        elif not _is_folder(entry):
            _sort_file(listing, below, entry)
        elif _is_looked_into(listing, below, entry, real):
            inside = _entries(entry.path)
            name = below + entry.name
            step = steps_of_ours and not below and _STEP.fullmatch(entry.name) is not None
            if step or _is_ours(entry.name, {each.name for each in inside}):
                listing.apart.append(name)
            else:
                listing.folders.append(name)
                open_folders.append((f"{name}/", iter(inside)))
    return listing


def images_below(root: Path) -> list[Path]:
    """All images at any depth below a folder, in the order of their paths.

    Raises:
        DataError: A folder cannot be listed.
    """
    return [root / name for name in list_folder(root).images]


def summary_of(passed_over: Iterable[PassedOver]) -> str:
    """Files that were not taken, counted by reason, as part of a sentence; empty if there is none."""
    counts: Counter[str] = Counter()
    for each in passed_over:
        counts[each.reason] += each.files
    groups = [f"{count:,} {reason}" for reason, count in counts.most_common(_MOST_GROUPS)]
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(_MOST_GROUPS))
    return ", ".join([*groups, f"{rest:,} others"] if rest else groups)


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot list the folder {one_line(str(folder))}: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link to itself
        return entry.is_dir()
    return False


def _is_looked_into(listing: Listing, below: str, entry: os.DirEntry[str], apart: set[str]) -> bool:
    """Whether a folder is a part of the data; if not, it is noted why."""
    name = below + entry.name
    machine = alike(entry.name) in _MACHINE_FOLDERS
    if machine or entry.name[0] == ".":
        why = f"in {entry.name} (a folder of a machine)" if machine else HIDDEN
        files = 0 if _is_lock(entry) else _num_files(entry)
        listing.passed_over.extend([PassedOver(name, why, files)] if files else [])
    elif apart and os.path.realpath(entry.path) in apart:
        listing.apart.append(name)
    elif entry.is_symlink():
        listing.linked_folders.append(name)
    else:
        return True
    return False


def _is_lock(folder: os.DirEntry[str]) -> bool:
    """Whether a folder is the lock of a pack of ours, whose files come and go."""
    with suppress(OSError):
        return folder.name.endswith(".lock") and set(os.listdir(folder.path)) <= _LOCK_FILES
    return False


def _num_files(folder: os.DirEntry[str]) -> int:
    """Number of files below a folder that is passed over. What cannot be listed there counts as nothing."""
    return 1 if folder.is_symlink() else sum(len(names) for _, _, names in os.walk(folder.path))


def _is_run(inside: set[str]) -> bool:
    """Whether a folder that holds these names is a run of ours."""
    return "config.yaml" in inside and bool(inside & _RUN_MARKS)


def _is_ours(folder: str, inside: set[str]) -> bool:
    """Whether a folder is a run or a pack of ours, or is becoming one."""
    return _is_run(inside) or inside >= _PACK or (folder.endswith(".partial") and "asked.json" in inside)


def _sort_file(listing: Listing, below: str, entry: os.DirEntry[str]) -> None:
    name = below + entry.name
    if entry.name[0] == ".":
        why: str | None = HIDDEN
    elif suffix_of(entry.name) in IMAGE_SUFFIXES:
        why = None
    else:
        why = why_not_by_name(entry.name) or _why_not_by_content(entry)
    if why is None:
        listing.images.append(name)
    else:
        listing.passed_over.append(PassedOver(name, why))


def _why_not_by_content(entry: os.DirEntry[str]) -> str | None:
    try:
        found = entry.stat()
    except OSError:
        return "links to nothing"
    if not stat.S_ISREG(found.st_mode):
        return "pipes or devices"
    with suppress(OSError), open(entry.path, "rb") as file:
        return why_not(entry.name, file.read(HEAD_BYTES))
    return "files that cannot be read"
