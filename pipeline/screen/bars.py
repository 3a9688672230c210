"""Progress as bars on a terminal, and as plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from nstudent.errors import one_line
from nstudent.progress import Task, figure_in_words
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_WIDE = 110
"""Columns of a terminal from which on a line of progress has room for everything."""
_PLAIN_SECONDS = 10.0
"""Where there is no terminal, a piece of work says where it is at most this often."""


class Screen:
    """Progress as rich bars on a terminal, and as lines of text in a log file or a notebook."""

    def __init__(self, steps: Sequence[str] = ()) -> None:
        """``steps``: names of the steps of a run; what is said of one begins with its number."""
        self._numbers = {name: f"[{number}/{len(steps)}] " for number, name in enumerate(steps, start=1)}
        self._console = Console(stderr=True, highlight=False)
        self._bars: Progress | None = None
        self._num_bars = 0

    def say(self, text: str) -> None:
        """One line that stays."""
        number = self._numbers.get(text.partition(": ")[0], "")
        # A log file has no width to fold a line at; a terminal folds it by itself.
        self._console.print(safe(f"{number}{text}"), soft_wrap=True)

    def task(self, name: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Task]:
        """Begin a piece of work."""
        if self._console.is_terminal:
            return self._bar(name, total, unit, done)
        return self._lines(name, total, unit, done)

    @contextmanager
    def _bar(self, name: str, total: int, unit: str, done: int) -> Iterator[Task]:
        # Work that goes on at the same time stands in one block: a terminal shows one at a time.
        bars = self._bars = self._bars or _block(self._console)
        self._num_bars += 1
        bars.start()
        try:
            yield _Bar(bars, bars.add_task(name, total=total, completed=done, unit=unit, figures=""))
        finally:
            self._num_bars -= 1
            if not self._num_bars:
                bars.stop()
                self._bars = None

    @contextmanager
    def _lines(self, name: str, total: int, unit: str, done: int) -> Iterator[Task]:
        lines = _Lines(self._console, name, total, unit, done)
        yield lines
        lines.close()


def _block(console: Console) -> Progress:
    is_wide = console.width >= _WIDE
    return Progress(
        TextColumn("  {task.description:<12}" if is_wide else "{task.description}"),
        BarColumn(bar_width=28 if is_wide else 6),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TextColumn("{task.fields[figures]}"),
        *([TimeElapsedColumn()] if is_wide else []),
        TimeRemainingColumn(),
        console=console,
    )


class _Bar:
    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress = progress
        self._task = task

    def advance(self, amount: int, **shown: float) -> None:
        self._progress.update(self._task, advance=amount, figures=_figures(shown))


class _Lines:
    def __init__(self, console: Console, name: str, total: int, unit: str, done: int) -> None:
        self._console = console
        self._name, self._total, self._unit = name, total, unit
        self._first = self._done = done
        self._began = self._said = time.monotonic()

    def advance(self, amount: int, **shown: float) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._said >= _PLAIN_SECONDS and self._done < self._total:
            self._said = now
            rate = (self._done - self._first) / (now - self._began)
            left = (self._total - self._done) / max(rate, 1e-9)
            how = f"{self._done}/{self._total} {self._unit}, {rate:.1f} a second, {left:.0f} s left"
            self._line(", ".join(filter(None, (how, _figures(shown)))))

    def close(self) -> None:
        if self._first and self._first == self._total:
            # It was done before, or by another process, which has said so.
            return
        seconds = time.monotonic() - self._began
        self._line(f"{self._done}/{self._total} {self._unit} in {seconds:.1f} s")

    def _line(self, text: str) -> None:
        self._console.print(safe(f"  {self._name}: {text.rstrip()}"), soft_wrap=True)


def _figures(shown: Mapping[str, float]) -> str:
    return ", ".join(figure_in_words(name, value) for name, value in shown.items())


def safe(text: str) -> str:
    """Text with names of strangers in it, as a terminal may show it: neither steered by it nor marked up."""
    return escape(one_line(text))
