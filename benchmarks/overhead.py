"""What safety costs: the share of a run that goes into checkpoints, commits and hashing.

    python benchmarks/overhead.py                                  # the digits, checkpoints as they are by default
    python benchmarks/overhead.py checkpoint_minutes=0             # one after every step
    python benchmarks/overhead.py --config configs/grocery.yaml data.root=PATH/grocery_64.h5

Time is measured inside one run, around the calls themselves: a share of the same clock, so that it hardly depends on
what else the machine does. Prints Markdown.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nstudent import Session, load_config, run_all
from nstudent.runs import folder as run_folder
from nstudent.screen.bars import Screen
from nstudent.storage.artifact import Artifact
from nstudent.training import loop

PARTS = {
    "checkpoints (copy, hash, write, sync)": (loop, "save_checkpoint"),
    "commits (hash, manifest, sync, rename)": (run_folder, "commit"),
    "hashing what is opened": (Artifact, "paths"),
}


class Stopwatch:
    """Seconds and calls of some functions."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def put_on(self, name: str, owner: Any, attribute: str) -> None:
        """Measure a function from now on."""
        function: Callable[..., Any] = getattr(owner, attribute)

        def measured(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self.seconds[name] += time.perf_counter() - began
                self.calls[name] += 1

        setattr(owner, attribute, measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--folder", type=Path, help="where to make the run; default: a temporary folder")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    watch = Stopwatch()
    for name, (owner, attribute) in PARTS.items():
        watch.put_on(name, owner, attribute)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        config = load_config(arguments.config, arguments.overrides)
        began = time.perf_counter()
        run_all(config, Path(folder) / "run", Session(progress=Screen()))
        whole = time.perf_counter() - began
    print("| part | times | seconds | share of the run |\n|---|---|---|---|")
    for name in PARTS:
        print(f"| {name} | {watch.calls[name]} | {watch.seconds[name]:.2f} | {watch.seconds[name] / whole:.2%} |")
    safety = sum(watch.seconds.values())
    print(f"| **together** | | {safety:.2f} of {whole:.1f} | **{safety / whole:.2%}** |")


if __name__ == "__main__":
    main()
