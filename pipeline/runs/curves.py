"""The curves of a run's trainings as CSV files, for spreadsheets, plotting programs and reports.

Each training has a file in the folder ``curves`` of the run, with a row for each epoch. It is written by the process
that trains, before the step is committed, so that a step that is there has all of its rows.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from nstudent.errors import ArtifactError
from nstudent.listener import NoListener
from nstudent.storage.files import append, atomic_write, make_folder, sweep

CURVES = "curves"
"""Folder of the files, in the run folder."""
COLUMNS = ("training", "epoch", "step", "loss", "learning_rate", "validation")
"""Columns of every file; behind them stands what else the entries of its training hold, in alphabetical order."""
_MAX_BYTES = 64 << 20

Entry = Mapping[str, float]


class CurveFiles(NoListener):
    """Listener that writes the curves of each training that it hears of."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / CURVES
        self._known: dict[str, list[Entry]] = {}
        """By training, the epochs that its file holds."""

    def begins(self, training: str, behind: Sequence[Entry]) -> None:
        """Replace what the file says by the epochs that lie behind the training.

        Rows of epochs that an interrupted attempt had reported and that will be trained again are gone with it, and
        those that it had not come to report are there.
        """
        make_folder(self._folder)
        # The curves of a training that was finished before are not written again.
        sweep(self._folder, below=False)
        self._known[training] = list(behind)
        self._write(training)

    def epoch(self, training: str, entry: Entry) -> None:
        """Add the row of an epoch; the file is written anew if the epoch has a figure that none before it had."""
        known = self._known[training]
        columns = _columns(known)
        known.append(entry)
        if set(entry) <= set(columns):
            append(self._path(training), _row(training, entry, columns).encode())
        else:
            self._write(training)

    def _write(self, training: str) -> None:
        known = self._known[training]
        columns = _columns(known)
        rows = "".join(_row(training, entry, columns) for entry in known)
        atomic_write(self._path(training), f"{','.join(columns)}\n{rows}".encode())

    def _path(self, training: str) -> Path:
        return self._folder / curve_file(training)


def curve_file(training: str) -> str:
    """File name of a training such as ``01-teacher/member 0``: ``01-teacher.member-0.csv``."""
    return training.replace("/", ".").replace(" ", "-") + ".csv"


def read_curves(run_dir: Path) -> dict[str, list[dict[str, float]]]:
    """The curves that a run folder holds, by training: its epochs, each with the figures that it has.

    Raises:
        ArtifactError: A file cannot be read as such curves.
    """
    found: dict[str, list[dict[str, float]]] = {}
    for path in sorted((run_dir / CURVES).glob("*.csv")):
        try:
            if not path.is_file() or path.stat().st_size > _MAX_BYTES:
                raise ValueError("no file of curves")
            for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))):
                names = dict.fromkeys([*COLUMNS[1:], *row])
                entry = {name: float(row[name]) for name in names if name != "training" and row[name]}
                if not (math.isfinite(entry["epoch"]) and 0 <= entry.get("validation", 0) <= 1):
                    raise ValueError("a number out of range")
                found.setdefault(row["training"], []).append(entry)
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise ArtifactError(f"{path} does not hold curves of a training ({error}): delete it") from error
    return found


def _columns(entries: Sequence[Entry]) -> tuple[str, ...]:
    return (*COLUMNS, *sorted({name for entry in entries for name in entry} - set(COLUMNS)))


def _row(training: str, entry: Entry, columns: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([training, *(entry.get(name, "") for name in columns[1:])])
    return line.getvalue()
