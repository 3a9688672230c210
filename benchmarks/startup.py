"""How long a command takes that does no work: help, status, a plan, and a finished run once more.

    python benchmarks/startup.py                 # makes a small run of the digits first
    python benchmarks/startup.py --turns 20

Every turn starts each command once, in a process of its own; printed are medians, as multiples of a bare
`python -c pass` in the same turns, and the seconds beside them. Prints Markdown.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SMALL = (
    *("data.labelled=60", "data.unlabelled=60", "teacher.members=[{}]", "teacher.epochs=40", "student.epochs=2"),
    *("filter.enabled=false", "evaluate.resamples=50", "threads=1", "workers=0"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = [*_nstudent("run-all"), *SMALL, "--run-dir", str(Path(folder) / "run")]
        subprocess.run(run, check=True, capture_output=True)
        commands = {
            "`python -c pass`": [sys.executable, "-c", "pass"],
            "`import nstudent`": [sys.executable, "-c", "import nstudent"],
            "`nstudent --help`": _nstudent("--help"),
            "`nstudent run-all --help`": _nstudent("run-all", "--help"),
            "`nstudent run-all --dry-run`": _nstudent("run-all", "--dry-run"),
            "`nstudent status RUN_DIR`": _nstudent("status", str(Path(folder) / "run")),
            "`nstudent run-all`, all of it up to date": run,
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(arguments.turns):
            for name, command in commands.items():
                seconds[name].append(_timed(command))
    _print(seconds, arguments.turns)


def _nstudent(*words: str) -> list[str]:
    return [sys.executable, "-m", "nstudent", *words]


def _timed(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def _print(seconds: dict[str, list[float]], turns: int) -> None:
    print(f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, medians of {turns}\n")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    bare = next(iter(medians.values()))
    print("| | x bare Python | seconds |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median / bare:.1f} | {median:.2f} |")


if __name__ == "__main__":
    main()
