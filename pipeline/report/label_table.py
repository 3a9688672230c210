"""What became of the guessed label of every unlabelled image, as a CSV table for whoever wants to look at them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nstudent.errors import ConfigError
from nstudent.labels.store import ShardLabels
from nstudent.report.material import Material, Round
from nstudent.storage.files import atomic_file

TAUGHT, NOT_SURE, DROPPED = "taught", "not sure enough", "dropped by the filter"
"""What became of a label at a level that it names a class of."""
_DIGITS = 4
_COLUMNS = ("round", "image", "shown", "changed")


def write_label_table(run_dir: str | Path, out: Path) -> int:
    """Write the labels of the unlabelled images, a row for each image and round; returns the number of rows.

    The columns are ``round``, ``image``, ``shown`` (how often a student sees the image in each pass; 0: not at all),
    ``changed`` (``yes`` if the label is another one than a round before) and for each level ``LEVEL``, ``LEVEL
    probability`` and ``LEVEL used``, which is one of ``TAUGHT``, ``NOT_SURE`` and ``DROPPED``.

    Args:
        run_dir: Folder of a run, finished or not.
        out: File to make.

    Raises:
        ArtifactError: The folder is no run, a file of it is damaged, or the disk refuses the table.
        ConfigError: ``out`` is there or is no CSV file, no unlabelled image is labelled yet, or a level is called like
            another column.
    """
    if out.suffix != ".csv":
        raise ConfigError(f"{out}: write to a file whose name ends in .csv")
    if out.exists():
        raise ConfigError(f"{out} is there: remove it, or write to another file")
    material = Material.read(Path(run_dir))
    if not material.rounds:
        raise ConfigError(f"{run_dir}: no unlabelled image is labelled yet, or none is to be (rounds=0)")
    levels = material.images.taxonomy.levels
    header = [*_COLUMNS, *(f"{level}{of}" for level in levels for of in ("", " probability", " used"))]
    if twice := [name for name, times in Counter(header).items() if times > 1]:
        raise ConfigError(f"two columns would be called '{twice[0]}': rename that level")
    count = 0
    with atomic_file(out) as file:
        file.write(_csv([header]))
        before: Round | None = None
        for each in material.rounds:
            for rows in _rows(material, each, before):
                file.write(_csv(rows))
                count += len(rows)
            before = each
    return count


def _rows(material: Material, each: Round, before: Round | None) -> Iterator[list[list[Any]]]:
    """The rows of a round, shard by shard."""
    last = each.filtered or each.made
    known = _known(before, len(material.images.split), material.images.taxonomy.num_levels) if before else None
    for part in each.made.labels.parts():
        changed = (part.paths != known[part.images]).any(axis=1) if known is not None else None
        used = _used(part, each.made.keep[part.rows], last.keep[part.rows])
        yield [
            [
                each.number,
                material.images.name(int(image)),
                int(shown),
                "" if changed is None else ("yes" if changed[row] else "no"),
                *_of_levels(material, part, row, used[row]),
            ]
            for row, (image, shown) in enumerate(zip(part.images, last.copies[part.rows], strict=True))
        ]


def _known(before: Round, images: int, levels: int) -> npt.NDArray[np.int32]:
    """The labels of a round by the ids of the images, (images, levels)."""
    known = np.full((images, levels), -1, dtype=np.int32)
    for part in before.made.labels.parts():
        known[part.images] = part.paths
    return known


def _used(part: ShardLabels, sure: npt.NDArray[np.bool_], left: npt.NDArray[np.bool_]) -> npt.NDArray[np.str_]:
    """What became of the labels of a shard, (rows, levels); empty where a label names no class."""
    found = np.where(left, TAUGHT, np.where(sure, DROPPED, NOT_SURE))
    return np.where(part.paths >= 0, found, "")


def _of_levels(material: Material, part: ShardLabels, row: int, used: Iterable[str]) -> Iterator[Any]:
    """The cells of the levels of one image."""
    classes, path = material.images.taxonomy.classes, part.paths[row]
    for level, what in enumerate(used):
        named = path[level] >= 0
        yield classes[level][path[level]] if named else ""
        yield round(float(part.confidence[row, level]), _DIGITS) if named else ""
        yield str(what)


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    # File names need not be valid UTF-8.
    return text.getvalue().encode("utf-8", "backslashreplace")
