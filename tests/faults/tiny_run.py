"""The smallest run that goes through every stage, and what of it has to be the same however often it was killed."""

import hashlib
import json
from pathlib import Path
from typing import Any

TINY = (
    *(
        "threads=1",
        "jobs=1",
        "workers=0",
        "device=cpu",
        "precision=float32",
        "rounds=1",
        "probe.members=[]",
        "checkpoint_minutes=0",
    ),
    *("data.image_size=8", "data.labelled=60", "data.unlabelled=30", "data.validation=60", "data.test=60"),
    *("teacher.members=[{}]", "teacher.batch_size=30", "teacher.epochs=8", "teacher.ema_decay=0.8"),
    "teacher.learning_rate=0.02",
    *("pseudolabel.threshold=0.2", "pseudolabel.shard_rows=16"),
    *("pseudolabel.balance=true", "filter.enabled=true"),
    *("filter.epochs=2", "filter.iterations=1", "filter.ema_decay=0.8", "filter.batch_size=15"),
    "filter.max_dropped_share=1.0",
    *("student.batch_size=15", "student.ema_decay=0.8", "student.epochs=2", "student.unlabelled_ratio=1"),
    "evaluate.resamples=20",
)
STAGES = ("data", "teacher", "baseline", "choose", "pseudolabel", "filter", "student", "evaluate")

_OWN = {".lock", "report.html", ".started.json"}
"""Files that are no result: they may stay or not, a report says how long the steps took, and where a run was started is
a matter of its folder."""
_VARYING = ("seconds", "environment")
"""Entries of a manifest that say how it was made and not what was."""


def run_all_words(run_dir: Path, *overrides: str) -> list[str]:
    """The command that makes the whole run."""
    return ["run-all", *TINY, *overrides, "--run-dir", str(run_dir)]


def results(run_dir: Path) -> dict[str, str]:
    """sha256 of everything in a run folder, by its path: nothing may be missing, changed, or left over."""
    found = {}
    for path in sorted(run_dir.rglob("*")):
        name = path.relative_to(run_dir).as_posix()
        if path.is_file() and name not in _OWN:
            content = _steady(path.read_bytes()) if path.name == "manifest.json" else path.read_bytes()
            found[name] = hashlib.sha256(content).hexdigest()
        elif path.is_dir() and ".partial" in path.name:
            found[name] = "left over"
    return found


def _steady(manifest: bytes) -> bytes:
    content: dict[str, Any] = json.loads(manifest)
    return json.dumps({key: value for key, value in content.items() if key not in _VARYING}, sort_keys=True).encode()


def stage_at_work(run_dir: Path) -> str:
    """The stage that a killed run was in: what lies there half made, or what was made last."""
    names = sorted(path.name for path in run_dir.glob("*-*")) if run_dir.exists() else []
    partial = [name for name in names if name.endswith(".partial")]
    if partial:
        return partial[0].removesuffix(".partial").partition("-")[2]
    return f"after {names[-1].partition('-')[2]}" if names else "before the first"
