"""Rows of benchmarks/rows: what one run was and what came of it, a JSON object a line.

Read from the JSON files of a run folder, so that runs of another commit can be read, too.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]

LEGACY_NAMES = {
    "contest alone": "level accuracy",
    "contest prefix": "level accuracy, prefix",
    "exact path": "whole path",
}
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
    """Add a row to a file, as a whole line or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def of_run(run_dir: Path) -> Json:
    """Scores, gains, labels and cost of a run that has ended.

    Raises:
        FileNotFoundError: the run has not come to its scores.
    """
    manifests = {path.parent.name: json.loads(path.read_text()) for path in sorted(run_dir.glob("*/manifest.json"))}
    (scored,) = run_dir.glob("*/scores.json") or [run_dir / "scores.json"]
    scores = json.loads(scored.read_text())
    data = next(made for made in manifests.values() if made["stage"] == "data")["metrics"]
    return {
        "images": {part: data[part] for part in ("labelled", "unlabelled", "validation", "test")},
        "seconds": round(sum(made["seconds"] for made in manifests.values()), 1),
        "final": scores["final"],
        "classifiers": {
            step: {
                "gmacs": entry["gmacs"],
                "image_passes": entry["image_passes"],
                "seconds": round(manifests[step]["seconds"], 1),
                **{part: _values(entry[part]) for part in ("validation", "test")},
            }
            for step, entry in scores["classifiers"].items()
        },
        "gain": {
            step: {LEGACY_NAMES.get(name, name): _rounded(gain) for name, gain in gains.items()}
            for step, gains in scores["gain"].items()
        },
        "pseudo_labels": {
            step: {level: _rounded(entry) for level, entry in levels.items()}
            for step, levels in scores["pseudo_labels"].items()
        },
    }


def _values(intervals: Json) -> Json:
    return {
        LEGACY_NAMES.get(name, name): None if found is None else round(found["value"], 6)
        for name, found in intervals.items()
    }


def _rounded(entry: Json) -> Json:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in entry.items()}
