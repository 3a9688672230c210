"""Many runs of the core settings at once, on one machine with one GPU, as far as they come in a few minutes.

    python benchmarks/gpu/core.py --rows rows.jsonl --data FOLDER --seconds 240
    python benchmarks/gpu/core.py --rows rows.jsonl --data FOLDER --code 8b18941=FOLDER --settings fashion --seeds 0
    python benchmarks/gpu/core.py --rows rows.jsonl --data FOLDER --toy      # a rehearsal on the CPU

Every run is a process of its own with one thread. Runs of small networks leave a GPU mostly idle, so that several share
it; the smallest take a core of the CPU each. Those that take longest begin first. A row is written when a run ends; a
run that is in the file is not made again. ``--mps`` lets kernels of several runs be on the GPU at the same moment, by
NVIDIA's multi-process service where it is installed and answers; without it the runs take turns. No run begins that
cannot end in time by what the others took, and what is under way at the end is stopped. Prints what is missing.
``--code NAME=FOLDER`` measures another commit: ``nstudent`` lies in the folder, which stands before what is installed.
"""

import argparse
import contextlib
import itertools
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import rows
from core_data import MissingDataError
from settings import SETTINGS, VARIANTS, Data, one_core

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
TOY = [
    *("teacher.epochs=8", "filter.epochs=1", "student.epochs=1", "filter.max_dropped_share=1", "evaluate.resamples=20"),
    *("teacher.warmup_epochs=0", "filter.iterations=1", "data.unlabelled=200", "student.promote_above=0"),
]
LAST_SECONDS = 3.0
"""For stopping what is under way, and for what is printed."""


@dataclass(frozen=True)
class Task:
    """One run that is to be made."""

    key: rows.Key
    words: list[str]
    device: str
    seconds: float
    alone: bool = False
    """Not by the multi-process service."""

    @property
    def name(self) -> str:
        return f"{self.key.setting}-{self.key.variant}-{self.key.seed}-{self.key.commit}"


@dataclass
class Running:
    task: Task
    process: subprocess.Popen[bytes]
    folder: Path
    began: float


@dataclass
class Pool:
    """Processes under way, at most so many a device, and the factors by which those that ended took longer."""

    slots: dict[str, int]
    code: dict[str, Path | None]
    folder: Path
    out: Path
    ends: float
    under_way: list[Running] = field(default_factory=list)
    factors: dict[str, list[float]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def work(self, waiting: list[Task]) -> None:
        """Make the runs in their order until they are made or the time is over."""
        waiting = list(waiting)
        while (waiting or self.under_way) and time.monotonic() < self.ends:
            for task in list(waiting):
                busy = sum(each.task.device == task.device for each in self.under_way)
                if busy >= self.slots[task.device]:
                    continue
                waiting.remove(task)
                if time.monotonic() + self.expected(task) > self.ends:
                    self.say(f"{task.name}: not begun, would take {self.expected(task):.0f} s")
                else:
                    self.under_way.append(self.begin(task))
            time.sleep(0.1)
            for running in [each for each in self.under_way if each.process.poll() is not None]:
                self.under_way.remove(running)
                if not self.end(running) and "CUDA_MPS_PIPE_DIRECTORY" in os.environ and not running.task.alone:
                    shutil.rmtree(running.folder, ignore_errors=True)
                    waiting.append(replace(running.task, alone=True))
        for running in self.under_way:
            os.killpg(running.process.pid, signal.SIGKILL)
            running.process.wait()
            self.say(f"{running.task.name}: stopped after {time.monotonic() - running.began:.0f} s: {_last(running)}")
        for task in waiting:
            self.say(f"{task.name}: not begun")

    def expected(self, task: Task) -> float:
        """Seconds that a run will take, by the longest that runs of its device took beyond what was thought."""
        return task.seconds * max(self.factors.get(task.device, [0.0]))

    def begin(self, task: Task) -> Running:
        folder = self.folder / task.name
        code = self.code[task.key.commit]
        path = [str(code)] if code else []
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        path += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        environment = {**inherited, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(path), "NO_ALBUMENTATIONS_UPDATE": "1"}
        if task.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        if task.alone:
            environment = {name: value for name, value in environment.items() if not name.startswith("CUDA_MPS")}
        command = [sys.executable, "-m", "nstudent", "run-all", *task.words, "--run-dir", str(folder)]
        with (self.folder / f"{task.name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        return Running(task, process, folder, time.monotonic())

    def end(self, running: Running) -> bool:
        """Write the row of a run that has ended; returns whether there is one."""
        task, took = running.task, time.monotonic() - running.began
        if running.process.returncode:
            self.say(f"{task.name}: failed after {took:.0f} s: {_last(running, 1200)}")
            return False
        self.factors.setdefault(task.device, []).append(took / task.seconds)
        key = {"setting": task.key.setting, "variant": task.key.variant, "seed": task.key.seed}
        row = {**key, "commit": task.key.commit, "device": task.device, "wall": round(took, 1)}
        rows.append(self.out, {**row, **rows.of_run(running.folder)})
        shutil.rmtree(running.folder)
        print(f"{task.name}: {took:.0f} s", flush=True)
        return True

    def say(self, text: str) -> None:
        self.said.append(text)
        print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="file that rows are appended to")
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder with the files of the settings")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--variants", nargs="+", default=["defaults"], choices=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--code", nargs="+", default=["here"], metavar="NAME[=FOLDER]", help="commits to measure")
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--gpu", type=int, default=10, help="runs that share the GPU")
    parser.add_argument("--mps", action="store_true", help="kernels of several runs at the same moment")
    parser.add_argument("--cpu", type=int, default=5, help="runs on the CPU")
    parser.add_argument("--toy", action="store_true", help="a rehearsal on the CPU")
    parser.add_argument("--work", type=Path, help="folder for the runs; default: a temporary one")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        code = {name: Path(where).resolve() if where else None for name, _, where in _pairs(arguments.code)}
        slots = {"cuda": arguments.gpu, "cpu": arguments.cpu}
        pool = Pool(slots, code, folder, arguments.rows.resolve(), began + arguments.seconds - LAST_SECONDS)
        waiting = tasks(arguments, Data.of([path.resolve() for path in arguments.data], folder / "data"))
        print(f"{len(waiting)} runs to make; prepared in {time.monotonic() - began:.0f} s", flush=True)
        with shared_gpu(folder) if arguments.mps else contextlib.nullcontext():
            pool.work(waiting)
        medians = {device: f"{statistics.median(values):.2f}" for device, values in pool.factors.items()}
        print(
            f"{time.monotonic() - began:.0f} s; {len(pool.said)} runs missing; time against what was thought: {medians}"
        )


@contextlib.contextmanager
def shared_gpu(folder: Path) -> Iterator[None]:
    """NVIDIA's multi-process service for the processes that are started meanwhile, if a trial says that it works."""
    control = shutil.which("nvidia-cuda-mps-control", path=f"{os.environ['PATH']}:/usr/local/nvidia/bin")
    places = {f"CUDA_MPS_{name}_DIRECTORY": str(folder / name) for name in ("PIPE", "LOG")}
    if control is None:
        print("no multi-process service here: the runs take turns on the GPU", flush=True)
        yield
        return
    for place in places.values():
        Path(place).mkdir(exist_ok=True)
    os.environ.update(places)
    trial = [sys.executable, "-c", "import torch; print(torch.ones(9, device='cuda').sum().item())"]
    try:
        subprocess.run([control, "-d"], timeout=20, check=True)
        subprocess.run(trial, timeout=40, check=True, capture_output=True)
        print("multi-process service: it works", flush=True)
    except (subprocess.SubprocessError, OSError) as error:
        print(f"multi-process service: the runs take turns on the GPU, because {error}", flush=True)
        for name in places:
            del os.environ[name]
    yield
    with contextlib.suppress(subprocess.SubprocessError, OSError):
        subprocess.run([control], input=b"quit\n", env={**os.environ, **places}, timeout=10, check=False)


def tasks(arguments: argparse.Namespace, data: Data) -> list[Task]:
    """The runs that are not among the rows, seed 0 of each setting before the others, the longest first."""
    there = {rows.Key.of(row) for row in rows.read([arguments.rows])}
    found = []
    commits = [name for name, _, _ in _pairs(arguments.code)]
    for setting, variant, seed, commit in itertools.product(
        arguments.settings, arguments.variants, arguments.seeds, commits
    ):
        key = rows.Key(setting, variant, seed, commit)
        if key in there:
            continue
        entry = SETTINGS[setting]
        device = "cpu" if arguments.toy else entry.device
        try:
            words = entry.words(data, seed)
        except MissingDataError as error:
            raise SystemExit(str(error)) from error
        words = [
            *words,
            *VARIANTS[variant],
            *(TOY if arguments.toy else []),
            *one_core(commit),
            f"seed={seed}",
            f"device={device}",
        ]
        found.append(Task(key, words, device, entry.seconds))
    return sorted(found, key=lambda task: -task.seconds)


def _pairs(words: list[str]) -> list[tuple[str, str, str]]:
    return [word.partition("=") for word in words]


def _last(running: Running, characters: int = 300) -> str:
    """The end of what a run has said, in one line."""
    log = running.folder.parent / f"{running.folder.name}.log"
    return " ".join(log.read_text(errors="replace")[-characters:].split())


if __name__ == "__main__":
    main()
