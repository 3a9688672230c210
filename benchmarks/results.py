"""Tables of docs/RESULTS.md: one configuration, several seeds, mean and standard deviation.

    python benchmarks/results.py --seeds 0 1 2 3 4                                    # digits
    python benchmarks/results.py --config configs/fashion_mnist.yaml --seeds 0 1 2
    python benchmarks/results.py --config configs/grocery.yaml data.root=PATH/grocery_64.h5 --seeds 0 1 2
    python benchmarks/results.py name=flipped data.label_noise=0.4 filter.labelled=true --seeds 0 1 2

Every seed draws its own split, networks and noise. Runs are kept (default: runs/benchmarks) and not made again where
they are up to date; an interrupted benchmark goes on where it was. Prints Markdown.
"""

import argparse
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from nstudent import Session, load_config, plan, run_all
from nstudent.cli.console import Screen
from nstudent.evaluation.scores import COMPARED, SCORES, ClassifierScores, Intervals, Scores
from nstudent.machine import available_cores
from nstudent.storage.artifact import Manifest

Results = list[tuple[Path, Scores]]
"""Run folder and scores of each seed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    folders = [_run(arguments, seed) for seed in arguments.seeds]
    results = [(folder, Scores.read(_last(folder) / SCORES)) for folder in folders]
    print(_heading(arguments))
    for table in (_scores_table, _gain_table, _labels_table, _given_table, _cost_table):
        rows = table(results)
        if len(rows) > 2:
            print("\n".join(rows), end="\n\n")


def _run(arguments: argparse.Namespace, seed: int) -> Path:
    config = load_config(arguments.config, [*arguments.overrides, f"seed={seed}"])
    return run_all(config, arguments.runs / f"{config.run_name}-seed{seed}", Session(progress=Screen()))


def _last(folder: Path) -> Path:
    return folder / plan(load_config(folder / "config.yaml"))[-1].name


def _heading(arguments: argparse.Namespace) -> str:
    revision = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(revision, capture_output=True, text=True, check=False).stdout.strip()
    config = f"--config {arguments.config}" if arguments.config else ""
    words = [config, *arguments.overrides, "--seeds", *map(str, arguments.seeds)]
    command = " ".join(["python benchmarks/results.py", *filter(None, words)])
    return f"`{command}`, commit {commit}, {available_cores()} cores ({platform.machine()})\n"


def _scores_table(results: Results) -> list[str]:
    """Test scores of each classifier, over seeds. A round that was not needed in a seed is left out of its mean."""
    names = list(next(iter(results[0][1].classifiers.values())).test)
    shown = [name for name in names if name.startswith("accuracy/")] + [
        "contest alone",
        "contest prefix",
        "exact path",
        "hierarchical F1",
    ]
    rows = [_row("test, %", *(name.removeprefix("accuracy/") for name in shown), "seeds"), _rule(len(shown) + 2)]
    for step in _steps(results, "classifiers"):
        made = [scores.classifiers[step].test for _, scores in results if step in scores.classifiers]
        rows.append(_row(step, *(_spread(_values(made, name)) for name in shown), str(len(made))))
    final = [scores.classifiers[scores.final].test for _, scores in results]
    rows.append(_row("**final**", *(_spread(_values(final, name)) for name in shown), str(len(final))))
    return rows


def _gain_table(results: Results) -> list[str]:
    """Final classifier against teacher and baseline, paired within each seed."""
    rows = [_row("final against", "score", "gain by seed, points", "mean ± sd"), _rule(4)]
    for other in _steps(results, "gain"):
        for score in COMPARED:
            gains = [100 * scores.gain[other][score].value if other in scores.gain else 0.0 for _, scores in results]
            rows.append(_row(other, score, " ".join(f"{gain:+.1f}" for gain in gains), _signed_spread(gains)))
    return rows


def _labels_table(results: Results) -> list[str]:
    """Pseudo-labels against the hidden truth: precision and share of the heap, per level."""
    levels = list(next(iter(results[0][1].pseudo_labels.values()), {}))
    rows = [_row("pseudo-labels, %", *(f"{level}: precision (share)" for level in levels)), _rule(len(levels) + 1)]
    for step in _steps(results, "pseudo_labels"):
        made = [scores.pseudo_labels[step] for _, scores in results if step in scores.pseudo_labels]
        cells = []
        for level in levels:
            precision = [entry[level].precision for entry in made]
            cells.append(f"{_spread(_known(precision))} ({_mean([entry[level].share for entry in made])})")
        rows.append(_row(step, *cells))
    return rows


def _given_table(results: Results) -> list[str]:
    """How well the filter found labels that were flipped on purpose."""
    rows = [_row("given labels, %", "level", "wrong before", "wrong after", "precision", "recall"), _rule(6)]
    for step in _steps(results, "given_labels"):
        made = [scores.given_labels[step] for _, scores in results if step in scores.given_labels]
        for level in made[0]:
            found = [entry[level] for entry in made]
            wrong_before = [each.wrong / max(1, each.judged) for each in found]
            wrong_after = [1 - each.right_among_kept for each in found]
            precision, recall = [each.precision for each in found], [each.recall for each in found]
            cells = (wrong_before, wrong_after, _known(precision), _known(recall))
            rows.append(_row(step, level, *map(_spread, cells)))
    return rows


def _cost_table(results: Results) -> list[str]:
    rows = [_row("cost", "GMACs", "image passes", "minutes"), _rule(4)]
    for step in _steps(results, "classifiers"):
        made: list[tuple[Path, ClassifierScores]] = [
            (folder, scores.classifiers[step]) for folder, scores in results if step in scores.classifiers
        ]
        minutes = [Manifest.read(folder / step).seconds / 60 for folder, _ in made]
        passes = statistics.mean(entry.image_passes for _, entry in made)
        rows.append(_row(step, f"{made[0][1].gmacs:.4f}", f"{passes:,.0f}", f"{statistics.mean(minutes):.1f}"))
    totals = [
        sum(Manifest.read(path.parent).seconds for path in folder.glob("[0-9]*/manifest.json")) / 60
        for folder, _ in results
    ]
    rows.append(_row("whole run", "", "", f"{statistics.mean(totals):.1f}"))
    return rows


def _steps(results: Results, part: str) -> list[str]:
    return sorted({step for _, scores in results for step in getattr(scores, part)})


def _values(made: Iterable[Intervals], name: str) -> list[float]:
    return [found.value for entry in made if (found := entry[name]) is not None]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _spread(values: list[float], form: Callable[[float], str] = lambda value: f"{100 * value:.1f}") -> str:
    if not values:
        return "-"
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{form(statistics.mean(values))} ± {form(deviation)}"


def _signed_spread(points: list[float]) -> str:
    deviation = statistics.stdev(points) if len(points) > 1 else 0.0
    return f"{statistics.mean(points):+.1f} ± {deviation:.1f}"


def _mean(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.0f}"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns


if __name__ == "__main__":
    main()
