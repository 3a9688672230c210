"""The lines of ``speed.py``'s report, measured in the process that it starts for them."""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import timm
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ceiling import Product, describe, profiled
from labelling import Heap
from nstudent import load_config, run_stage
from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset
from nstudent.models.cost import gmacs
from nstudent.storage.artifact import Artifact
from step import Bench, Turns, Variant, waits

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
            flops = 6e9 * gmacs([bench.network()], side) * batch
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for data")
    parser.add_argument("lines", nargs="+", help="names of the lines to take, in this order")
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--toy", action="store_true")
    take(parser.parse_args())


def take(arguments: argparse.Namespace) -> None:
    """Take the lines one after the other; each is announced, so that its limit can be kept."""
    lines = Lines(arguments.device, TOY if arguments.toy else FULL, arguments.folder)
    torch.manual_seed(0)
    for name in arguments.lines:
        print(f"\x00{name}", flush=True)
        began = time.monotonic()
        try:
            getattr(lines, name)()
        except Exception as error:
            # One that fails is reported, and the next one is measured all the same.
            say(f"| {name} FAILED | | | | {type(error).__name__}: {' '.join(str(error).split())[:600]} |")
        print(f"<!-- {name}: {time.monotonic() - began:.1f} s -->", flush=True)


def peak_gib(device: str) -> str:
    return f"peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device == "cuda" else ""


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
