"""Progress as bars on a terminal, and as plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from nstudent.errors import one_line
from nstudent.progress import Task, figure_in_words
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as RichTask
from rich.table import Table
from rich.text import Text

_ENDS = " ends in min"
"""End of the name of the figure that says when the run, or the one stage, ends."""
_KEPT_FIGURES = ("loss", "score %")
"""Figures that stay on the narrowest terminal, with when the run ends."""
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
        bars = self._bars = self._bars or _Block(self._console)
        self._num_bars += 1
        bars.start()
        try:
            yield _Bar(bars, bars.add_task(name, total=total, completed=done, unit=unit, shown={}))
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


class _Block(Progress):
    """Lines of progress that fit their terminal, whatever its width: what matters least goes first, in one order.

    The bar becomes shorter and the clock goes, then the bar, the time that this piece of work takes (where it is said
    when the run ends), and the unit; then it is said in fewer words when the run ends; then figures other than loss
    and score go. How much is done, loss, score and the time that is left are always whole.
    """

    def __init__(self, console: Console) -> None:
        # ``Progress`` asks for its table before it has a console.
        self._screen = console
        self._layouts = _layouts()
        self._taken = 0
        """Number of the layout. What has gone does not come back with the next figure, unless there is more room."""
        self._width = console.width
        super().__init__(*self._layouts[0], console=console)

    def make_tasks_table(self, tasks: Iterable[RichTask]) -> Table:
        """A line for each piece of work, in the first layout that fits."""
        listed = list(tasks)
        if self._screen.width != self._width:
            self._width, self._taken = self._screen.width, 0
        table = self._table(listed)
        # A table without a row would be as wide as it may.
        while listed and self._taken + 1 < len(self._layouts) and self._needs(table) > self._width:
            self._taken += 1
            table = self._table(listed)
        return table

    def _table(self, tasks: Sequence[RichTask]) -> Table:
        # A column that is empty would take room.
        self.columns = tuple(
            column
            for column in self._layouts[self._taken]
            if not tasks or any(getattr(column(task), "plain", "a bar") for task in tasks)
        )
        return super().make_tasks_table(tasks)

    def _needs(self, table: Table) -> int:
        """Columns of a terminal on which nothing of it is cut."""
        unlimited = self._screen.options.update(max_width=_UNLIMITED)
        return self._screen.measure(table, options=unlimited).maximum


_WHOLE_MINUTES = 10
"""Minutes from which on a narrow terminal shows no fraction of one."""
_UNLIMITED = 10_000
"""Columns, for the question how wide a line would be."""


def _layouts() -> list[tuple[ProgressColumn, ...]]:
    """The columns of a line, from those of a wide terminal to those of the narrowest."""
    name, count, unit = TextColumn("{task.description}"), MofNCompleteColumn(), TextColumn("{task.fields[unit]}")
    figures, left = _Figures(_figures), TimeRemainingColumn()
    left_unless_said = _TimeRemainingUnlessSaid()
    return [
        (TextColumn("  {task.description:<12}"), BarColumn(28), count, unit, figures, TimeElapsedColumn(), left),
        (name, BarColumn(6), count, unit, figures, left),
        (name, count, unit, figures, left),
        (name, count, unit, figures, left_unless_said),
        (name, count, figures, left_unless_said),
        (name, count, _Figures(_shorter), left_unless_said),
        (name, count, _Figures(_shortest), left_unless_said),
    ]


class _Figures(ProgressColumn):
    """The figures of a piece of work, in the words of a function."""

    def __init__(self, words: Callable[[Mapping[str, float]], str]) -> None:
        super().__init__()
        self._words = words

    def render(self, task: RichTask) -> Text:
        """As they are now."""
        return Text(self._words(task.fields["shown"]))


class _TimeRemainingUnlessSaid(TimeRemainingColumn):
    """The time that a piece of work still takes; nothing beside a figure that says when the run ends."""

    def render(self, task: RichTask) -> Text:
        """As it is now."""
        return Text() if any(name.endswith(_ENDS) for name in task.fields["shown"]) else super().render(task)


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, amount: int, **shown: float) -> None:
        self._progress.update(self._task, advance=amount, shown=shown)


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
            how = f"{self._done}/{self._total} {self._unit}"
            # Before anything is done, nothing is known of what is left.
            if rate:
                how += f", {rate:.1f} a second, {(self._total - self._done) / rate:.0f} s left"
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


def _shorter(shown: Mapping[str, float]) -> str:
    """As ``_figures``, with the time until the run ends in fewer words."""
    rest = {name: value for name, value in shown.items() if not name.endswith(_ENDS)}
    left = [
        f"{value:.{0 if value >= _WHOLE_MINUTES else 1}f} min left"
        for name, value in shown.items()
        if name.endswith(_ENDS)
    ]
    return ", ".join(filter(None, (_figures(rest), *left)))


def _shortest(shown: Mapping[str, float]) -> str:
    """As ``_shorter``, of the figures that stay on any terminal."""
    return _shorter({name: value for name, value in shown.items() if name in _KEPT_FIGURES or name.endswith(_ENDS)})


def safe(text: str) -> str:
    """Text with names of strangers in it, as a terminal may show it: neither steered by it nor marked up."""
    return escape(one_line(text))
