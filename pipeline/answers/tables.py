"""Predictions as rows of a file: JSON lines, CSV or Parquet, in parts that are joined."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from nstudent.classifier import LevelPrediction, Prediction
from nstudent.errors import ConfigError

_DIGITS = 4


class Format(Protocol):
    """A kind of file."""

    def part(self, predictions: Sequence[Prediction]) -> bytes:
        """Some rows as a file of their own, which ``join`` reads."""

    def join(self, parts: Sequence[Path], file: IO[bytes]) -> None:
        """Write all rows of several parts, with little of them in memory at once."""


def json_object(prediction: Prediction) -> dict[str, Any]:
    """A prediction as the JSON object that is printed for it."""
    if prediction.error:
        return {"image": prediction.image, "error": prediction.error}
    found: dict[str, Any] = {
        "image": prediction.image,
        "labels": {level: _entry(each) for level, each in prediction.labels.items()},
    }
    if prediction.top:
        found["top"] = {level: [_entry(each) for each in best] for level, best in prediction.top.items()}
    return found


def _entry(found: LevelPrediction) -> dict[str, Any]:
    return {"class": found.name, "probability": round(found.probability, _DIGITS)}


class JsonLines:
    """One JSON object a line."""

    def part(self, predictions: Sequence[Prediction]) -> bytes:
        """See ``Format``."""
        return "".join(json.dumps(json_object(each)) + "\n" for each in predictions).encode()

    def join(self, parts: Sequence[Path], file: IO[bytes]) -> None:
        """See ``Format``."""
        for part in parts:
            file.write(part.read_bytes())


class Columns:
    """The columns of a table: ``image``, ``error``, and for each level ``LEVEL`` and ``LEVEL probability``.

    With ``top`` the most probable classes of each level follow as ``LEVEL top 1``, ``LEVEL top 1 probability``.
    """

    def __init__(self, levels: Sequence[str], top: int) -> None:
        """Name the columns; ``top``: number of most probable classes for each level, 1: none beside the label.

        Raises:
            ConfigError: Two columns would have the same name, because a level is called like another column.
        """
        self._levels = tuple(levels)
        self._top = range(1, top + 1) if top > 1 else range(0)
        self.texts = ["image", "error"]
        self.numbers: list[str] = []
        for level in self._levels:
            for name in (level, *(f"{level} top {number}" for number in self._top)):
                self.texts.append(name)
                self.numbers.append(f"{name} probability")
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        if twice:
            raise ConfigError(f"two columns would be called '{twice[0]}': write to a file whose name ends in .jsonl")

    @property
    def names(self) -> list[str]:
        """All names in their order, each class before its probability."""
        pairs = zip(self.texts[2:], self.numbers, strict=True)
        return [*self.texts[:2], *(name for pair in pairs for name in pair)]

    def row(self, prediction: Prediction) -> dict[str, str | float | None]:
        """One row by the names of its columns; ``None`` where there is nothing to say."""
        found: dict[str, str | float | None] = dict.fromkeys(self.names)
        found |= {"image": prediction.image, "error": prediction.error}
        for level in self._levels:
            best = prediction.top.get(level, ())
            shown: Mapping[str, LevelPrediction | None] = {
                level: prediction.labels.get(level),
                **{f"{level} top {n}": best[n - 1] if n <= len(best) else None for n in self._top},
            }
            for name, each in shown.items():
                if each is not None:
                    found |= {name: each.name, f"{name} probability": round(each.probability, _DIGITS)}
        return found


class Csv:
    """A table with a header, UTF-8."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def part(self, predictions: Sequence[Prediction]) -> bytes:
        """See ``Format``; parts have no header."""
        return self._written([list(self._columns.row(each).values()) for each in predictions])

    def join(self, parts: Sequence[Path], file: IO[bytes]) -> None:
        """See ``Format``."""
        file.write(self._written([self._columns.names]))
        for part in parts:
            file.write(part.read_bytes())

    @staticmethod
    def _written(rows: Sequence[Sequence[Any]]) -> bytes:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        # File names need not be valid UTF-8.
        return text.getvalue().encode("utf-8", "backslashreplace")


class Parquet:
    """A Parquet table; needs pyarrow."""

    def __init__(self, columns: Columns) -> None:
        """Take in the columns.

        Raises:
            ConfigError: pyarrow is not installed.
        """
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ConfigError("pyarrow is not installed: pip install 'nstudent[parquet]'") from error
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        self._columns = columns
        types = dict.fromkeys(columns.texts, pyarrow.string()) | dict.fromkeys(columns.numbers, pyarrow.float32())
        self._schema = pyarrow.schema([(name, types[name]) for name in columns.names])

    def part(self, predictions: Sequence[Prediction]) -> bytes:
        """See ``Format``."""
        rows = [self._columns.row(each) for each in predictions]
        texts = set(self._columns.texts)
        table = {
            name: [_utf8(row[name]) if name in texts else row[name] for row in rows] for name in self._columns.names
        }
        buffer = io.BytesIO()
        self._parquet.write_table(self._arrow.table(table, schema=self._schema), buffer)
        return buffer.getvalue()

    def join(self, parts: Sequence[Path], file: IO[bytes]) -> None:
        """See ``Format``."""
        with self._parquet.ParquetWriter(file, self._schema) as writer:
            for part in parts:
                writer.write_table(self._parquet.read_table(io.BytesIO(part.read_bytes())))


def _utf8(text: Any) -> Any:
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else text


def format_of(out: Path, levels: Sequence[str], top: int) -> Format:
    """The format that the suffix of a file names.

    Raises:
        ConfigError: It names none, or a package for it is missing.
    """
    if out.suffix == ".jsonl":
        return JsonLines()
    if out.suffix == ".csv":
        return Csv(Columns(levels, top))
    if out.suffix == ".parquet":
        return Parquet(Columns(levels, top))
    raise ConfigError(f"{out}: write to a file whose name ends in .csv, .jsonl or .parquet")
