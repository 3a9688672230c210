"""A table with a path and one column a level; ``-`` is absent, an empty cell unknown, a column ``split`` optional."""

import csv
from collections.abc import Iterator
from pathlib import Path

from nstudent.config import DataConfig
from nstudent.data.sources.source import SPLITS, Record, existing, images_below, read_file, stamp_files
from nstudent.errors import DataError
from nstudent.taxonomy import UNKNOWN_ENTRY


class Table:
    """Images named by the rows of a CSV file."""

    def __init__(self, root: Path, table: Path, unlabelled_root: Path | None, levels: tuple[str, ...]) -> None:
        self._root = root
        self._table = table
        self._unlabelled_root = unlabelled_root
        self._levels = levels
        self._files: list[Path] = []

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
        """One image a row, then those of the unlabelled folder."""
        records = list(self._rows())
        if not records:
            raise DataError(f"{self._table} has no row below its header")
        if self._unlabelled_root is not None:
            for path in images_below(self._unlabelled_root):
                name = f"unlabelled:{path.relative_to(self._unlabelled_root).as_posix()}"
                records.append(Record(name, (UNKNOWN_ENTRY,) * len(self._levels), "unlabelled"))
                self._files.append(path)
        return records

    def read(self, index: int) -> bytes:
        """Encoded bytes."""
        return read_file(self._files[index])

    def _rows(self) -> Iterator[Record]:
        seen: dict[str, int] = {}
        try:
            # utf-8-sig: a spreadsheet's byte-order mark would otherwise become part of the first column's name.
            with open(self._table, encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, strict=True)
                header = [cell.strip() for cell in next(reader, [])]
                self._check_header(header)
                for cells in reader:
                    if cells:
                        yield self._record(header, cells, f"{self._table} line {reader.line_num}", seen)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{self._table} is not a readable CSV table: {error}") from error

    def _check_header(self, header: list[str]) -> None:
        twice = [name for name in header if header.count(name) > 1]
        if twice:
            raise DataError(f"{self._table} has the column '{twice[0]}' twice: rename one")
        missing = [name for name in ("path", *self._levels) if name not in header]
        if missing:
            raise DataError(
                f"{self._table} has no column {', '.join(missing)}: its header is {', '.join(header)[:200]}"
            )

    def _record(self, header: list[str], cells: list[str], where: str, seen: dict[str, int]) -> Record:
        if len(cells) != len(header):
            raise DataError(f"{where}: {len(cells)} fields, the header has {len(header)}")
        row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        name = row["path"]
        if name in seen:
            raise DataError(f"{where}: {name} already stands in row {seen[name]}: keep one")
        seen[name] = len(seen) + 1
        self._files.append(self._inside(name, where))
        split = row.get("split") or None
        if split is not None and split not in SPLITS:
            raise DataError(f"{where}: split '{split}' is none of {', '.join(SPLITS)}")
        label = tuple(row[level] for level in self._levels)
        return Record(name, label, split)

    def _inside(self, name: str, where: str) -> Path:
        if not name or "\0" in name:
            raise DataError(f"{where}: the path is empty or not a path")
        path = self._root / name
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise DataError(f"{where}: {name} leads out of {self._root}: refused")
        if not path.is_file():
            raise DataError(f"{where}: there is no file {path}")
        return path


def open_source(config: DataConfig) -> Table:
    """Check that the folder and the table are there."""
    root = existing(config.root, "data.root", folder=True)
    table = existing(str(root / str(config.table)), "data.table")
    more = config.unlabelled_root
    unlabelled = existing(more, "data.unlabelled_root", folder=True) if more is not None else None
    return Table(root, table, unlabelled, config.levels)
