"""A table with a path and one column a level; ``-`` is absent, an empty cell unknown, a column ``split`` optional."""

import csv
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from nstudent.config.schema import DataConfig
from nstudent.data.sources.source import (
    SPLITS,
    Record,
    existing,
    images_below,
    printable,
    read_file,
    refuse_linked_folders,
    stamp_files,
)
from nstudent.errors import DataError
from nstudent.taxonomy.reading import UNKNOWN_ENTRY

_NOTHING = frozenset({"nan", "NaN", "NAN", "<NA>", "#N/A", "N/A", "null", "NULL", "None"})
"""What programs write where they have no value. As a class name it would be learnt like any other."""

Label = tuple[str, ...]


class Table:
    """Images named by the rows of a CSV file."""

    encoded = True

    def __init__(self, root: Path, table: Path, config: DataConfig) -> None:
        self._root = root
        self._table = table
        self._levels = config.levels
        self._tree_is_given = config.taxonomy is not None
        more = config.unlabelled_root
        self._unlabelled_root = existing(more, "data.unlabelled_root", folder=True) if more is not None else None
        self._files: list[tuple[Path, str]] = []
        # A million rows name a few thousand folders and labels: each is resolved, and kept, once.
        self._real_folders: dict[str, str] = {}
        self._labels: dict[Label, Label] = {}

    def stamp(self) -> str:
        """The table, and names, sizes and times of change of the images."""
        stamps = [
            stamp_files(self._table.parent, [self._table]),
            stamp_files(self._root, images_below(self._root)),
        ]
        if self._unlabelled_root is not None:
            stamps.append(stamp_files(self._unlabelled_root, images_below(self._unlabelled_root)))
        return " ".join(stamps)

    def records(self) -> list[Record]:
        """One image a row, then those of the unlabelled folder.

        Raises:
            DataError: The table has no row, or one that does not fit its header, names no file below the root, or
                repeats an image.
        """
        records = list(self._rows())
        if not records:
            raise DataError(f"{self._table} has no row below its header")
        if self._unlabelled_root is not None:
            refuse_linked_folders(self._unlabelled_root)
            for path in images_below(self._unlabelled_root):
                name = f"unlabelled:{path.relative_to(self._unlabelled_root).as_posix()}"
                records.append(Record(name, (UNKNOWN_ENTRY,) * len(self._levels), "unlabelled"))
                self._files.append((self._unlabelled_root, str(path)))
        return records

    def read(self, index: int) -> bytes:
        """Encoded bytes."""
        root, path = self._files[index]
        return read_file(path, root)

    def _rows(self) -> Iterator[Record]:
        seen: dict[str, tuple[int, Label]] = {}
        try:
            # utf-8-sig: a spreadsheet's byte-order mark would otherwise become part of the first column's name.
            with open(self._table, encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, strict=True)
                header = [cell.strip() for cell in next(reader, [])]
                self._check_header(header)
                columns = [header.index(name) for name in ("path", *self._levels)]
                split = header.index("split") if "split" in header else None
                for cells in reader:
                    if cells:
                        where = f"{printable(self._table)} line {reader.line_num}"
                        if len(cells) != len(header):
                            raise DataError(f"{where}: {len(cells)} fields, the header has {len(header)}")
                        part = cells[split].strip() if split is not None else ""
                        yield self._record([cells[i].strip() for i in columns], part, where, seen, reader.line_num)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{printable(self._table)} is not a readable CSV table: {error}") from error
        except OSError as error:
            raise DataError(f"cannot read {printable(self._table)}: {error.strerror}") from error

    def _check_header(self, header: list[str]) -> None:
        table, spelled = printable(self._table), printable(", ".join(header)[:200])
        name, times = Counter(header).most_common(1)[0] if header else ("", 0)
        if times > 1:
            raise DataError(f"{table} has the column '{printable(name)}' twice: rename one")
        missing = [name for name in ("path", *self._levels) if name not in header]
        if not missing:
            return
        separators = [word for mark, word in (("\t", "tabs"), (";", "semicolons")) if mark in "".join(header)]
        if separators and len(header) == 1:
            raise DataError(f"{table} separates its columns by {separators[0]}: save it with commas")
        message = f"{table} has no column {', '.join(missing)}: its header is {spelled}"
        similar = {other.lower(): other for other in header}.get(missing[0].lower())
        raise DataError(f"{message}. Write '{similar}' as '{missing[0]}'" if similar else message)

    def _record(
        self, cells: list[str], split: str, where: str, seen: dict[str, tuple[int, Label]], line: int
    ) -> Record:
        name, *entries = cells
        path = self._located(name, where)
        label = self._labels.setdefault(tuple(entries), tuple(entries))
        self._check_label(label, where)
        first, before = seen.setdefault(path, (line, label))
        if first != line:
            labels = f", labelled {'/'.join(before)} there and {'/'.join(label)} here" if label != before else ""
            raise DataError(f"{where}: {printable(name)} already stands in line {first}{printable(labels)}: keep one")
        self._files.append((self._root, path))
        for part in SPLITS:
            if part == split:
                return Record(name, label, part)
        if split:
            raise DataError(f"{where}: split '{printable(split)}' is none of {', '.join(SPLITS)}")
        return Record(name, label)

    def _check_label(self, label: Label, where: str) -> None:
        for level, entry in zip(self._levels, label, strict=True):
            if entry in _NOTHING and not self._tree_is_given:
                raise DataError(
                    f"{where}: '{entry}' in column {level} is no class: leave the cell empty where nobody said, "
                    "write - where there is none, or name it in data.taxonomy if it is a class"
                )

    def _located(self, name: str, where: str) -> str:
        """The file that a row names, below the root and nowhere else."""
        if not name or "\0" in name:
            raise DataError(f"{where}: the path is empty or not a path")
        # The same letters may be spelled in two ways (é as one character or as e and an accent), and names on disk
        # follow the system that wrote them.
        found = None
        for spelling in dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))):
            folder, leaf = os.path.split(spelling)
            path = os.path.join(self._real_folder(folder), leaf)
            try:
                found = path, os.lstat(path).st_mode
                break
            except OSError as error:
                said = error.strerror
        real = os.path.realpath(path) if found is None or not stat.S_ISREG(found[1]) else path
        root = self._real_folder("")
        if real != root and not real.startswith(root.rstrip(os.sep) + os.sep):
            raise DataError(f"{where}: {printable(name)} leads out of {printable(self._root)}: refused")
        if found is None:
            raise DataError(f"{where}: there is no file {printable(name)} in {printable(self._root)} ({said})")
        if not os.path.isfile(real):
            raise DataError(f"{where}: {printable(name)} is not a file")
        return path

    def _real_folder(self, folder: str) -> str:
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(os.path.join(self._root, folder))
        return self._real_folders[folder]


def open_source(config: DataConfig) -> Table:
    """Check that the folder and the table are there."""
    root = existing(config.root, "data.root", folder=True)
    return Table(root, existing(str(root / str(config.table)), "data.table"), config)
