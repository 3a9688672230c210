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
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import rows
from pool import SHARED_GPU, Asked, Code, Pool, tasks
from settings import CORE, SETTINGS, VARIANTS, Data

TOY = [
    *("teacher.epochs=8", "filter.epochs=1", "student.epochs=1", "filter.max_dropped_share=1", "evaluate.resamples=20"),
    *("teacher.warmup_epochs=0", "filter.iterations=1", "data.unlabelled=200"),
]
LAST_SECONDS = 3.0
"""For stopping what is under way, and for what is printed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="file that rows are appended to")
    parser.add_argument("--data", type=Path, action="append", default=[], help="folder with the files of the settings")
    parser.add_argument("--settings", nargs="+", default=list(CORE), choices=list(SETTINGS))
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
    with tempfile.TemporaryDirectory() as temporary:
        measure(arguments, (arguments.work or Path(temporary)).resolve())


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [word.partition("=") for word in arguments.code]
    code = [Code(name, Path(where).resolve() if where else None) for name, _, where in pairs]
    toy = TOY if arguments.toy else []
    variants = {name: [*VARIANTS[name], *toy] for name in arguments.variants}
    asked = Asked(arguments.settings, variants, arguments.seeds, code)
    data = Data.of([path.resolve() for path in arguments.data], folder / "data")
    waiting = tasks(asked, rows.read([arguments.rows]), data, "cpu" if arguments.toy else None)
    print(f"{len(waiting)} runs to make; prepared in {time.monotonic() - began:.0f} s", flush=True)
    slots = {"cuda": arguments.gpu, "cpu": arguments.cpu}
    folders = {each.name: each.folder for each in code}
    pool = Pool(slots, folders, folder, arguments.rows.resolve(), began + arguments.seconds - LAST_SECONDS)
    with shared_gpu(folder) if arguments.mps else contextlib.nullcontext():
        pool.work(waiting)
    took = {setting: round(statistics.median(seconds)) for setting, seconds in pool.took.items()}
    print(f"{time.monotonic() - began:.0f} s; {len(pool.missing)} not made; seconds of a run, medians: {took}")


@contextlib.contextmanager
def shared_gpu(folder: Path) -> Iterator[None]:
    """NVIDIA's multi-process service for the processes that are started meanwhile, if a trial says that it works."""
    control = shutil.which("nvidia-cuda-mps-control", path=f"{os.environ['PATH']}:/usr/local/nvidia/bin")
    places = {f"{SHARED_GPU}{name}_DIRECTORY": str(folder / name) for name in ("PIPE", "LOG")}
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
    try:
        yield
    finally:
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            subprocess.run([control], input=b"quit\n", env={**os.environ, **places}, timeout=10, check=False)


if __name__ == "__main__":
    main()
