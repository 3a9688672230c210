"""Markdown tables of docs/RESULTS.md from the rows of benchmarks/rows."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rows import HEADLINE, WHOLE_PATH, Json
from settings import SETTINGS


@dataclass(frozen=True)
class Group:
    """The seeds of one setting, variant and commit."""

    setting: str
    variant: str
    commit: str
    rows: list[Json]
    """In the order of their seeds."""

    @property
    def label(self) -> str:
        return f"{self.variant} ({self.commit})"


def grouped(rows: Iterable[Json]) -> list[Group]:
    """Groups in the order of the settings, and of the file within a setting."""
    found: dict[tuple[str, str, str], list[Json]] = {}
    for row in rows:
        found.setdefault((row["setting"], row["variant"], row["commit"]), []).append(row)
    order = [*SETTINGS, *dict.fromkeys(setting for setting, _, _ in found)]
    groups = [Group(*key, sorted(each, key=lambda row: row["seed"])) for key, each in found.items()]
    return sorted(groups, key=lambda group: order.index(group.setting))


def all_tables(rows: Sequence[Json], against: tuple[str, str] | None) -> str:
    """Every table that has a line. ``against`` is a variant and a commit that the others are compared with."""
    groups = grouped(rows)
    tables = [
        ("In one table", page_table(groups)),
        ("Final classifier", final_table(groups)),
        ("What the heap gave", gain_table(groups)),
        ("Levels of the final classifier", level_table(groups)),
        ("Every classifier", classifier_table(groups)),
        ("Labels of the heap", label_table(groups)),
        ("Labels that people gave", given_table(groups)),
        ("Calibration", calibration_table(groups)),
        ("Cost", cost_table(groups)),
    ]
    if against:
        tables.insert(1, (f"Final classifier against {against[0]} ({against[1]})", against_table(groups, *against)))
    return "\n\n".join(f"### {title}\n\n" + "\n".join(table) for title, table in tables if len(table) > 2)


def page_table(groups: Sequence[Group]) -> list[str]:
    """One line for each setting, variant and commit: both sides, the gains, the labels of the first round, the cost."""
    head = (
        *("setting", "variant", "seeds", "labels alone", "with the heap", "final", "the heap's gain, points"),
        *("one network against one", "right labels of the heap", "GMACs", "passes of both sides, thousands"),
    )
    table = [row_of(*head), rule_of(len(head))]
    for group in groups:
        sides = [spread_of(scores_of(group.rows, side, HEADLINE)) for side in ("labels_alone", "with_heap", "final")]
        gains, singles = _gains(group)
        labels = [next(iter(row["pseudo_labels"].values())) for row in group.rows if row["pseudo_labels"]]
        finest = list(labels[0])[-1] if labels else ""
        right = _known(entry[finest]["precision"] for entry in labels)
        table.append(
            row_of(
                group.setting,
                group.label,
                ", ".join(str(row["seed"]) for row in group.rows),
                *sides,
                spread_of([gain["value"] for gain in gains], "+"),
                spread_of(singles, "+"),
                f"{finest} {spread_of(right)}" if right else "-",
                f"{statistics.mean(row['final']['gmacs'] for row in group.rows):.3f}",
                _passes(group, 1000),
            )
        )
    return table


def final_table(groups: Sequence[Group]) -> list[str]:
    """Both sides and what was chosen, on test, and what choosing cost."""
    head = (
        "setting",
        "variant",
        "seeds",
        "labels alone",
        "with the heap",
        "final",
        "whole path",
        "best on test",
        "loss",
    )
    table = [row_of(*head), rule_of(len(head))]
    means: dict[str, list[float]] = {}
    for group in groups:
        best = [best_on_test(row) for row in group.rows]
        final = scores_of(group.rows, "final", HEADLINE)
        cells = [spread_of(scores_of(group.rows, side, HEADLINE)) for side in ("labels_alone", "with_heap", "final")]
        cells += [spread_of(scores_of(group.rows, "final", WHOLE_PATH)), spread_of(best)]
        losses = [first - second for first, second in zip(best, final, strict=True)]
        means.setdefault(group.label, []).append(statistics.mean(losses))
        table.append(row_of(group.setting, group.label, str(len(group.rows)), *cells, spread_of(losses)))
    for label, each in means.items():
        if len(each) == 1:
            continue
        blank = [""] * (len(head) - 3)
        table.append(row_of(f"**mean of {len(each)}**", label, *blank, f"**{100 * statistics.mean(each):.1f}**"))
    return table


def against_table(groups: Sequence[Group], variant: str, commit: str) -> list[str]:
    """Final classifiers minus those of another variant and commit with the same seeds; the last lines are means."""
    before = {
        (group.setting, row["seed"]): row["final"]["test"][HEADLINE]
        for group in groups
        if (group.variant, group.commit) == (variant, commit)
        for row in group.rows
    }
    table = [row_of("variant", "setting", "by seed, points", "mean ± sd"), rule_of(4)]
    means: dict[str, list[float]] = {}
    for group in groups:
        if (group.variant, group.commit) == (variant, commit):
            continue
        pairs = [(row["final"]["test"][HEADLINE], before.get((group.setting, row["seed"]))) for row in group.rows]
        gains = [now - then for now, then in pairs if then is not None]
        if gains:
            means.setdefault(group.label, []).append(statistics.mean(gains))
            table.append(row_of(group.label, group.setting, _by_seed(gains), spread_of(gains, "+")))
    for label, gains in means.items():
        if len(gains) == 1:
            continue
        table.append(
            row_of(label, f"**mean of {len(gains)} settings**", "", f"**{100 * statistics.mean(gains):+.1f}**")
        )
    return table


def gain_table(groups: Sequence[Group]) -> list[str]:
    """The best with the heap minus the best without it, and one network against one of as many passes."""
    head = ("setting", "variant", "by seed, points", "mean ± sd", "one network against one")
    table = [row_of(*head), rule_of(len(head))]
    for group in groups:
        gains, singles = _gains(group)
        if gains:
            shown = "; ".join(_interval(gain) for gain in gains)
            mean = spread_of([gain["value"] for gain in gains], "+")
            table.append(row_of(group.setting, group.label, shown, mean, spread_of(singles, "+")))
    return table


def level_table(groups: Sequence[Group]) -> list[str]:
    """Accuracy of each level of the final classifier, on test."""
    return _by_level(
        groups,
        lambda row: {
            name.removeprefix("accuracy/"): value
            for name, value in row["final"]["test"].items()
            if name.startswith("accuracy/")
        },
    )


def classifier_table(groups: Sequence[Group]) -> list[str]:
    """Level accuracy of every network that was trained, on validation and on test."""
    table = [row_of("setting", "variant", "classifier", "validation, %", "test, %"), rule_of(5)]
    for group in groups:
        for step in dict.fromkeys(step for row in group.rows for step in row["classifiers"]):
            made = [row["classifiers"][step] for row in group.rows if step in row["classifiers"]]
            cells = [spread_of([entry[part][HEADLINE] for entry in made]) for part in ("validation", "test")]
            table.append(row_of(group.setting, group.label, step, *cells))
    return table


def label_table(groups: Sequence[Group]) -> list[str]:
    """Labels of the heap against the hidden truth: precision, and the share of the heap that has one."""
    head = ("setting", "variant", "step", "level: precision, % (share of the heap)")
    table = [row_of(*head), rule_of(len(head))]
    for group in groups:
        for step in dict.fromkeys(step for row in group.rows for step in row["pseudo_labels"]):
            made = [row["pseudo_labels"][step] for row in group.rows if step in row["pseudo_labels"]]
            cells = [
                f"{level}: {spread_of(_known(entry[level]['precision'] for entry in made))} "
                f"({100 * statistics.mean(entry[level]['share'] for entry in made):.0f})"
                for level in made[0]
            ]
            table.append(row_of(group.setting, group.label, step, ", ".join(cells)))
    return table


def given_table(groups: Sequence[Group]) -> list[str]:
    """How well a filter found the labels that people gave and that are known to be wrong."""
    head = ("setting", "variant", "level", "wrong before", "wrong after", "precision", "recall")
    table = [row_of(*head), rule_of(len(head))]
    for group in groups:
        made = [entry for row in group.rows for entry in row["given_labels"].values()]
        for level in made[0] if made else ():
            found = [entry[level] for entry in made]
            before = [each["wrong"] / max(1, each["judged"]) for each in found]
            after = [1 - each["right among kept"] for each in found]
            rates = [_known(each[name] for each in found) for name in ("precision", "recall")]
            table.append(row_of(group.setting, group.label, level, *map(spread_of, (before, after, *rates))))
    return table


def calibration_table(groups: Sequence[Group]) -> list[str]:
    """Calibration error of each level of the final classifier, above that of perfect probabilities."""
    return _by_level(
        groups, lambda row: {level: entry["error"] - entry["perfect"] for level, entry in row["calibration"].items()}
    )


def cost_table(groups: Sequence[Group]) -> list[str]:
    """What the final classifier costs for an image, and what each side took to make."""
    head = ("setting", "variant", "GMACs of the final", "passes: labels alone, with the heap", "minutes of the run")
    table = [row_of(*head), rule_of(len(head))]
    for group in groups:
        gmacs = statistics.mean(row["final"]["gmacs"] for row in group.rows)
        minutes = statistics.mean(row["seconds"] for row in group.rows) / 60
        devices = ", ".join(dict.fromkeys(row["device"] for row in group.rows))
        table.append(row_of(group.setting, group.label, f"{gmacs:.4f}", _passes(group), f"{minutes:.1f} ({devices})"))
    return table


def best_on_test(row: Json) -> float:
    """Level accuracy on test of the best classifier in hindsight, among all that were scored."""
    sides = [row[side] for side in ("final", "labels_alone", "with_heap") if row[side]]
    best: float = max(entry["test"][HEADLINE] for entry in (*row["classifiers"].values(), *sides))
    return best


def _by_level(groups: Sequence[Group], values: Callable[[Json], dict[str, float | None]]) -> list[str]:
    """A table of one number for each level, in percent."""
    table = [row_of("setting", "variant", "level: mean ± sd, %"), rule_of(3)]
    for group in groups:
        made = [values(row) for row in group.rows]
        levels = dict.fromkeys(level for entry in made for level in entry)
        cells = [f"{level}: {spread_of(_known(entry.get(level) for entry in made))}" for level in levels]
        if cells:
            table.append(row_of(group.setting, group.label, ", ".join(cells)))
    return table


def scores_of(rows: Iterable[Json], side: str, name: str) -> list[float]:
    return [row[side]["test"][name] for row in rows if row[side]]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def spread_of(values: Sequence[float], sign: str = "") -> str:
    """Mean in percent, and the standard deviation where there are several; differences have the sign ``+``."""
    if not values:
        return "-"
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):{sign}.1f}{spread}"


def _gains(group: Group) -> tuple[list[Json], list[float]]:
    """The heap's gain of each seed that has one, with its interval, and that of one network against one."""
    gains = [row["heap_gain"][HEADLINE] for row in group.rows if row["heap_gain"]]
    return gains, [row["equal_passes"][HEADLINE]["value"] for row in group.rows if row["equal_passes"]]


def _passes(group: Group, unit: int = 1) -> str:
    """Mean image passes of both sides, in ``unit``."""
    sides = [[row[side] for row in group.rows if row[side]] for side in ("labels_alone", "with_heap")]
    passes = [_known(side["image_passes"] for side in each) for each in sides]
    return ", ".join(f"{statistics.mean(each) / unit:,.0f}" if each else "-" for each in passes)


def _by_seed(gains: Sequence[float]) -> str:
    return " ".join(f"{100 * gain:+.1f}" for gain in gains)


def _interval(gain: Json) -> str:
    shown = f"{100 * gain['value']:+.1f}"
    return f"{shown} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]" if "low" in gain else shown


def row_of(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def rule_of(columns: int) -> str:
    return "|" + "---|" * columns
