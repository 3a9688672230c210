"""A file of predictions for any number of images, made in parts, so that an interrupted command goes on."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from nstudent.answers.tables import Format
from nstudent.classifier import Prediction
from nstudent.data.given_images import NamedImage
from nstudent.data.sources.source import read_once
from nstudent.errors import ConfigError
from nstudent.progress import Task
from nstudent.session import Session
from nstudent.storage.files import (
    atomic_file,
    atomic_write,
    make_folder,
    read_json,
    remove_folder,
    write_json,
)
from nstudent.storage.lock import hold

Label = Callable[[Iterator[NamedImage]], Iterator[Prediction]]
"""What labels images, one after the other."""

_PART = re.compile(r"part-(\d{12})-(\d{12})-(\d+)")
"""First image, the image behind the last one, and number of images that could not be read."""
_ASKED, _IMAGES = "asked.json", "images.txt"
_MOST_IMAGES, _MOST_SECONDS = 4096, 30.0
"""A part is written when it has so many images, or after so many seconds."""


@dataclass(frozen=True)
class Made:
    """What a file of predictions holds."""

    images: int
    unreadable: int


class LabelledFile:
    """A file of predictions, and the folder ``FILE.parts`` beside it while it is made."""

    def __init__(self, out: Path, form: Format, asked: dict[str, Any]) -> None:
        """Name the file.

        Args:
            out: The file.
            form: How rows are written.
            asked: Whatever decides the answers for an image; parts that were made for something else are not used.

        Raises:
            ConfigError: The file is there.
        """
        if out.exists():
            raise ConfigError(f"{out} is there already: remove it, or write to another file")
        self._out, self._form, self._asked = out, form, asked
        self._folder = out.with_name(f"{out.name}.parts")

    def make(self, images: Iterable[str], label: Label, session: Session) -> Made:
        """Label all images, and write the file.

        Args:
            images: Paths; they are read once, and kept in a file.
            label: What labels some of them, in their order.
            session: Is told how far it is, and asked whether to go on.

        Raises:
            ConfigError: The parts that are there were made for other images or in another way.
            StoppedError: Somebody asked to stop; what was labelled is kept.
        """
        make_folder(self._folder)
        with hold(self._folder):
            count, digest = self._keep(images)
            self._compare({**self._asked, "images": digest})
            parts = self._parts()
            with session.progress.task("predict", count, "images", parts[-1][1] if parts else 0) as task:
                self._label(label, session, task)
            parts = self._parts()
            with atomic_file(self._out) as file:
                self._form.join([path for _, _, _, path in parts], file)
        remove_folder(self._folder)
        return Made(count, sum(unreadable for _, _, unreadable, _ in parts))

    def _keep(self, images: Iterable[str]) -> tuple[int, str]:
        """Write the paths into the folder; returns their number and their hash."""
        count, digest = 0, hashlib.sha256()
        with atomic_file(self._folder / _IMAGES) as file:
            for image in images:
                # JSON, since a path may hold a line end.
                line = (json.dumps(image) + "\n").encode()
                file.write(line)
                digest.update(line)
                count += 1
        return count, digest.hexdigest()

    def _compare(self, asked: dict[str, Any]) -> None:
        path = self._folder / _ASKED
        if not path.exists():
            write_json(path, asked)
        elif (before := read_json(path)) != asked:
            changed = [key for key in asked if not isinstance(before, dict) or before.get(key) != asked[key]]
            raise ConfigError(
                f"{self._folder} holds unfinished work with other {' and '.join(changed)}: remove that folder to begin "
                "anew, or ask for the same again to go on"
            )

    def _parts(self) -> list[tuple[int, int, int, Path]]:
        """First image, image behind the last one, number of unreadable ones, and path of each part that is there."""
        names = ((path, _PART.fullmatch(path.stem)) for path in self._folder.iterdir())
        found = sorted((int(m[1]), int(m[2]), int(m[3]), path) for path, m in names if m)
        for before, part in zip([(0, 0), *((first, last) for first, last, _, _ in found)], found, strict=False):
            if part[0] != before[1]:
                raise ConfigError(f"{self._folder} lacks a part before {part[3].name}: remove that folder")
        return found

    def _left(self, done: int) -> Iterator[NamedImage]:
        """The images behind the first ``done`` ones."""
        with open(self._folder / _IMAGES, "rb") as lines:
            for line in islice(lines, done, None):
                path = json.loads(line)
                yield NamedImage(path, partial(read_once, path))

    def _label(self, label: Label, session: Session, task: Task) -> None:
        parts = self._parts()
        first = parts[-1][1] if parts else 0
        rows: list[Prediction] = []
        began = time.monotonic()
        for prediction in label(self._left(first)):
            rows.append(prediction)
            task.advance(1)
            late = time.monotonic() - began >= _MOST_SECONDS
            if session.stop.is_noted or late or len(rows) >= _MOST_IMAGES:
                first, rows, began = self._write(first, rows), [], time.monotonic()
                session.stop.check()
        if rows:
            self._write(first, rows)

    def _write(self, first: int, rows: list[Prediction]) -> int:
        """Write a part; returns the number of the image behind its last one."""
        last = first + len(rows)
        unreadable = sum(row.error is not None for row in rows)
        name = f"part-{first:012d}-{last:012d}-{unreadable}{self._out.suffix}"
        atomic_write(self._folder / name, self._form.part(rows))
        return last
