"""Kill a whole run at many moments, run it again, and compare every byte with a run that was left alone.

    python benchmarks/kill_campaign.py --kills 200 --seed 0        # random moments, random operations, real processes
    python benchmarks/kill_campaign.py --every kill                # before each change of the run folder in turn
    python benchmarks/kill_campaign.py --every ENOSPC              # a disk that is full from each of them on
    python benchmarks/kill_campaign.py --repairs 100               # rotten files, and kills while they are made again

The run goes through two rounds of pseudo-labels, filter and student on the CPU (--rounds). Most runs happen
in forked children of a process that has imported everything; some are commands of their own. A third of the runs is
killed several times. Prints Markdown; exits with 1 where a single run differs.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "faults"))

from fault_injection import KILL, TEAR, Fault, recorded
from fork_server import ForkServer, fork_server
from interrupted_run import Results, differences, finish, strike, stumps
from tiny_run import results, run_all_words, stage_at_work

_REPAIR_OPERATIONS = 60
"""A repair's kill is drawn from so many first operations: of a step that is trained again there are about so many."""


class Table:
    """Counts what was tried, and keeps what went wrong."""

    def __init__(self) -> None:
        self.kills: Counter[tuple[str, str]] = Counter()
        self.runs: Counter[str] = Counter()
        self.identical: Counter[str] = Counter()
        self.wrong: list[str] = []

    def add(self, how: str, stages: list[str], wrong: list[str], what: str) -> None:
        self.kills.update((how, stage) for stage in stages)
        self.runs[how] += 1
        self.identical[how] += not wrong
        if wrong:
            self.wrong.append(f"{how}, {what}: {'; '.join(wrong)[:600]}")
            print(self.wrong[-1], file=sys.stderr, flush=True)

    def lines(self) -> Iterator[str]:
        ways = list(self.runs)
        yield "| struck in | " + " | ".join(ways) + " |"
        yield "|---|" + "---|" * len(ways)
        for stage in sorted({stage for _, stage in self.kills}):
            yield f"| {stage} | " + " | ".join(str(self.kills[way, stage]) for way in ways) + " |"
        yield (
            "| **times struck** | "
            + " | ".join(str(sum(count for (how, _), count in self.kills.items() if how == way)) for way in ways)
            + " |"
        )
        yield (
            "| **runs identical** | " + " | ".join(f"{self.identical[way]} of {self.runs[way]}" for way in ways) + " |"
        )


class Campaign:
    """A server, a whole run to compare with, and a folder to make runs in."""

    def __init__(self, server: ForkServer, folder: Path, seed: int, rounds: int) -> None:
        self.overrides = (f"rounds={rounds}", "evaluate.resamples=500")
        self.server = server
        self.folder = folder
        self.random = random.Random(seed)
        self.table = Table()
        began = server.run(run_all_words(folder / "whole", *self.overrides), folder / "whole", Fault(-1))
        assert began.status == 0, began.error
        self.whole: Results = results(folder / "whole")
        self.operations = recorded(server.log)
        # Once more, for how long it takes where everything is warm.
        self.seconds = server.run(run_all_words(folder / "again", *self.overrides), folder / "again").seconds
        print(f"{len(self.operations)} operations, {self.seconds:.1f} s a run, {len(self.whole)} files", flush=True)

    def moments(self, runs: int) -> None:
        """Kill at random moments; every third run several times."""
        for number in range(runs):
            with self._run_dir() as run_dir:
                stages: list[str] = []
                wrong: list[str] = []
                for _ in range(1 if number % 3 else self.random.randint(2, 4)):
                    moment = self.random.uniform(0, self.seconds)
                    words = run_all_words(run_dir, *self.overrides)
                    if self.server.run(words, run_dir, kill_after=moment).status < 0:
                        stages.append(stage_at_work(run_dir))
                    wrong += stumps(run_dir)
                wrong += finish(self.server, run_dir, self.whole, self.overrides)
                self.table.add("random moment", stages, wrong, f"run {number}")

    def drawn_operations(self, runs: int) -> None:
        """Kill at random operations; at half of the syncs the unsynced half of the file is lost."""
        for _ in range(runs):
            at = self.random.randrange(len(self.operations))
            self._at(at, self.random.choice([KILL, TEAR]), "random operation")

    def every_operation(self, kind: str, stride: int, first: int) -> None:
        """The same fault at each operation in turn; errors last, as a full disk does."""
        for at in range(first, len(self.operations), stride):
            self._at(at, kind, f"{kind} at each operation")

    def repairs(self, runs: int) -> None:
        """Damage some files of a finished run, kill the repair at random operations, and repair to the end."""
        for number in range(runs):
            with self._run_dir() as run_dir:
                shutil.copytree(self.folder / "whole", run_dir)
                files = [path for path in run_dir.glob("[0-9]*/*") if path.name != "manifest.json"]
                damaged = self.random.sample(files, self.random.randint(1, 3))
                for path in damaged:
                    _damage(path, self.random)
                words, stages = ["verify", str(run_dir), "--repair"], []
                for _ in range(self.random.randint(1, 3)):
                    fault = Fault(self.random.randrange(_REPAIR_OPERATIONS), self.random.choice([KILL, TEAR]))
                    if self.server.run(words, run_dir, fault).status < 0:
                        stages.append(stage_at_work(run_dir))
                done = self.server.run(words, run_dir)
                wrong = [f"ended with {done.status}: {done.error[-300:]}"] if done.status else []
                wrong += differences(results(run_dir), self.whole)
                names = ", ".join(path.relative_to(run_dir).as_posix() for path in damaged)
                self.table.add("repair", stages, wrong, f"run {number} ({names})")

    def _at(self, at: int, kind: str, how: str) -> None:
        with self._run_dir() as run_dir:
            fault = Fault(at, kind, lasting=kind.startswith("E"))
            trial = strike(self.server, run_dir, self.whole, fault, overrides=self.overrides)
            self.table.add(how, [trial.stage], trial.wrong, f"operation {at} ({' '.join(self.operations[at])})")

    def real_processes(self, runs: int) -> None:
        """Commands of their own, imports and all, killed at random moments."""
        began = time.monotonic()
        with self._run_dir() as run_dir:
            subprocess.run(self._command(run_dir), check=True, capture_output=True)
        seconds = time.monotonic() - began
        for number in range(runs):
            with self._run_dir() as run_dir:
                moment = self.random.uniform(0.3 * seconds, seconds)
                stages = [_killed(self._command(run_dir), run_dir, moment)]
                wrong = stumps(run_dir)
                subprocess.run(self._command(run_dir), check=True, capture_output=True)
                wrong += [] if results(run_dir) == self.whole else ["differs"]
                self.table.add("process of its own", [s for s in stages if s], wrong, f"run {number}")

    def _command(self, run_dir: Path) -> list[str]:
        return [sys.executable, "-m", "nstudent", *run_all_words(run_dir, *self.overrides)]

    def _run_dir(self) -> "_Folder":
        return _Folder(self.folder)


class _Folder:
    """A run folder that is there for the time of a ``with``."""

    def __init__(self, above: Path) -> None:
        self._temporary = tempfile.TemporaryDirectory(dir=above)

    def __enter__(self) -> Path:
        return Path(self._temporary.name) / "run"

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()


def _damage(path: Path, draw: random.Random) -> None:
    """Flip a bit, cut the file off, or remove it."""
    content = bytearray(path.read_bytes())
    match draw.choice(["bit", "cut", "gone"]):
        case "bit":
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            path.write_bytes(content)
        case "cut":
            path.write_bytes(content[: draw.randrange(len(content))])
        case _:
            path.unlink()


def _killed(command: list[str], run_dir: Path, seconds: float) -> str:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return stage_at_work(run_dir)
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="runs that are killed, each at least once")
    parser.add_argument("--real", type=int, default=20, help="so many of them are processes of their own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--every", help="kill, tear, or an error such as ENOSPC, at each operation instead")
    parser.add_argument("--repairs", type=int, help="so many damaged runs, killed in their repair")
    parser.add_argument("--stride", type=int, default=1, help="with --every: every so many operations")
    parser.add_argument("--first", type=int, default=0, help="with --every: begin at this operation")
    parser.add_argument("--folder", type=Path, help="where to make the runs; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, fork_server(Path(folder)) as server:
        began = time.monotonic()
        campaign = Campaign(server, Path(folder), arguments.seed, arguments.rounds)
        if arguments.repairs:
            campaign.repairs(arguments.repairs)
        elif arguments.every:
            campaign.every_operation(arguments.every, arguments.stride, arguments.first)
        else:
            drawn = (arguments.kills - arguments.real) // 2
            campaign.moments(arguments.kills - arguments.real - drawn)
            campaign.drawn_operations(drawn)
            campaign.real_processes(arguments.real)
        print("\n".join(campaign.table.lines()))
        print(f"\n{(time.monotonic() - began) / 60:.1f} minutes; {len(campaign.table.wrong)} runs differ")
        return 1 if campaign.table.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
