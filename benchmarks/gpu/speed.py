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
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TESTS = ROOT / "tests"

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--toy", action="store_true", help="sizes of a rehearsal")
    parser.add_argument("--seconds", type=float, default=200, help="when to stop, whatever is left")
    parser.add_argument("--out", type=Path, help="file that the report is appended to")
    parser.add_argument("--only", nargs="*", help="names of the lines to take; default: all")
    parser.add_argument("--no-tests", action="store_true", help="leave out `pytest -m gpu`")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lead(arguments, Path(folder))


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
        tell(watched(tests, min(80, arguments.seconds), cwd=ROOT))
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
    words = ["--device", arguments.device, *(["--toy"] if arguments.toy else [])]
    script = Path(__file__).with_name("speed_lines.py")
    command = [sys.executable, str(script), *words, str(folder), *(name for name, _ in lines)]
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
