"""The one spelling of the names of classes, for every source."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace

from nstudent.data.sources.source import Catalogue, Label, Record, printable
from nstudent.errors import DataError
from nstudent.taxonomy.reading import is_name
from nstudent.taxonomy.spelling import alike, spelled

_NAMES_SHOWN = 3


def spelled_alike(found: Catalogue, *, allow_case: bool) -> Catalogue:
    """The same catalogue with each name of a class in its one spelling.

    Args:
        found: What a source holds.
        allow_case: Whether names that differ in case or width alone are classes of their own; otherwise they are an
            error.

    Raises:
        DataError: Two names differ in case or width alone.
    """
    labels = dict.fromkeys(record.label for record in found.records)
    of = {label: tuple(map(spelled, label)) for label in labels}
    if not allow_case:
        _refuse_case(found.records, of)
    changed = any(label != written for label, written in of.items())
    if not changed:
        return found
    records = [
        record if record.label == of[record.label] else replace(record, label=of[record.label])
        for record in found.records
    ]
    return replace(found, records=records, notes=(*found.notes, *_merged(labels)))


def _merged(labels: Iterable[Label]) -> list[str]:
    """A line about names that were written in several ways, if there are any."""
    ways: dict[str, list[str]] = {}
    for name in sorted({name for label in labels for name in label if is_name(spelled(name))}):
        ways.setdefault(spelled(name), []).append(name)
    several = [written for written in ways.values() if len(written) > 1]
    if not several:
        return []
    shown = [" and ".join(f"'{_told_apart(name)}'" for name in written) for written in several[:_NAMES_SHOWN]]
    rest = f", and {len(several) - _NAMES_SHOWN} more" if len(several) > _NAMES_SHOWN else ""
    return [f"names of classes that read the same are one class: {', '.join(shown)}{rest}"]


def _told_apart(name: str) -> str:
    """A name as it can be told from one that reads the same."""
    return printable(name) if unicodedata.is_normalized("NFC", name) else ascii(name)[1:-1]


def _refuse_case(records: Sequence[Record], of: dict[Label, Label]) -> None:
    first: dict[Label, Label] = {}
    for label in of.values():
        for depth in range(1, len(label) + 1):
            path = label[:depth]
            before = first.setdefault(tuple(map(alike, path)), path)
            if before != path:
                at = next(level for level in range(depth) if before[level] != path[level])
                one, other = (_example(records, of, each[: at + 1]) for each in (before, path))
                raise DataError(
                    f"the classes {one} and {other} differ in case or width alone: write both alike, or set "
                    "data.allow_case=true if they are two classes"
                )


def _example(records: Sequence[Record], of: dict[Label, Label], path: Label) -> str:
    name = next(record.name for record in records if of[record.label][: len(path)] == path)
    return f"'{printable(path[-1])}' ({printable(name)})"
