"""The text of a table: its encoding, its rows, and which of its columns say what."""

import codecs
import csv
import difflib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nstudent.config.data import USUAL_LEVELS, DataConfig
from nstudent.data.sources.source import printable
from nstudent.data.sources.splits import says_membership, says_split, split_named
from nstudent.errors import DataError
from nstudent.taxonomy.spelling import alike, spelled

PATH, SPLIT = "path", "split"
"""Usual names of the columns of paths and splits."""
_KNOWN_LEVELS = tuple(dict.fromkeys(name for names in reversed(USUAL_LEVELS) for name in names))
PATH_WORDS = frozenset(
    {"paths", "file", "files", "filename", "filepath", "image", "images", "imagepath", "imagefile", "img"}
)
"""What other programs call the column of paths, without blanks and marks."""
_MARKS = (
    # UTF-32 before UTF-16: the mark of the one begins with that of the other.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ALIKE = 0.8
"""Similarity (``difflib``) from which a column's name is taken for a slip of one of ours that has no near words."""
_MOST_COLUMNS = 200
"""Columns whose names are compared with ours, where one is missing."""


def rows(table: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, cells) of each row of a table that holds more than blanks, the header first.

    UTF-8, or UTF-16 and UTF-32 with a byte-order mark, as spreadsheets write them.

    Raises:
        DataError: It cannot be read, is in another encoding, or is not CSV.
    """
    reader = None
    try:
        with open(table, "rb") as raw:
            start = raw.read(4)
        encoding = next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")
        if encoding == "utf-8" and b"\0" in start:
            raise UnicodeError("every other byte is zero")
        with open(table, encoding=encoding, newline="") as file:
            # A blank before a quote would otherwise make the quotes a part of the text.
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            for cells in reader:
                if any(map(str.strip, cells)) and not (reader.line_num == 1 and cells[0].startswith("sep=")):
                    yield reader.line_num, cells
    except UnicodeError as error:
        raise DataError(
            f"{printable(table)} is not a readable CSV table, for it is not in UTF-8 ({error}): save it as UTF-8 "
            "('CSV UTF-8' in a spreadsheet)"
        ) from error
    except csv.Error as error:
        near = f" near line {reader.line_num}" if reader is not None else ""
        raise DataError(f"{printable(table)} is not a readable CSV table: {error}{near}") from error
    except OSError as error:
        raise DataError(f"cannot read {printable(table)}: {error.strerror}") from error


@dataclass(frozen=True)
class Columns:
    """Which column of a table says what."""

    path: int
    levels: tuple[int, ...]
    """In the order of the names of the levels."""
    level_names: tuple[str, ...]
    split: int | None
    unused: dict[int, str]
    """Names of columns that are read by nobody; empty where there is none."""
    width: int
    """Number of columns."""

    def cells(self, row: Sequence[str], where: str) -> list[str]:
        """The cells of a row, as many as there are columns. Empty ones beyond the header are dropped.

        Raises:
            DataError: The row has too few or too many.
        """
        used = list(row)
        while len(used) > self.width and not used[-1].strip():
            used.pop()
        if len(used) != self.width:
            raise DataError(f"{where}: {len(row)} fields, the header has {self.width}")
        return used


def read_header(cells: Sequence[str], config: DataConfig, table: Path) -> Columns:
    """Find the columns by their names; a column that is nearly one of ours is refused, be it one we need or not.

    Args:
        cells: The first row.
        config: Names of the columns; of the levels, where it has none, those of the usual names that are there.
        table: For errors.

    Raises:
        DataError: A column is missing, stands twice, or is nearly one that we know.
    """
    header = [spelled(cell) for cell in cells]
    said = printable(table)
    name, times = Counter(filter(None, header)).most_common(1)[0] if any(header) else ("", 0)
    if times > 1:
        raise DataError(f"{said} has the column '{printable(name)}' twice: rename one")
    _refuse_other_separator(cells, said)
    path, split_name = spelled(config.path_column), spelled(config.split_column)
    _refuse_missing([path], header, said)
    named = config.levels if config.levels is not None else _levels_in(header, said, {path, split_name})
    wanted = [path, *map(spelled, named), *([split_name] if split_name != SPLIT else [])]
    _refuse_missing(wanted, header, said)
    used = {*wanted, split_name}
    unused = {i: name for i, name in enumerate(header) if name not in used}
    unheard = [SPLIT] if split_name not in header else []
    if config.levels is None:
        unheard += [column for column in _KNOWN_LEVELS if column not in header]
    for other in filter(None, unused.values()):
        if SPLIT in unheard and says_membership(other):
            raise DataError(
                f"{said} has a column '{printable(other)}', which says what is held out: make of it a column 'split' "
                "of train, validation and test, or give it another name"
            )
        known = _near(other, unheard)
        if known is not None:
            key = f", set data.split_column={printable(other)}" if known == SPLIT else ""
            raise DataError(
                f"{said} has a column '{printable(other)}': write it as '{known}'{key}, or give it another name"
            )
    levels = tuple(header.index(spelled(each)) for each in named)
    split = header.index(split_name) if split_name in header else None
    return Columns(header.index(path), levels, named, None if split in levels else split, unused, len(header))


def has_usual_levels(header: Sequence[str]) -> bool:
    """Whether the usual names of levels decide how a table is read: then other columns hold no classes."""
    return any(name in header for name in _KNOWN_LEVELS)


class SplitWatch:
    """Looks whether a column that nobody reads holds the splits: in a table that has no column of that name."""

    def __init__(self, columns: Columns, table: Path) -> None:
        self._table = table
        self._seen: dict[int, set[str]] = {}
        if columns.split is None:
            self._seen = {i: set() for i, name in columns.unused.items() if name}
        self._names = columns.unused

    def see(self, cells: Sequence[str]) -> None:
        """Look at a row."""
        for column in list(self._seen):
            text = cells[column].strip()
            if not text:
                continue
            if says_split(text):
                self._seen[column].add(split_named(text) or text)
            else:
                del self._seen[column]

    def check(self) -> None:
        """Refuse a table whose splits would not be heard.

        Raises:
            DataError: A column holds nothing but names of splits, and more than one of them.
        """
        for column, found in self._seen.items():
            if len(found) > 1:
                raise DataError(
                    f"{printable(self._table)} has names of splits ({', '.join(sorted(found))}) in the column "
                    f"'{printable(self._names[column])}': name it, data.split_column={printable(self._names[column])}, "
                    "or remove it"
                )


def _levels_in(header: Sequence[str], table: str, others: Collection[str]) -> tuple[str, ...]:
    found = [names for names in reversed(USUAL_LEVELS) if all(name in header for name in names)]
    known = [name for name in _KNOWN_LEVELS if name in header]
    if found and len(found[0]) == len(known):
        return found[0]
    if found:
        raise DataError(f"{table} has the columns {', '.join(known)}: say which are levels, data.levels=[...]")
    rest = [name for name in header[:_MOST_COLUMNS] if name and name not in others]
    near = {name: _near(name, _KNOWN_LEVELS) for name in rest}
    hint = next((f"write '{printable(name)}' as '{known}', or " for name, known in near.items() if known), "")
    raise DataError(
        f"{table} has no column {', '.join(USUAL_LEVELS[2])}, nor {' and '.join(USUAL_LEVELS[1])}, nor "
        f"{USUAL_LEVELS[0][0]}: its header is {printable(', '.join(header)[:200])}: {hint}name "
        f"its levels, data.levels=[{printable(rest[-1]) if rest else '...'}]"
    )


def _refuse_missing(wanted: Sequence[str], header: Sequence[str], table: str) -> None:
    missing = [column for column in wanted if column not in header]
    if not missing:
        return
    message = f"{table} has no column {', '.join(missing)}: its header is {printable(', '.join(header)[:200])}"
    for column in missing:
        slip = next((other for other in header[:_MOST_COLUMNS] if other and _near(other, [column])), None)
        if slip is not None:
            key = f", or set data.path_column={printable(slip)}" if column == PATH else ""
            raise DataError(f"{message}. Write '{printable(slip)}' as '{column}'{key}")
    raise DataError(message)


def _refuse_other_separator(cells: Sequence[str], table: str) -> None:
    marks = [word for mark, word in (("\t", "tabs"), (";", "semicolons")) if len(cells) == 1 and mark in cells[0]]
    if marks:
        raise DataError(f"{table} separates its columns by {marks[0]}: save it with commas")


def _near(name: str, known: Sequence[str]) -> str | None:
    """Which of the names that we know another one is nearly."""
    word = "".join(c for c in alike(name) if c.isalnum())
    for each in known:
        plain = alike(each)
        if word in (plain, f"{plain}s", f"{plain}es") or (each == PATH and word in PATH_WORDS):
            return each
        if each in (PATH, SPLIT, "coarse") and difflib.SequenceMatcher(None, word, plain).ratio() >= _ALIKE:
            return each
    return None
