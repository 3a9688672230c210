"""Images as a command line names them: files, folders, patterns, and lists on standard input."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from nstudent.data.sources.listing import images_below

LIST = "-"
"""Stands for a list on standard input, one path a line."""


def each_path(given: Iterable[str], listed: Iterable[str]) -> Iterator[str]:
    """The path of every image, in the order of what was given.

    A folder stands for all images below it and a pattern (``*``, ``?``, ``[...]``, ``**`` for any depth) for what it
    matches, sorted. ``**`` follows no link to a folder, which can lead in a circle. What exists under the very name of
    a pattern is that file. A path that is not there is passed on: it is an error of that image alone; so is a pattern
    that matches nothing, and a folder without images.

    Args:
        given: Paths, patterns, and ``-`` for ``listed``.
        listed: Lines that each are a path; empty lines are nothing.

    Raises:
        DataError: A folder cannot be listed.
    """
    for path in given:
        if path == LIST:
            for line in listed:
                if name := line.rstrip("\r\n"):
                    yield from _at(name)
        elif glob.has_magic(path) and not os.path.lexists(path):
            for name in sorted(_matching(path)) or [path]:
                # What ``**`` matches are folders, too, and their images stand among the other matches.
                if not ("**" in path and os.path.isdir(name)):
                    yield from _at(name)
        else:
            yield from _at(path)


def _matching(pattern: str) -> set[str]:
    """Paths that a pattern matches. Not ``glob`` alone, whose ``**`` follows links: two in a circle never end."""
    parts = pattern.replace(os.sep, "/").split("/")
    if "**" not in parts:
        return set(glob.iglob(pattern))
    at = parts.index("**")
    above, below = "/".join(parts[:at]) + "/" if at else "", parts[at + 1 :]
    found: set[str] = set()
    for top in glob.iglob(above) if above else [""]:
        for folder, inside, names in os.walk(top or os.curdir):
            inside[:] = [name for name in inside if name[0] != "."]
            place = folder if top else os.path.relpath(folder)
            place = "" if place == os.curdir else os.path.join(place, "")
            if below:
                found |= _matching(glob.escape(place) + "/".join(below))
            else:
                found.update(place + name for name in names if name[0] != ".")
    return found


def _at(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    found = images_below(Path(path))
    yield from map(str, found) if found else [path]
