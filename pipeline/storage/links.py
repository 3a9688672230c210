"""Links in the folder of a run: each is refused, for a stranger may have made it, and it leads elsewhere."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from nstudent.errors import ArtifactError

LINK = "a link to somewhere else"
_STEP = re.compile(r"\d{2,}-[a-z]+(\.partial|\.before)?")
"""Names of the folders of a run that hold a step."""


def links_below(folder: Path) -> Iterator[str]:
    """Every link to a file or a folder below ``folder``, by its path there, at any depth. None is followed."""
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                path = Path(entry.path)
                if path.is_symlink():
                    yield path.relative_to(folder).as_posix()
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(path)


def links_of_run(run_dir: Path, own_files: Iterable[str] = ()) -> Iterator[str]:
    """Every link in a run folder that stands in place of something of the run, by its path there.

    What else a person keeps in that folder is not looked at.

    Args:
        run_dir: The run folder. It may be a link itself: the person who names it knows where it leads.
        own_files: Names of the files beside the steps that belong to the run.
    """
    for name in own_files:
        if (run_dir / name).is_symlink():
            yield name
    for path in sorted(run_dir.iterdir()) if run_dir.is_dir() else ():
        if not _STEP.fullmatch(path.name):
            continue
        if path.is_symlink():
            yield path.name
        elif path.is_dir():
            yield from (f"{path.name}/{name}" for name in links_below(path))


def refuse_links(folder: Path, links: Iterable[str]) -> None:
    """Refuse the first of some links.

    Raises:
        ArtifactError: There is one.
    """
    first = next(iter(links), None)
    if first is not None:
        raise ArtifactError(f"{folder / first} is {LINK}: put the file or folder itself there")


def is_behind_link(folder: Path, name: str) -> bool:
    """Whether the way to a file, from ``folder`` on, leads through a link."""
    places = [folder]
    for part in name.split("/"):
        places.append(places[-1] / part)
    return any(place.is_symlink() for place in places)
