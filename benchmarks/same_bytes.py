"""Whether two checkouts make the same bytes: every weight, label, selection and score, file by file.

    python benchmarks/same_bytes.py PATH                   # another checkout against this one
    python benchmarks/same_bytes.py PATH --only everything

Two runs of each, in float32 on one thread of a CPU: the embedded one, and a small one of two rounds with every switch
on (a filter of human labels too, CutMix, MixUp, erasing, dropout, stochastic depth, two members, absent as a class).
It is for changes that are to move code and not numbers. Prints Markdown, and ends with 1 where a file differs.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from checkouts import HERE, name_of, run_all

EXACT = ["threads=1", "workers=0", "device=cpu", "precision=float32"]
NOISE = (
    "{flip: true, operations: 2, erase: 0.3, dropout: 0.2, drop_path: 0.1, "
    "cutmix: 0.4, cutmix_schedule: constant, mixup: 0.3}"
)
RUNS = {
    "embedded": [],
    "everything": [
        *("rounds=2", "absent=class", "checkpoint_minutes=0", "data.image_size=16", "data.unlabelled=240"),
        *("teacher.epochs=8", "teacher.batch_size=25", f"teacher.noise={NOISE}"),
        *(
            "pseudolabel.balance=true",
            "filter.enabled=true",
            "filter.labelled=true",
            "filter.epochs=14",
            "filter.iterations=1",
            "filter.max_dropped_share=1",
        ),
        f"filter.noise={NOISE}",
        *(
            "student.epochs=14",
            "student.batch_size=32",
            "student.learning_rate=0.006",
            f"student.noise={NOISE}",
        ),
        *("pseudolabel.threshold=0.3", "evaluate.resamples=50"),
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="folder of another checkout")
    parser.add_argument("--only", choices=list(RUNS), help="one of the two runs")
    arguments = parser.parse_args()
    other = arguments.other.resolve()
    print(f"{name_of(HERE)} against {name_of(other)}\n\n| run | step | files | that differ |\n|---|---|---|---|")
    differ = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, words in RUNS.items():
            if arguments.only in (None, name):
                made = [
                    run_all(checkout, [*EXACT, *words], Path(folder) / f"{name}-{side}")
                    for side, checkout in (("this", HERE), ("other", other))
                ]
                differ += compare(name, *made)
    sys.exit(int(bool(differ)))


def compare(run: str, ours: dict[str, dict[str, str]], theirs: dict[str, dict[str, str]]) -> int:
    """Print a line a step; returns how many files differ."""
    differ = 0
    for step in sorted({*ours, *theirs}):
        here, there = ours.get(step, {}), theirs.get(step, {})
        files = sorted({*here, *there})
        wrong = [file for file in files if here.get(file) != there.get(file)]
        differ += len(wrong)
        print(f"| {run} | {step} | {len(files)} | {', '.join(wrong) or '-'} |", flush=True)
    return differ


if __name__ == "__main__":
    main()
