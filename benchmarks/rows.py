"""Rows of benchmarks/rows: what one run was and what came of it, a JSON object a line.

A row is read from the JSON files of a run folder, and looks the same for every commit. Up to 27eaa50 a run has no pools
and no comparison of the best with the heap and the best without it: there, each side is the single classifier that is
best on validation, its passes and minutes are those of its own training, and the gain has an interval only where the
run compared just these two.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]

HEADLINE = "level accuracy"
WHOLE_PATH = "whole path"
LEGACY_NAMES = {"contest alone": HEADLINE, "contest prefix": "levels before a mistake", "exact path": WHOLE_PATH}
"""Names of scores up to commit 27eaa50, and those that came after."""


@dataclass(frozen=True)
class Key:
    """What a row is found by."""

    setting: str
    variant: str
    seed: int
    commit: str

    @classmethod
    def of(cls, row: Json) -> "Key":
        return cls(row["setting"], row["variant"], row["seed"], row["commit"])


def read(files: Iterable[Path]) -> list[Json]:
    """All rows of some files. A key that is there twice has its last row."""
    rows = [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines() if line]
    return list({Key.of(row): row for row in rows}.values())


def append(file: Path, row: Json) -> None:
    """Add a row to the end of a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row, separators=(",", ":")) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def of_run(run_dir: Path) -> Json:
    """Scores, gains, labels and cost of a run that has ended.

    Raises:
        FileNotFoundError: the run has not come to its scores.
    """
    manifests = {path.parent.name: json.loads(path.read_text()) for path in sorted(run_dir.glob("*/manifest.json"))}
    # A folder that an earlier version has used may hold its scores, too, at a step with a lower number.
    scored = max(run_dir.glob("*/scores.json"), default=run_dir / "scores.json")
    scores = json.loads(scored.read_text())
    data = next(made for made in manifests.values() if made["stage"] == "data")["metrics"]
    classifiers = {
        step: {
            "stage": manifests[step]["stage"],
            "gmacs": entry["gmacs"],
            "image_passes": entry["image_passes"],
            "seconds": round(manifests[step]["seconds"], 1),
            **_values(entry),
        }
        for step, entry in scores["classifiers"].items()
    }
    row = {
        "images": {part: data[part] for part in ("labelled", "unlabelled", "validation", "test")},
        "torch": next(iter(manifests.values()))["environment"]["torch"],
        "seconds": round(sum(made["seconds"] for made in manifests.values()), 1),
        "classifiers": classifiers,
        **(_legacy_sides(scores, classifiers) if isinstance(scores["final"], str) else _sides(scores)),
        "calibration": _rounded(scores.get("calibration", {})),
        "pseudo_labels": _rounded(scores["pseudo_labels"]),
        "given_labels": _rounded(scores["given_labels"]),
        "inconsistent": _rounded(scores.get("inconsistent")),
    }
    refit = scored.with_name("refit.json")
    if refit.exists():
        row["refit"] = _refit(json.loads(refit.read_text()))
    chosen = [made["metrics"] for made in manifests.values() if "candidates" in made["metrics"]]
    if chosen:
        kept = ("name", "parts", "saw_heap", "gmacs", "validation", "gain", "expected")
        row["candidates"] = [{key: _rounded(each[key]) for key in kept} for each in chosen[-1]["candidates"]]
    return row


def _refit(found: Json) -> Json:
    """What was trained again on labels and validation together, against what it was before and the labels alone."""
    sides = {
        name: {**_rounded(found[name]), **_values(found[name])} if found[name] else None
        for name in ("final", "labels_alone")
    }
    return sides | {name: _rounded(found[name]) for name in ("over_chosen", "gain")}


def _sides(scores: Json) -> Json:
    """Final classifier, the best with the heap, the best without it, and what lies between them."""

    def side(given: Json) -> Json:
        return {**_rounded(given), **_values(given)}

    gain = scores["heap_gain"]
    return {
        "final": side(scores["final"]),
        "with_heap": side(gain["with_heap"]) if gain else None,
        "labels_alone": side(gain["labels_alone"]) if gain else side(scores["final"]),
        "heap_gain": _rounded(gain["difference"]) if gain else None,
        "equal_passes": _rounded(scores["equal_passes"]),
    }


def _legacy_sides(scores: Json, classifiers: Json) -> Json:
    """The same of a run up to commit 27eaa50, by its single classifiers.

    ``gain`` of such a run holds its final classifier minus each one that learnt from the labels alone.
    """

    def best(steps: list[str]) -> Json:
        name = max(steps, key=lambda step: classifiers[step]["validation"][HEADLINE])
        entry = {key: value for key, value in classifiers[name].items() if key not in ("stage", "seconds")}
        return {"name": name, "parts": {name: 1.0}, "minutes": round(classifiers[name]["seconds"] / 60, 2), **entry}

    def minus(first: str, second: str) -> Json:
        if first == scores["final"] and second in scores["gain"]:
            return {LEGACY_NAMES[name]: _rounded(gain) for name, gain in scores["gain"][second].items()}
        one, other = classifiers[first]["test"], classifiers[second]["test"]
        return {name: {"value": round(one[name] - other[name], 6)} for name in (HEADLINE, WHOLE_PATH)}

    students = [step for step, entry in classifiers.items() if entry["stage"] == "student"]
    alone = best([step for step in classifiers if step not in students])
    baselines = [step for step, entry in classifiers.items() if entry["stage"] == "baseline"]
    return {
        "final": best([scores["final"]]),
        "with_heap": best(students) if students else None,
        "labels_alone": alone,
        "heap_gain": minus(best(students)["name"], alone["name"]) if students else None,
        "equal_passes": minus(students[-1], baselines[0]) if students and baselines else None,
    }


def _values(scored: Json) -> Json:
    """Scores on validation and on test, without their intervals."""
    return {
        part: {
            LEGACY_NAMES.get(name, name): None if found is None else round(found["value"], 6)
            for name, found in scored[part].items()
        }
        for part in ("validation", "test")
    }


def _rounded(entry: Any) -> Any:
    if isinstance(entry, dict):
        return {name: _rounded(value) for name, value in entry.items()}
    return round(entry, 6) if isinstance(entry, float) else entry
