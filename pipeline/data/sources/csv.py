"""A table with a path and one column a level; ``-`` is absent, an empty cell unknown, a column ``split`` optional."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from nstudent.config.schema import DataConfig
from nstudent.data.sources.csv_files import Files
from nstudent.data.sources.csv_table import Columns, SplitWatch, read_header, rows
from nstudent.data.sources.folder import heap_records, passed_over_in_heap
from nstudent.data.sources.listing import Listing, list_folder
from nstudent.data.sources.seen import Seen, seen_files
from nstudent.data.sources.source import (
    SPLITS,
    Catalogue,
    Label,
    Record,
    Split,
    existing,
    printable,
    read_file,
)
from nstudent.data.sources.splits import ambiguous_split, split_named
from nstudent.errors import DataError
from nstudent.taxonomy.spelling import spelled

_NOTHING = frozenset(
    {
        *("nan", "-nan", "nat", "na", "n/a", "#n/a", "#na", "<na>", "null", "none", "nil"),
        *("#ref!", "#value!", "#name?", "#div/0!", "#num!", "#null!"),
    }
)
"""What programs write where they have no value, in lower case. As a class name it would be learnt like any other."""


class Table:
    """Images named by the rows of a CSV file."""

    encoded = True

    def __init__(self, root: Path, table: Path, config: DataConfig) -> None:
        self._root = root
        self._table = table
        self._config = config
        self._tree_is_given = config.taxonomy is not None
        more = config.unlabelled_root
        self._unlabelled_root = existing(more, "data.unlabelled_root", folder=True) if more is not None else None
        self._files: list[tuple[Path, str]] = []
        self._located = Files(root)
        self._labels: dict[Label, Label] = {}

    def seen(self) -> Seen:
        """The table, and names, sizes and times of change of the files that its rows name, and of the heap."""
        heap = self._heap(set())
        of_heap = [(heap.root, heap.images)] if heap is not None else []
        return seen_files((self._root, self._named_files()), *of_heap, tables=[self._table])

    def catalogue(self) -> Catalogue:
        """One image a row, then those of the unlabelled folder.

        Raises:
            DataError: The table has no row, or one that does not fit its header, names no file below the root, or
                repeats an image.
        """
        self._files = []
        lines = rows(self._table)
        _, header = next(lines, (0, []))
        columns = read_header(header, self._config, self._table)
        records = list(self._rows(lines, columns))
        if not records:
            raise DataError(f"{self._table} has no row below its header")
        heap = self._heap({path for _, path in self._files})
        if heap is not None:
            heap.refuse_linked_folders()
            records += heap_records(heap, len(columns.levels))
            self._files += [(heap.root, name) for name in heap.images]
        passed_over = passed_over_in_heap(heap) if heap is not None else ()
        return Catalogue(records, columns.level_names, passed_over, self._notes(columns))

    def may_have_heap(self) -> bool:
        """Whether a row says so, or names no class at any level."""
        with suppress(DataError, IndexError):
            lines = rows(self._table)
            _, header = next(lines, (0, []))
            columns = read_header(header, self._config, self._table)
            split = columns.split
            return any(
                (split is not None and split_named(spelled(cells[split])) == "unlabelled")
                or not any(spelled(cells[level]) for level in columns.levels)
                for _, cells in lines
            )
        return True

    def read(self, index: int) -> bytes:
        """Encoded bytes."""
        root, path = self._files[index]
        return read_file(root / path, root)

    def _heap(self, named: set[str]) -> Listing | None:
        """What lies in the unlabelled folder, less the files that rows of the table name: it may be the same folder."""
        if self._unlabelled_root is None:
            return None
        found = list_folder(self._unlabelled_root)
        real, table = os.path.realpath(found.root), os.path.realpath(self._table)
        images = [name for name in found.images if os.path.join(real, name) not in named]
        others = [each for each in found.passed_over if os.path.join(real, each.name) != table]
        return replace(found, images=images, passed_over=others)

    def _named_files(self) -> Iterator[str]:
        """Paths of the images, as far as the table can be read; ``catalogue`` says what cannot."""
        with suppress(DataError):
            lines = rows(self._table)
            _, header = next(lines, (0, []))
            path = read_header(header, self._config, self._table).path
            for number, cells in lines:
                name = cells[path] if path < len(cells) else ""
                try:
                    yield self._located.below_root(self._located.located(name, f"line {number}")[0])
                except DataError:
                    yield name.replace("\0", "")

    def _rows(self, lines: Iterator[tuple[int, list[str]]], columns: Columns) -> Iterator[Record]:
        seen: dict[str, tuple[int, Label]] = {}
        watch = SplitWatch(columns, self._table)
        for number, row in lines:
            where = f"{printable(self._table)} line {number}"
            cells = columns.cells(row, where)
            watch.see(cells)
            path, name = self._located.located(cells[columns.path], where)
            entries = tuple(cells[i].strip() for i in columns.levels)
            label = self._labels.setdefault(entries, entries)
            self._check_label(label, columns.level_names, where)
            first, before = seen.setdefault(path, (number, label))
            if first != number:
                labels = f", labelled {'/'.join(before)} there and {'/'.join(label)} here" if label != before else ""
                raise DataError(
                    f"{where}: {printable(name)} already stands in line {first}{printable(labels)}: keep one"
                )
            self._files.append((self._root, path))
            yield Record(name, label, _split(cells[columns.split], where) if columns.split is not None else None)
        watch.check()

    def _check_label(self, label: Label, levels: tuple[str, ...], where: str) -> None:
        for level, entry in zip(levels, label, strict=True):
            if not self._tree_is_given and spelled(entry).lower() in _NOTHING:
                raise DataError(
                    f"{where}: '{printable(entry)}' in column {level} is no class: leave the cell empty where nobody "
                    "said, write - where there is none, or name it in data.taxonomy if it is a class"
                )

    def _notes(self, columns: Columns) -> tuple[str, ...]:
        notes = (
            []
            if self._config.levels
            else [f"data.levels=[{', '.join(columns.level_names)}], by the columns of the table"]
        )
        unused = [f"'{printable(name)}'" for name in columns.unused.values() if name]
        if unused:
            notes.append(f"columns of the table that are not used: {', '.join(unused)}")
        return tuple(notes)


def _split(cell: str, where: str) -> Split | None:
    text = spelled(cell)
    split = split_named(text)
    if split is None and text:
        meant = ambiguous_split(text)
        hint = f": write {meant}" if meant else ""
        raise DataError(f"{where}: split '{printable(text)}' is none of {', '.join(SPLITS)}{hint}")
    return split


def open_source(config: DataConfig) -> Table:
    """Check that the folder and the table are there."""
    root = existing(config.root, "data.root", folder=True)
    return Table(root, existing(str(root / str(config.table)), "data.table"), config)
