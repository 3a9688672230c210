"""How much of the chip's matrix products a training step reaches, and what it does in the rest of the time.

    python benchmarks/ceiling.py                                                      # the digits, test_resnet
    python benchmarks/ceiling.py --net resnet18 data.image_size=64 --batch 32
    python benchmarks/ceiling.py --device cuda --net tf_efficientnetv2_s data.image_size=300 --batch 64 --workers 8
    python benchmarks/ceiling.py --device cuda --net resnet26 --batch 256

The ceiling is the best that one product of two square matrices reaches here, in the precision of the step, measured in
turns with the steps: what a data sheet says is not to be had. A step counts three forward passes' multiply-adds (one,
and two for the gradients of activations and weights), two operations each. Depthwise convolutions and small layers are
far below any ceiling; the bare loop of ``step.py`` shows how far.

Then some of our steps under torch's profiler: how long the device (a GPU: its kernels; a CPU: the operations of the
thread that trains) was busy, where it idled longest and what the host did meanwhile, and which operations took the
time. The profiler itself makes a CPU slower: look at shares. Prints Markdown.
"""

import argparse
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import timm
import torch
from nstudent.models.cost import gmacs
from step import Bench, Turns, Variant, bench_parser, made_bench, measured
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

SIZES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
"""Of the matrices: the best of them is the ceiling."""
PASSES = 3
SHOWN = 8


@dataclass(frozen=True)
class Span:
    """Something that took place, in microseconds."""

    start: float
    end: float
    name: str


def main() -> None:
    arguments = bench_parser(__doc__).parse_intermixed_args()
    with made_bench(arguments) as bench:
        heading(bench, arguments)
        compare(bench, arguments)
        spans, meanwhile = profiled(bench, arguments.steps)
        describe(spans, meanwhile, arguments.steps)


def heading(bench: Bench, arguments: argparse.Namespace) -> None:
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else torch.backends.cpu.get_cpu_capability()
    print(
        f"{arguments.net}, {bench.dataset.image_size} px, batch {bench.batch}, {torch.get_num_threads()} threads, "
        f"{device}; torch {torch.__version__}, timm {timm.__version__}\n"
    )


def compare(bench: Bench, arguments: argparse.Namespace) -> None:
    network = bench.network()
    with bench.placement.autocast(network):
        dtype = torch.bfloat16 if torch.is_autocast_enabled(arguments.device) else torch.float32
    products = {size: Product(bench.placement.device, size, dtype) for size in SIZES[arguments.device]}
    steps: dict[str, Turns] = {"the bare loop": bench.bare(), "our step": bench.ours(Variant())}
    for number in range(arguments.turns + 1):
        for product in products.values():
            product.take()
        for turns in steps.values():
            turns.take(arguments.steps)
            if number == 0:
                turns.wall.clear()
    best = max(products.values(), key=lambda product: product.flops())
    print("| | TFLOP/s | of the ceiling | images a second |\n|---|---|---|---|")
    precision = str(dtype).removeprefix("torch.")
    print(f"| products of {best.size} x {best.size}, {precision} | {best.flops() / 1e12:.3f} | 1 | |")
    flops = PASSES * 2e9 * gmacs([network], bench.dataset.image_size)
    for name, turns in steps.items():
        images = bench.batch / statistics.median(turns.wall)
        print(f"| {name} | {flops * images / 1e12:.3f} | {flops * images / best.flops():.2f} | {images:,.0f} |")


class Product:
    """One product of two square matrices, taken again and again."""

    def __init__(self, device: torch.device, size: int, dtype: torch.dtype) -> None:
        self.size = size
        self._device = device
        self._left, self._right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        self._seconds: list[float] = []

    def take(self, times: int = 4) -> None:
        def work() -> None:
            for _ in range(times):
                self._left @ self._right

        work()
        self._seconds.append(measured(work, self._device)[0] / times)

    def flops(self) -> float:
        return 2 * self.size**3 / statistics.median(self._seconds)


def profiled(bench: Bench, steps: int) -> tuple[list[Span], list[Span]]:
    """What the device did in some of our steps, and what the host did meanwhile."""
    loop = bench.loop(Variant())
    batches = loop.feed.between(0, 2 * steps + 1)
    for _ in range(steps):
        loop.take(next(batches))
    on_gpu = bench.placement.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        measured(lambda: [loop.take(next(batches)) for _ in range(steps)] and None, bench.placement.device)
    batches.close()
    events = list(profiler.events() or [])
    host = [event for event in events if event.device_type == DeviceType.CPU]
    trains = Counter(event.thread for event in host if "optimizer" in event.name.lower()).most_common(1)[0][0]
    ours = spans_of(event for event in host if event.thread == trains and event.cpu_parent is None)
    if on_gpu:
        # Without what the host has named: it stretches over kernels and the gaps between them.
        kernels = [each for each in events if each.device_type == DeviceType.CUDA and not each.is_user_annotation]
        return spans_of(kernels), ours
    return ours, spans_of(event for event in host if event.thread != trains and event.cpu_parent is None)


def spans_of(events: Iterable[FunctionEvent]) -> list[Span]:
    return sorted(
        (Span(event.time_range.start, event.time_range.end, event.name) for event in events),
        key=lambda span: span.start,
    )


def gaps(spans: Sequence[Span]) -> list[Span]:
    """Between what is done: when nothing is. Named by what came before and after. ``spans`` are in order."""
    found, last = [], spans[0]
    for span in spans[1:]:
        if span.start > last.end:
            found.append(Span(last.end, span.start, f"{short(last.name)} - {short(span.name)}"))
        if span.end > last.end:
            last = span
    return found


def short(name: str) -> str:
    return name.split("<")[0].split("(")[0].removeprefix("void ").strip()[:48]


def describe(spans: Sequence[Span], meanwhile: Sequence[Span], steps: int) -> None:
    whole = max(span.end for span in spans) - spans[0].start
    idle = gaps(spans)
    waited = sum(gap.end - gap.start for gap in idle)
    print(
        f"\n{len(spans) / steps:.0f} operations a step; the device is busy {1 - waited / whole:.1%} of the time. "
        "It idles longest\n\n| us | between | of the step | meanwhile |\n|---|---|---|---|"
    )
    for gap in sorted(idle, key=lambda gap: gap.start - gap.end)[:SHOWN]:
        length = gap.end - gap.start
        print(f"| {length:.0f} | {gap.name} | {length * steps / whole:.1%} | {at_that_time(gap, meanwhile)} |")
    times: Counter[str] = Counter()
    for span in spans:
        times[short(span.name)] += round(span.end - span.start)
    print("\n| operation | of the time |\n|---|---|")
    for name, took in times.most_common(SHOWN):
        print(f"| {name} | {took / whole:.1%} |")


def at_that_time(gap: Span, meanwhile: Sequence[Span]) -> str:
    """What overlaps a gap most."""
    shared = [(min(gap.end, span.end) - max(gap.start, span.start), span.name) for span in meanwhile]
    overlap, name = max(shared, default=(0.0, ""))
    return short(name) if overlap > 0 else "Python, or nothing"


if __name__ == "__main__":
    main()
