"""Our training step against a bare loop, and what each part of the step costs or buys.

    python benchmarks/step.py                                                     # the digits at 32 px, test_resnet
    python benchmarks/step.py --config configs/fashion_mnist.yaml --batch 128 --net resnet10t
    python benchmarks/step.py --device cuda --net tf_efficientnetv2_s data.image_size=300 --batch 64
    python benchmarks/step.py --device cuda --net resnet26 data.image_size=32 --batch 256   # about as deep as WRN-28-2
    python benchmarks/step.py --device cuda --probe                               # where the host waits for the device

The bare loop has the same network, batch, precision and optimiser, and learns from random tensors that lie on the
device: no data, noise, average, checks or schedule. All variants take turns, a few steps each, so that what else the
machine does hits them alike. Printed are ratios of medians, bare / variant: wall clock, and on the CPU seconds of CPU
with those of loader processes, which other programs disturb least. Prints Markdown.
"""

import argparse
import itertools
import platform
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from nstudent import load_config, run_stage
from nstudent.config.schema import Config, ModelConfig
from nstudent.data.batches import Examples
from nstudent.data.dataset import Dataset
from nstudent.labels.targets import GivenTargets
from nstudent.machine import available_cores
from nstudent.models.device import Placement, noises_in_batches
from nstudent.models.network import Network, build_network
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.outputs import Outputs
from nstudent.training.build import Lesson, Site, build_loop
from nstudent.training.cross_entropy import CrossEntropy
from nstudent.training.loop import Length, Loop
from nstudent.training.losses import even_weights
from nstudent.training.objective import Supervised
from nstudent.training.optimizer import build_optimizer
from nstudent.training.pixels import training_pixels
from nstudent.training.recording import _record
from torch import Tensor, nn

QUIET = {"shift": 0.0, "zoom": 0.0, "rotate": 0.0, "flip": False, "operations": 0, "erase": 0.0}
LENGTH = Length(epochs=10, steps_per_epoch=10_000)
KEY = ("benchmark", 0)


@dataclass(frozen=True)
class Variant:
    """Our step with one thing changed."""

    noise: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    augment: str | None = None
    precision: str | None = None
    compile_mode: str = "none"
    records: bool = True
    """Whether a GPU replays a recorded step."""
    change: Callable[[Loop], None] = lambda loop: None


def _nothing(*_: Any) -> None:
    """In place of what is left out."""


def _without_average(loop: Loop) -> None:
    loop.method._average.update = _nothing


def _without_check(loop: Loop) -> None:
    loop.method.finite.before_step = _nothing  # type: ignore[method-assign]


def _channels_first(loop: Loop) -> None:
    loop.method.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    placement = loop.feed.preparation._placement
    plain = placement.images

    class First(Placement):
        def images(self, pixels: Tensor) -> Tensor:
            return plain(pixels).contiguous()

    loop.feed.preparation._placement = First(placement.device, placement.precision)


VARIANTS = {
    "**ours**": Variant(),
    "without noise on the images": Variant(noise=QUIET, augment="batch"),
    "noise image by image": Variant(augment="image"),
    "noise by the batch": Variant(augment="batch"),
    "without CutMix": Variant(noise={"cutmix": 0.0}),
    "without the average of weights": Variant(change=_without_average),
    "without the check for finite numbers": Variant(change=_without_check),
    "without a limit on the gradient": Variant(settings={"clip_norm": None}),
    "channels first": Variant(change=_channels_first),
    "float32": Variant(precision="float32"),
    "activations computed twice": Variant(settings={"checkpoint_activations": True}),
    "launched one by one": Variant(records=False),
    "compiled": Variant(compile_mode="default"),
    "compiled, CUDA graphs": Variant(compile_mode="reduce-overhead"),
}


class Turns:
    """One variant, taken up again and again."""

    def __init__(self, take: Callable[[int], tuple[float, float]]) -> None:
        self._take = take
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def take(self, steps: int) -> None:
        wall, cpu = self._take(steps)
        self.wall.append(wall / steps)
        self.cpu.append(cpu / steps)


def measured(work: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Seconds of wall clock, and of CPU (this process's; finished loaders are added by whoever starts them)."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


class Bench:
    """Data, network and batch of a comparison."""

    def __init__(self, config: Config, dataset: Dataset, arguments: argparse.Namespace) -> None:
        self.config, self.dataset = config, dataset
        self.model = ModelConfig(backbones=(arguments.net,))
        self.batch, self.workers = arguments.batch, arguments.workers
        self.placement = Placement.from_config(config)
        torch.set_num_threads(config.threads or 1)

    def network(self, checkpointing: bool = False) -> Network:
        noise, outputs = self.config.student.noise, Outputs(self.dataset.taxonomy)
        return build_network(
            self.model, outputs, KEY, dropout=noise.dropout, drop_path=noise.drop_path, checkpointing=checkpointing
        )

    def loop(self, variant: Variant) -> Loop:
        student = self.config.student
        noise = student.noise.model_copy(update=variant.noise)
        training = student.model_copy(update={"noise": noise, "batch_size": self.batch, **variant.settings})
        precision = variant.precision or self.placement.precision
        records = variant.records and self.placement.records
        placement = Placement(self.placement.device, precision, variant.compile_mode, records)
        changed = {"augment": variant.augment or self.config.augment, "workers": self.workers}
        config = self.config.model_copy(update=changed)
        ids, taxonomy = self.dataset.labelled, self.dataset.taxonomy
        examples = Examples(ids, GivenTargets(self.dataset.labels[ids], Outputs(taxonomy)))
        even = even_weights(Outputs(taxonomy), placement.device)
        objective = Supervised(CrossEntropy(even, 0.1), CrossEntropy(even), (1.0,) * taxonomy.num_levels)
        site = Site(
            placement,
            training_pixels(config, self.dataset, placement.device),
            taxonomy.levels,
            self.dataset.name,
            noises_in_batches=noises_in_batches(config),
            workers=self.workers,
        )
        lesson = Lesson([(examples, self.batch)], objective, LENGTH)
        loop = build_loop(self.network(training.checkpoint_activations), lesson, training, site, KEY)
        variant.change(loop)
        return loop

    def ours(self, variant: Variant) -> Turns:
        loop = self.loop(variant)

        def take(steps: int) -> tuple[float, float]:
            begun = loop._step
            # One more than is used: the last one is prepared while the timed steps run, as in a training.
            batches = loop.feed.between(begun, begun + steps + 2)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            # Not timed: the loaders start.
            loop.take(next(batches))
            timed = itertools.islice(batches, steps)
            wall, cpu = measured(lambda: self._steps(loop, timed), self.placement.device)
            del batches
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            children = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            return wall, cpu + children * steps / (steps + 2)

        return Turns(take)

    def _steps(self, loop: Loop, batches: Iterator[Any]) -> None:
        for batch in batches:
            loop.take(batch)

    def bare(self, recorded: bool = False) -> Turns:
        """A loop of nothing but the network; ``recorded``: replayed by a GPU, as ours is."""
        student, placement = self.config.student, self.placement
        network = placement.put(self.network()).train()
        optimizer = build_optimizer(network, student, placement.device)
        random = torch.Generator().manual_seed(0)
        side = self.dataset.image_size
        images = torch.rand(self.batch, 3, side, side, generator=random).to(placement.device)
        images = images.to(memory_format=torch.channels_last)
        targets = [
            torch.randint(n, (self.batch,), generator=random).to(placement.device)
            for n in self.dataset.taxonomy.num_classes
        ]

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with placement.autocast(network):
                logits = network(images)
            loss = sum(
                F.cross_entropy(level.float(), target, label_smoothing=0.1)
                for level, target in zip(logits, targets, strict=True)
            )
            assert isinstance(loss, Tensor)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        work = step
        if recorded:
            for group in optimizer.param_groups:
                group["capturable"] = True
            _repeat(step, 3)
            work = _record(step)

        def take(steps: int, held: Callable[[], None] = step) -> tuple[float, float]:
            # A recorded step reads and writes the tensors of ``held``, which nobody else keeps.
            work()
            return measured(lambda: _repeat(work, steps), placement.device)

        return Turns(take)


def _repeat(step: Callable[[], None], steps: int) -> None:
    for _ in range(steps):
        step()


def waits(bench: Bench) -> list[str]:
    """Where one of our steps makes the host wait for the device, by torch's own account."""
    loop = bench.loop(Variant())
    batches = loop.feed.between(0, 20)
    for _ in range(3):
        loop.take(next(batches))
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bench._steps(loop, batches)
    torch.cuda.set_sync_debug_mode("default")
    return sorted({f"{Path(each.filename).name}:{each.lineno}" for each in caught})


def bench_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that say what is compared."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--net", default="test_resnet", help="a timm network")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--steps", type=int, default=8, help="steps a turn")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    return parser


@contextmanager
def made_bench(arguments: argparse.Namespace) -> Iterator[Bench]:
    """Data and network of what the arguments ask for."""
    words = [f"device={arguments.device}", "threads=1", "data.labelled=1000", *arguments.overrides]
    config = load_config(arguments.config, words)
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(Artifact(run_stage(config, "data", Path(folder) / "run")), config.data)
        yield Bench(config, dataset, arguments)


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="words in the names of the variants to measure")
    parser.add_argument("--compile", action="store_true", help="also the compiled ones: a minute or two each to begin")
    parser.add_argument("--probe", action="store_true", help="CUDA: list where the host waits, and end")
    arguments = parser.parse_intermixed_args()
    with made_bench(arguments) as bench:
        if arguments.probe:
            print("\n".join(waits(bench)) or "nowhere")
            return
        _compare(bench, arguments)


def _compare(bench: Bench, arguments: argparse.Namespace) -> None:
    chosen = {
        name: variant
        for name, variant in VARIANTS.items()
        if (not arguments.only or "ours" in name or any(word in name for word in arguments.only))
        and (arguments.compile or variant.compile_mode == "none")
    }
    turns = {"bare loop": bench.bare()} | {name: bench.ours(variant) for name, variant in chosen.items()}
    if bench.placement.records:
        turns["bare loop, recorded"] = bench.bare(recorded=True)
    for number in range(arguments.turns + 1):
        for each in turns.values():
            each.take(arguments.steps)
            if number == 0:
                each.wall.clear()
                each.cpu.clear()
    print(_heading(bench, arguments))
    print("| step | wall: bare / it | CPU: bare / it | images a second |\n|---|---|---|---|")
    bare = turns["bare loop"]
    for name, each in turns.items():
        wall, cpu = statistics.median(each.wall), statistics.median(each.cpu)
        ratios = [statistics.median(bare.wall) / wall, statistics.median(bare.cpu) / cpu]
        print(f"| {name} | {ratios[0]:.2f} | {ratios[1]:.2f} | {bench.batch / wall:,.0f} |")


def _heading(bench: Bench, arguments: argparse.Namespace) -> str:
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or platform.machine()
    network: nn.Module = bench.network()
    weights = sum(p.numel() for p in network.parameters())
    return (
        f"{arguments.net} ({weights:,} weights), {bench.dataset.image_size} px, batch {bench.batch}, "
        f"{torch.get_num_threads()} threads, {arguments.workers} workers; {available_cores()} cores, {device}; "
        f"torch {torch.__version__}, timm {timm.__version__}; {arguments.turns} turns of {arguments.steps} steps\n"
    )


if __name__ == "__main__":
    main()
