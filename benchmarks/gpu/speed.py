"""All that is to be known of a GPU's speed, in one command that ends in time (200 seconds by default).

    python benchmarks/gpu/speed.py                     # on a CUDA device; the tests that need one come first
    python benchmarks/gpu/speed.py --device cpu --toy  # a rehearsal of every line, at sizes that mean nothing

Lines are ordered by importance, and each has a limit of its own: one that takes longer is given up, and the next one
begins in a fresh process. What a line has to say is printed when it is known, and appended to --out. Prints Markdown.

A step and its bare loop are those of ``benchmarks/step.py``, labelling and its bare forward passes those of
``benchmarks/labelling.py``, the ceiling is that of ``benchmarks/ceiling.py``; ratios are of medians, bare / ours, from
one process in turns.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch

BENCHMARKS = Path(__file__).resolve().parent.parent
TESTS = BENCHMARKS.parent / "tests"
sys.path.insert(0, str(BENCHMARKS))

from ceiling import Product, describe, profiled  # noqa: E402
from labelling import Heap  # noqa: E402
from nstudent import load_config, run_stage  # noqa: E402
from nstudent.artifact import Artifact  # noqa: E402
from nstudent.config import Config  # noqa: E402
from nstudent.data.dataset import Dataset  # noqa: E402
from nstudent.models.cost import gmacs  # noqa: E402
from step import Bench, Turns, Variant, waits  # noqa: E402

NOISE = ["student.noise.flip=true", "student.noise.cutmix_schedule=constant"]
"""Beside the student's own noise: CutMix in half of the batches from the first step on."""
PROFILED_STEPS = 3


@dataclass(frozen=True)
class Scale:
    """How much of everything is measured."""

    small: str
    large: str
    """Networks for 32 px and for 300 px."""
    large_px: int
    batches: tuple[int, int, int]
    """Images a step: of the small network, twice, and of the large one."""
    heap: tuple[int, int]
    """Images that the small and the large network label a turn."""
    turns: int
    steps: int
    large_steps: int
    """Steps a turn, of the small network and of the large one."""


FULL = Scale("wrn_28_2", "tf_efficientnetv2_s", 300, (512, 64, 64), (131_072, 6_144), turns=5, steps=30, large_steps=10)
TOY = Scale("test_resnet", "test_efficientnet", 64, (16, 8, 4), (512, 32), turns=1, steps=2, large_steps=1)


class Lines:
    """The lines of the report; each is a method, in the order in which they are taken."""

    def __init__(self, device: str, scale: Scale, folder: Path) -> None:
        self._device = device
        self._scale = scale
        self._folder = folder

    def ceiling(self) -> None:
        """What the chip does at best, and the machine."""
        device = torch.device(self._device)
        name = torch.cuda.get_device_name() if self._device == "cuda" else "CPU"
        product = Product(device, 8192 if self._device == "cuda" else 256, torch.bfloat16)
        for _ in range(5):
            product.take()
        say(f"{name}; torch {torch.__version__}, timm {timm.__version__}; matrix products in bfloat16:")
        say(
            f"{product.flops() / 1e12:.1f} TFLOP/s\n\n"
            "| | bare / ours | images/s: ours | others | more |\n|---|---|---|---|---|"
        )

    def small_step(self) -> None:
        """A step of the small network, at the batch that a GPU likes."""
        self._step(self._scale.small, 32, self._scale.batches[0], self._scale.steps)

    def small_batch(self) -> None:
        """The same at a batch that leaves a GPU waiting for the host."""
        self._step(self._scale.small, 32, self._scale.batches[1], self._scale.steps)

    def small_labels(self) -> None:
        """Labelling by the small network."""
        self._label(self._scale.small, 32, self._scale.heap[0])

    def large_step(self) -> None:
        """A step of the large network."""
        self._step(self._scale.large, self._scale.large_px, self._scale.batches[2], self._scale.large_steps)

    def large_labels(self) -> None:
        """Labelling by the large network."""
        self._label(self._scale.large, self._scale.large_px, self._scale.heap[1])

    def host_waits(self) -> None:
        """Where a step makes the host wait, by torch's own account."""
        if self._device == "cpu":
            say("| the host waits | | | | not asked on a CPU |")
            return
        with self._bench(self._scale.small, 32, self._scale.batches[1]) as bench:
            say(f"| the host waits | | | | {', '.join(waits(bench)) or 'nowhere'} |")

    def variants(self) -> None:
        """What the small network's step costs without its noise, and launched kernel by kernel."""
        calm = {"operations": 0, "shift": 0, "zoom": 0, "rotate": 0, "flip": False, "cutmix": 0}
        changes = {"without noise": Variant(noise=calm), "launched one by one": Variant(records=False)}
        self._step(self._scale.small, 32, self._scale.batches[0], self._scale.steps, changes)

    def timed_kernels(self) -> None:
        """What cuDNN's choice of kernels by stopwatch brings, and takes before the first step."""
        for net, side, batch, steps in self._steps():
            with self._bench(net, side, batch) as bench:
                torch.backends.cudnn.benchmark = True
                began = time.monotonic()
                ours = bench.ours(Variant())
                ours.take(1)
                first_s = time.monotonic() - began
                seconds = self._medians({"ours": ours}, steps)["ours"]
                say(f"| step, {net}, timed kernels | | {batch / seconds:,.0f} | | first step {first_s:.1f} s |")

    def profile(self) -> None:
        """What the device does in a step, and where it idles."""
        for batch in self._scale.batches[:2]:
            with self._bench(self._scale.small, 32, batch) as bench:
                say(f"\n{self._scale.small}, batch {batch}")
                describe(*profiled(bench, PROFILED_STEPS), PROFILED_STEPS)

    def _steps(self) -> list[tuple[str, int, int, int]]:
        """Network, side, batch and steps a turn, of what is measured at full load."""
        scale = self._scale
        return [
            (scale.small, 32, scale.batches[0], scale.steps),
            (scale.large, scale.large_px, scale.batches[2], scale.large_steps),
        ]

    def _medians(self, turns: dict[str, Turns], steps: int) -> dict[str, float]:
        """Median seconds a step of each, which take turns; the first turn warms up."""
        for number in range(self._scale.turns + 1):
            for each in turns.values():
                each.take(steps)
                if not number:
                    each.wall.clear()
        return {name: statistics.median(each.wall) for name, each in turns.items()}

    def _step(self, net: str, side: int, batch: int, steps: int, changes: dict[str, Variant] | None = None) -> None:
        with self._bench(net, side, batch) as bench:
            torch.backends.cudnn.benchmark = False
            if self._device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            began = time.monotonic()
            ours = bench.ours(Variant())
            ours.take(1)
            first_s = time.monotonic() - began
            flops = 6e9 * gmacs([bench.member()], side) * batch
            others: dict[str, Turns] = {"bare": bench.bare()}
            others |= {name: bench.ours(variant) for name, variant in (changes or {}).items()}
            # The recorded one in a second go: what comes first is then on paper whatever becomes of it.
            for more in (False, True) if bench.placement.records else (False,):
                compared = {"bare, recorded": bench.bare(recorded=True)} if more else others
                seconds = self._medians({"ours": ours, **compared}, steps)
                rates = ", ".join(f"{name} {batch / seconds[name]:,.0f}" for name in compared)
                spread = f"{batch / max(ours.wall):,.0f}-{batch / min(ours.wall):,.0f}"
                against = f"{seconds[next(iter(compared))] / seconds['ours']:.3f}"
                say(
                    f"| step, {net}, {side} px, batch {batch}{', against recorded' if more else ''} | **{against}** | "
                    f"{batch / seconds['ours']:,.0f} ({spread}) | {rates} | {flops / seconds['ours'] / 1e12:.1f} "
                    f"TFLOP/s; {peak_gib(self._device)}; first step {first_s:.1f} s |"
                )

    def _label(self, net: str, side: int, images: int) -> None:
        with self._dataset(side) as (config, dataset):
            heap = Heap(config, dataset, net, 1, images, self._folder)
            wall, _ = heap.timed(self._scale.turns)
            ours, bare = wall["labelling"], wall["bare"]
            say(
                f"| labelling, {net}, {side} px, batch {heap.size.images} | **{bare / ours:.3f}** | "
                f"{len(heap.ids) / ours:,.0f} | {len(heap.ids) / bare:,.0f} | {peak_gib(self._device)} |"
            )

    @contextmanager
    def _bench(self, net: str, side: int, batch: int) -> Iterator[Bench]:
        with self._dataset(side) as (config, dataset):
            yield Bench(config, dataset, argparse.Namespace(net=net, batch=batch, workers=0))

    @contextmanager
    def _dataset(self, side: int) -> Iterator[tuple[Config, Dataset]]:
        """The digits, brought to this size: what they show matters nothing to speed."""
        words = [f"device={self._device}", f"data.image_size={side}", "threads=1", "data.labelled=1000", *NOISE]
        if self._device == "cpu":
            words += ["data.unlabelled=100"]
        config = load_config(None, words)
        folder = self._folder / f"digits-{side}"
        yield config, Dataset(Artifact(run_stage(config, "data", folder)), config.data)


LINES = [
    ("ceiling", 25),
    ("small_step", 30),
    ("small_batch", 20),
    ("small_labels", 25),
    ("large_step", 45),
    ("large_labels", 45),
    ("host_waits", 15),
    ("variants", 30),
    ("profile", 20),
    ("timed_kernels", 70),
]
"""Names of the lines, and the seconds that each may take."""


def peak_gib(device: str) -> str:
    return f"peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device == "cuda" else ""


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--toy", action="store_true", help="sizes of a rehearsal")
    parser.add_argument("--seconds", type=float, default=200, help="when to stop, whatever is left")
    parser.add_argument("--out", type=Path, help="file that the report is appended to")
    parser.add_argument("--only", nargs="*", help="names of the lines to take; default: all")
    parser.add_argument("--no-tests", action="store_true", help="leave out `pytest -m gpu`")
    parser.add_argument("--lines", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.lines is not None:
        take(arguments)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        lead(arguments, Path(folder))


def take(arguments: argparse.Namespace) -> None:
    """In a process of its own: these lines, one after the other; each is announced, so that a limit can be kept."""
    lines = Lines(arguments.device, TOY if arguments.toy else FULL, arguments.folder)
    torch.manual_seed(0)
    np.random.default_rng(0)
    for name in arguments.lines:
        print(f"\x00{name}", flush=True)
        began = time.monotonic()
        work: Callable[[], None] = getattr(lines, name)
        try:
            work()
        except Exception as error:
            # One that fails is reported, and the next one is measured all the same.
            say(f"| {name} FAILED | | | | {type(error).__name__}: {' '.join(str(error).split())[:600]} |")
        print(f"<!-- {name}: {time.monotonic() - began:.1f} s -->", flush=True)


def lead(arguments: argparse.Namespace, folder: Path) -> None:
    """Start the processes that measure, and keep the limits."""
    ends = time.monotonic() + arguments.seconds
    report = arguments.out.open("a", encoding="utf-8") if arguments.out else None

    def tell(text: str) -> None:
        print(text, end="", flush=True)
        if report:
            report.write(text)
            report.flush()

    if arguments.device == "cuda" and not arguments.no_tests:
        # To collect all tests takes longer than to run these.
        files = [str(path) for path in TESTS.rglob("test_*.py") if "mark.gpu" in path.read_text(encoding="utf-8")]
        tests = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--durations=8", "-p", "no:cacheprovider", *files]
        tell(watched(tests, min(80, arguments.seconds), cwd=BENCHMARKS.parent))
    left = [(name, limit) for name, limit in LINES if not arguments.only or name in arguments.only]
    while left and time.monotonic() < ends:
        left = left[_measured(arguments, folder, left, ends, tell) :]
    tell("".join(f"| {name} | | | | no time was left |\n" for name, _ in left))


def _measured(
    arguments: argparse.Namespace,
    folder: Path,
    lines: list[tuple[str, int]],
    ends: float,
    tell: Callable[[str], None],
) -> int:
    """Take lines in one process until one outlives its limit; returns how many were begun."""
    words = ["--device", arguments.device, "--folder", str(folder), *(["--toy"] if arguments.toy else [])]
    command = [sys.executable, __file__, *words, "--lines", *(name for name, _ in lines)]
    limits, begun = dict(lines), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        # Python and torch start within the first line's limit and these seconds.
        limit = Limit(process, min(time.monotonic() + 45 + lines[0][1], ends))
        for line in process.stdout:
            if line.startswith("\x00"):
                begun += 1
                limit.set(min(time.monotonic() + limits[line[1:].strip()], ends))
            else:
                tell(line)
        limit.end()
    name = lines[max(0, begun - 1)][0]
    if limit.is_over:
        tell(f"| {name} | | | | took longer than its limit |\n")
    elif process.returncode:
        tell(f"| {name} | | | | its process ended with {process.returncode} |\n")
    return max(1, begun)


class Limit:
    """Ends a process at a moment that can be moved."""

    def __init__(self, process: subprocess.Popen[str], moment: float) -> None:
        self._process, self._moment = process, moment
        self._done = threading.Event()
        self.is_over = False
        threading.Thread(target=self._watch, daemon=True).start()

    def set(self, moment: float) -> None:
        self._moment = moment

    def end(self) -> None:
        self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            if time.monotonic() > self._moment:
                self.is_over = True
                self._process.kill()
                return


def watched(command: list[str], seconds: float, cwd: Path) -> str:
    """The last lines that a command prints; what it has printed so far where it takes too long."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds, cwd=cwd, check=False
        )
        said, end = done.stdout, f"exit code {done.returncode}"
    except subprocess.TimeoutExpired as over:
        raw = over.stdout or b""
        said, end = raw.decode() if isinstance(raw, bytes) else raw, f"given up after {seconds:.0f} s"
    return f"```\n{said[-6000:]}\n{end}\n```\n\n"


if __name__ == "__main__":
    main()
