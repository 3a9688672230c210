"""Whole runs in pairs: one setting against another, or one checkout's code against another's, on so many cores.

    python benchmarks/jobs.py --cores 4 --first jobs=1                      # against the defaults
    python benchmarks/jobs.py --cores 4 --first jobs=1 --second jobs=2 threads=1
    python benchmarks/jobs.py --cores 4 --against PATH                      # the code of another checkout is the first

Words of KEY=VALUE stand after `--first` and `--second`; without any it is the embedded run with its defaults. Each turn
makes both runs, in an order that alternates; the seconds are those of the whole command. Printed are the medians, their
ratio, and which steps have other bytes. Prints Markdown.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from checkouts import HERE, name_of, run_all


@dataclass
class Side:
    """One of the two that are compared."""

    checkout: Path
    words: list[str]
    seconds: list[float] = field(default_factory=list)
    steps: dict[str, str] = field(default_factory=dict)
    """By name of a step, the hash of its files in the last run."""

    @property
    def name(self) -> str:
        return " ".join([name_of(self.checkout), *(self.words or ["defaults"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, help="pin to the first so many of the cores there are")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--against", type=Path, default=HERE, metavar="PATH")
    parser.add_argument("--first", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--second", nargs="*", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    # The processes of the runs inherit it.
    os.sched_setaffinity(0, cores[: arguments.cores])
    sides = [Side(arguments.against.resolve(), arguments.first), Side(HERE, arguments.second)]
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.turns):
            for number in (0, 1) if turn % 2 == 0 else (1, 0):
                _run(sides[number], Path(folder), f"{turn}-{number}")
    _print(sides, arguments.turns)


def _run(side: Side, folder: Path, name: str) -> None:
    began = time.perf_counter()
    made = run_all(side.checkout, side.words, folder / f"run-{name}")
    side.seconds.append(time.perf_counter() - began)
    print(f"{side.name}: {side.seconds[-1]:.1f} s", file=sys.stderr, flush=True)
    side.steps = {
        step: hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest() for step, files in made.items()
    }


def _print(sides: list[Side], turns: int) -> None:
    print(f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), medians of {turns} runs\n")
    first, second = (statistics.median(side.seconds) for side in sides)
    print("| | seconds | least | most | ratio |\n|---|---|---|---|---|")
    for side, median in zip(sides, (first, second), strict=True):
        least, most = min(side.seconds), max(side.seconds)
        print(f"| {side.name} | {median:.1f} | {least:.1f} | {most:.1f} | {median / first:.2f} |")
    others = [step for step in sides[0].steps if sides[1].steps.get(step) != sides[0].steps[step]]
    print(f"\nOther bytes in: {', '.join(others) or 'no step'}.")


if __name__ == "__main__":
    main()
