"""Charts as numbers: where lines, dots and ticks stand in a drawing, for the templates to write as SVG.

A chart holds coordinates and plain text. Nothing of it is markup, and nothing is read as a formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator
from nstudent.evaluation.scores import Difference, Interval, ReliabilityBin

Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """One mark on an axis."""

    at: float
    """Coordinate in the drawing."""
    text: str


@dataclass(frozen=True)
class Line:
    """A line of a chart."""

    name: str
    points: tuple[Point, ...]
    """Coordinates in the drawing."""
    colour: int
    """Number of the colour in the style sheet, from 0."""
    dots: bool = False

    @property
    def path(self) -> str:
        """The points as SVG writes them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True)
class LineChart:
    """Lines over a common horizontal axis."""

    title: str
    width: float
    height: float
    left: float
    """Width of the space for the texts of the vertical axis."""
    xs: tuple[Tick, ...]
    ys: tuple[Tick, ...]
    lines: tuple[Line, ...]
    x_title: str
    best: float | None = None
    """Where a line marks the best epoch; ``None``: nowhere. What lies to the right of it is shaded."""


@dataclass(frozen=True)
class IntervalRow:
    """A number with its interval, at one height of a chart."""

    name: str
    said: str
    at: float
    low: float
    high: float
    top: float
    colour: int


@dataclass(frozen=True)
class IntervalChart:
    """Numbers with their intervals, one below the other."""

    title: str
    width: float
    height: float
    xs: tuple[Tick, ...]
    rows: tuple[IntervalRow, ...]
    zero: float | None = None
    """Where zero is, if it is to be marked."""


@dataclass(frozen=True)
class Dot:
    """Answers of about the same confidence, in a reliability chart."""

    x: float
    y: float
    radius: float
    said: str


@dataclass(frozen=True)
class ReliabilityChart:
    """How often answers are right, over how sure they are, with and without temperatures; a square."""

    title: str
    side: float
    after: tuple[Dot, ...]
    before: tuple[Dot, ...]


@dataclass(frozen=True)
class Bar:
    """A named number, and how much of the width it fills."""

    name: str
    said: str
    share: float


_LEFT, _HEIGHT, _WIDTH = 46.0, 150.0, 340.0
_ROW, _NAME_TOP = 40.0, 14.0
_SIDE = 200.0
_LARGEST_DOT, _SMALLEST_DOT = 11.0, 2.5


def line_chart(
    title: str, series: Sequence[tuple[str, Sequence[Point]]], x_title: str, *, percent: bool, best: float | None = None
) -> LineChart | None:
    """A chart of some lines; ``None`` if none of them has a point.

    Args:
        title: What it shows.
        series: Name and points of each line, in the units of what is shown.
        x_title: What the horizontal axis shows.
        percent: Whether the values are shares, shown as percent.
        best: Where on the horizontal axis the best point is marked.
    """
    points = [point for _, line in series for point in line]
    if not points:
        return None
    x_at = _scale([x for x, _ in points], _LEFT, _WIDTH - 10)
    y_at = _scale([y for _, y in points], _HEIGHT - 26, 10)
    lines = tuple(
        Line(name, tuple((x_at(x), y_at(y)) for x, y in line), number, dots=len(line) <= 40)
        for number, (name, line) in enumerate(series)
    )
    return LineChart(
        title=title,
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        xs=tuple(Tick(x_at(x), f"{x:g}") for x in _ticks([x for x, _ in points], 5, whole=True)),
        ys=tuple(Tick(y_at(y), _value(y, percent)) for y in _ticks([y for _, y in points], 4)),
        lines=lines,
        x_title=x_title,
        best=None if best is None else x_at(best),
    )


def interval_chart(
    title: str, rows: Sequence[tuple[str, Interval | Difference]], *, points: bool
) -> IntervalChart | None:
    """A chart of shares with their intervals; ``None`` if there is no row.

    Args:
        title: What it shows.
        rows: Name and numbers of each row.
        points: Whether they are differences, shown in points, and zero is marked.
    """
    if not rows:
        return None
    values = [share for _, each in rows for share in (each.low, each.value, each.high)] + [0.0] * points
    at = _scale(values, 12, _WIDTH - 12)
    sign = "+" if points else ""
    drawn = tuple(
        IntervalRow(
            name=name,
            said=f"{_tenths(each.value):{sign}.1f} [{_tenths(each.low):.1f}, {_tenths(each.high):.1f}]",
            at=at(each.value),
            low=at(each.low),
            high=at(each.high),
            top=_NAME_TOP + number * _ROW,
            colour=number,
        )
        for number, (name, each) in enumerate(rows)
    )
    ticks = tuple(Tick(at(share), f"{100 * share:g}") for share in _ticks(values, 5))
    height = len(rows) * _ROW + 24
    return IntervalChart(title, _WIDTH, height, ticks, drawn, zero=at(0.0) if points else None)


def reliability_chart(
    title: str, after: Sequence[ReliabilityBin], before: Sequence[ReliabilityBin]
) -> ReliabilityChart:
    """A chart of answers by their confidence, with temperatures (``after``) and without."""
    return ReliabilityChart(title, _SIDE, _dots(after), _dots(before))


def bars(values: Sequence[tuple[str, float]]) -> tuple[Bar, ...]:
    """Bars for the figures of a finding: a share of the whole width each, or whole numbers beside the largest.

    There is none for a number by itself, nor for shares and numbers in one: nothing could be compared.
    """
    counts = [value for _, value in values if isinstance(value, int)]
    if counts and (len(counts) == 1 or len(counts) < len(values)):
        return ()
    largest = max(map(abs, counts), default=0)
    return tuple(
        Bar(name, f"{value:,}", abs(value) / max(1, largest))
        if isinstance(value, int)
        else Bar(name, f"{100 * value:.1f} %", abs(value))
        for name, value in values
    )


def _dots(found: Sequence[ReliabilityBin]) -> tuple[Dot, ...]:
    total = sum(each.answers for each in found)
    return tuple(
        Dot(
            x=_SIDE * each.confidence,
            y=_SIDE * (1 - each.right),
            radius=max(_SMALLEST_DOT, _LARGEST_DOT * (each.answers / total) ** 0.5),
            said=f"{each.answers} answers: {100 * each.confidence:.0f} % sure, {100 * each.right:.0f} % right",
        )
        for each in found
    )


@dataclass(frozen=True)
class _Scale:
    """A straight line from values to coordinates."""

    low: float
    factor: float
    first: float

    def __call__(self, value: float) -> float:
        return round(self.first + (value - self.low) * self.factor, 2)


def _scale(values: Sequence[float], first: float, last: float) -> _Scale:
    """From the smallest and largest of some values to two coordinates; equal values stand at the first."""
    low, high = min(values), max(values)
    return _Scale(low, (last - first) / (high - low) if high > low else 0.0, first)


def _ticks(values: Sequence[float], most: int, *, whole: bool = False) -> list[float]:
    low, high = min(values), max(values)
    if low == high:
        return [low]
    found = [float(value) for value in MaxNLocator(most, integer=whole).tick_values(low, high)]
    return [value for value in found if low <= value <= high] or [low, high]


def _value(value: float, percent: bool) -> str:
    return f"{100 * value:.4g} %" if percent else f"{value:.3g}"


def _tenths(share: float) -> float:
    """A share in percent, rounded as it is shown; no zero is negative."""
    return round(100 * share, 1) + 0.0
