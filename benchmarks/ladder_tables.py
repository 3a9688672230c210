"""Markdown tables of the ladder: the diary's figures with ours beside them, and every score of a rung."""

import statistics
from collections.abc import Mapping, Sequence

from rows import HEADLINE, Json
from settings import LADDER
from tables import Group, grouped, row_of, rule_of, scores_of, spread_of

DIARY = {
    "one softmax over the final labels": 0.23,
    "a better backbone": 0.33,
    "one BCE over all classes": 0.46,
    "a cross-entropy per level, a class 'nothing'": 0.81,
    "two backbones and a wide convolution fused": 0.89,
    "heads fine to coarse": 0.93,
    "late CutMix": 0.9332,
}
"""Level accuracy that the contest diary reports after a rung; it reports the three before the fusion in one."""
SCORES = (
    "level accuracy",
    "levels before a mistake",
    "whole path",
    "hierarchical precision",
    "hierarchical recall",
    "hierarchical F1",
)


def ladder_tables(rows: Sequence[Json], parts: Mapping[str, Sequence[str]]) -> str:
    """The diary's table, then one table of all scores for each part, data set by data set.

    Args:
        rows: Rows of the ladder, of one commit each rung at least.
        parts: By name of a part, the names of its rungs in their order; variants of no part are decoders.
    """
    groups = [group for group in grouped(rows) if group.setting in LADDER]
    named = {name for names in parts.values() for name in names}
    decoders = list(dict.fromkeys(group.variant for group in groups if group.variant not in named))
    texts = [_part("The diary's rungs", _diary(groups, parts["rungs"]))]
    for part, names in [*parts.items(), ("decoders", decoders)]:
        texts += [_part(f"{part}: {setting}", _scores(groups, setting, names)) for setting in LADDER]
    return "\n\n".join(text for text in texts if text)


def best_rung(rows: Sequence[Json], setting: str, names: Sequence[str]) -> str:
    """Name of the rung that is best on validation, by the mean level accuracy of its seeds.

    Raises:
        SystemExit: a rung has no row.
    """
    groups = grouped(rows)
    scores = {}
    for name in names:
        group = _group(groups, setting, name)
        if group is None:
            raise SystemExit(f"{setting} has no row of {name!r}: measure --what rungs first")
        scores[name] = statistics.mean(row["final"]["validation"][HEADLINE] for row in group.rows)
    return max(scores, key=scores.__getitem__)


def _part(title: str, table: list[str]) -> str:
    return f"### {title}\n\n" + "\n".join(table) if len(table) > 2 else ""


def _diary(groups: Sequence[Group], names: Sequence[str]) -> list[str]:
    """Level accuracy on test after each rung: the diary's, and that on each data set."""
    head = ("rung", "diary", *LADDER)
    table = [row_of(*head), rule_of(len(head))]
    for name in names:
        cells = [_level_accuracy(_group(groups, setting, name)) for setting in LADDER]
        if any(cell != "-" for cell in cells):
            table.append(row_of(name, f"{100 * DIARY[name]:.1f}" if name in DIARY else "", *cells))
    return table


def _scores(groups: Sequence[Group], setting: str, names: Sequence[str]) -> list[str]:
    """Every score of a rung on test, what it costs, and how often its levels contradict each other."""
    head = ("", "seeds", *SCORES, "severity", "inconsistent", "GMACs", "minutes")
    table = [row_of(*head), rule_of(len(head))]
    for name in names:
        group = _group(groups, setting, name)
        if group is None:
            continue
        cells = [spread_of(scores_of(group.rows, "final", score)) for score in SCORES]
        severity = [row["final"]["on_tree"]["severity"] for row in group.rows if row["final"]["on_tree"]]
        inconsistent = [row["inconsistent"] for row in group.rows if row["inconsistent"] is not None]
        table.append(
            row_of(
                name,
                ", ".join(str(row["seed"]) for row in group.rows),
                *cells,
                _mean([each for each in severity if each is not None], 2),
                spread_of(inconsistent),
                _mean([row["final"]["gmacs"] for row in group.rows], 4),
                _mean([row["seconds"] / 60 for row in group.rows], 1),
            )
        )
    return table


def _group(groups: Sequence[Group], setting: str, name: str) -> Group | None:
    """The newest rows of a rung: of several commits, the last in the file."""
    return next((group for group in reversed(groups) if (group.setting, group.variant) == (setting, name)), None)


def _level_accuracy(group: Group | None) -> str:
    return "-" if group is None else spread_of(scores_of(group.rows, "final", HEADLINE))


def _mean(values: Sequence[float], digits: int) -> str:
    return f"{sum(values) / len(values):.{digits}f}" if values else "-"
