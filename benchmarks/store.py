"""What keeping the labels of a heap costs: the store against np.memmap (the limit) and against a file an image.

    python benchmarks/store.py                                           # 10 million rows, most probable classes
    python benchmarks/store.py --classes 5 20 100                        # the same with whole distributions
    python benchmarks/store.py --rows 1000000 --classes 50 500 10000 --top-k 64

Makes a store of three levels from random labels, reads it as training does (256 random rows at a time), selects and
balances, and removes what it made. Runs are interleaved; the medians are compared. Files of an image each are made for
a sample, and their rate is taken for that of all rows, which flatters them. Prints Markdown. Linux: reads /proc.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from nstudent.config.schema import PseudolabelConfig
from nstudent.labels import store
from nstudent.labels.rows import JoinedRows, Shards
from nstudent.labels.selection import select
from nstudent.labels.targets import PseudoTargets
from nstudent.machine import available_cores
from nstudent.storage.files import read_json, write_json
from nstudent.storage.hdf5 import mapped
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import Taxonomy

LEVELS = ("coarse", "mid", "fine")
BATCH = 256
SHARD_ROWS = 65_536
ROUNDS = 5
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--classes", type=int, nargs=3, default=[10, 300, 1000], help="of each level, coarse first")
    parser.add_argument("--top-k", type=int, default=None, help="as pseudolabel.top_k")
    parser.add_argument("--files", type=int, default=20_000, help="sample of images that get a file each")
    parser.add_argument("--batches", type=int, default=2_000, help="random batches a round")
    parser.add_argument("--folder", type=Path, help="where to make everything; default: a temporary folder")
    parser.add_argument("--select", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.select:
        print(json.dumps(selecting(arguments.select)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
        taxonomy = tree(arguments.classes)
        folder, layout = Path(made), store.Layout.of(Outputs(taxonomy), arguments.top_k)
        if shutil.disk_usage(folder).free < 3 * layout.row_bytes * arguments.rows:
            raise SystemExit(f"{folder} has no room for {2 * layout.row_bytes * arguments.rows:,} bytes")
        write_json(folder / "taxonomy.json", taxonomy.to_json())
        print(heading(arguments, layout))
        report(arguments, folder, layout, taxonomy)


def heading(arguments: argparse.Namespace, layout: store.Layout) -> str:
    kinds = [
        f"{k} of {n}" if top else f"all {n}" for k, n, top in zip(layout.kept, layout.sizes, layout.tops, strict=True)
    ]
    return (
        f"{arguments.rows:,} rows of {layout.row_bytes} bytes (classes a level: {', '.join(kinds)}), shards of "
        f"{SHARD_ROWS:,} rows; {available_cores()} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"numpy {np.__version__}, h5py {h5py.__version__}\n\n| | rows/s | against the limit | |\n|---|---|---|---|"
    )


def report(arguments: argparse.Namespace, folder: Path, layout: store.Layout, taxonomy: Taxonomy) -> None:
    num_shards = -(-arguments.rows // SHARD_ROWS)
    written, plain, arrays = write_both(folder, num_shards, layout, Example(taxonomy, layout))
    row("write, synced", written, plain, "limit: the same arrays end to end in files, synced")
    files = FilePerImage(folder, arguments.files, layout.row_bytes)
    filed = files.write()
    row(
        "write, a file an image",
        filed,
        plain,
        f"sample of {arguments.files:,}, not synced; store {written / filed:,.0f} x",
    )
    read_random(arguments.batches, folder, arrays, files)
    read_in_order(folder, arrays)
    chosen = json.loads(subprocess.check_output([sys.executable, __file__, "--select", str(folder)]))
    print(
        f"\nSelecting and balancing {num_shards * SHARD_ROWS:,} rows over {len(taxonomy.terminals):,} classes: "
        f"{chosen['seconds']:.1f} s ({chosen['worked']:.1f} s of one core), peak + {chosen['peak_mib']:.0f} MiB "
        f"({chosen['shown']:,} images shown)."
    )


def row(what: str, rate: float, limit: float | None, note: str = "") -> None:
    print(f"| {what} | {rate:,.0f} | {'' if limit is None else f'{rate / limit:.3g}'} | {note} |", flush=True)


class Example:
    """Labels of one shard, made once; every shard repeats them: what is measured is the store."""

    def __init__(self, taxonomy: Taxonomy, layout: store.Layout) -> None:
        random = np.random.default_rng(0)
        self.levels = [random.random((BATCH, n), dtype=np.float32) ** 8 for n in layout.sizes]
        self.levels = [level / level.sum(axis=1, keepdims=True) for level in self.levels]
        self.paths = taxonomy.terminal_rows[random.integers(0, len(taxonomy.terminals), SHARD_ROWS)]
        self.confidence = (1 - random.random((SHARD_ROWS, 3), dtype=np.float32) ** 2).astype(np.float32)


def tree(classes: list[int]) -> Taxonomy:
    """A tree with so many classes a level, as even as they go."""
    coarse, mid, fine = classes
    labels = [(f"c{f % mid % coarse}", f"m{f % mid}", f"f{f}") for f in range(fine)]
    return Taxonomy.from_labels(labels, LEVELS)


def write_both(
    folder: Path, num_shards: int, layout: store.Layout, example: Example
) -> tuple[float, float, dict[str, np.ndarray]]:
    """Rows a second of the store and of plain files, in turn, a shard each; and the arrays of a shard."""
    shard = store.Shard(np.arange(SHARD_ROWS), layout)
    for first in range(0, SHARD_ROWS, BATCH):
        here = slice(first, first + BATCH)
        shard.put(first, example.levels, example.paths[here], example.confidence[here])
    arrays: dict[str, np.ndarray] = {}
    seconds: dict[str, list[float]] = {"store": [], "plain": []}
    for number in range(num_shards):
        path = store.shard_path(folder, number * SHARD_ROWS, (number + 1) * SHARD_ROWS)
        seconds["store"].append(timed(lambda path=path: shard.write(path)))
        if not arrays:
            arrays = {name: np.array(array) for name, array in mapped(path).items()}
        seconds["plain"].append(timed(lambda arrays=arrays: append_synced(folder, arrays)))
    medians = {name: SHARD_ROWS / statistics.median(each) for name, each in seconds.items()}
    return medians["store"], medians["plain"], arrays


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def drop(arrays: Iterable[Any]) -> None:
    """Go through them and keep none: what is measured is not the memory of what was read."""
    deque(arrays, maxlen=0)


def append_synced(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        with open(raw(folder, name), "ab") as file:
            array.tofile(file)
            file.flush()
            os.fsync(file.fileno())


def raw(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('/', '-')}.raw"


class FilePerImage:
    """One .npy file an image, a thousand to a folder."""

    def __init__(self, folder: Path, count: int, row_bytes: int) -> None:
        self.paths = [folder / "files" / f"{i // 1000}" / f"{i}.npy" for i in range(count)]
        self._content = np.zeros(row_bytes, dtype=np.uint8)

    def write(self) -> float:
        """Rows a second."""
        for folder in {path.parent for path in self.paths}:
            folder.mkdir(parents=True)
        return len(self.paths) / timed(lambda: [np.save(path, self._content) for path in self.paths])

    def read(self, count: int, random: np.random.Generator) -> float:
        """Seconds a row, in random order."""
        chosen = [self.paths[i] for i in random.integers(0, len(self.paths), count)]
        return timed(lambda: np.stack([np.load(path) for path in chosen])) / count


def limits(folder: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each array of probabilities and classes as one map."""
    wide = {name: array for name, array in arrays.items() if "/" in name}
    return {name: np.memmap(raw(folder, name), a.dtype, "r").reshape(-1, a.shape[1]) for name, a in wide.items()}


def read_random(num_batches: int, folder: Path, arrays: dict[str, np.ndarray], files: FilePerImage) -> None:
    """Batches of random rows, every level: mapped bytes, what training gets of them, and files."""
    before = memory()
    maps, shards = limits(folder, arrays), Shards(store.shards(folder))
    joined = {name: JoinedRows(shards, name) for name in maps}
    labels = store.LabelStore(store.shards(folder), LEVELS)
    num_rows = len(labels)
    outputs = Outputs(Taxonomy.from_json(read_json(folder / "taxonomy.json")))
    targets = PseudoTargets(labels.probabilities, labels.path_rows, np.ones((num_rows, 3), bool), outputs, "soft")
    random = np.random.default_rng(1)
    rates: dict[str, list[float]] = {"store": [], "map": [], "targets": [], "files": []}
    for number in range(ROUNDS + 1):
        batches = random.integers(0, num_rows, (num_batches, BATCH))
        taken = {
            "store": timed(lambda batches=batches: drop(a[rows] for rows in batches for a in joined.values())),
            "map": timed(lambda batches=batches: drop(a[rows] for rows in batches for a in maps.values())),
            "targets": timed(lambda batches=batches: drop(targets(rows) for rows in batches[::10])) * 10,
            "files": files.read(2_000, random) * batches.size,
        }
        # The first round brings the pages into memory.
        for name, seconds in taken.items() if number else ():
            rates[name].append(batches.size / seconds)
    found = {name: statistics.median(each) for name, each in rates.items()}
    after = memory()
    grown = ", ".join(f"{kind} + {(after[kind] - before[kind]) / MIB:.0f} MiB" for kind in after)
    row(f"random rows, {BATCH} at a time", found["store"], found["map"], f"limit: np.memmap; memory: {grown}")
    row("the same, spread out and normalised for training", found["targets"], None, "PseudoTargets")
    row("random rows, a file an image", found["files"], found["map"], f"store {found['store'] / found['files']:,.0f} x")


def read_in_order(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Every probability once, a shard at a time, the files opened anew."""
    paths, seconds = store.shards(folder), {"store": [], "map": []}
    starts = range(0, len(paths) * SHARD_ROWS, SHARD_ROWS)
    for _ in range(ROUNDS):
        seconds["store"].append(timed(lambda: [copied(mapped(path), arrays) for path in paths]))
        maps = limits(folder, arrays)
        seconds["map"].append(timed(lambda maps=maps: [copied(maps, arrays, first) for first in starts]))
    rates = {kind: len(paths) * SHARD_ROWS / statistics.median(each) for kind, each in seconds.items()}
    row("all rows in order", rates["store"], rates["map"], "limit: np.memmap")


def copied(source: dict[str, np.ndarray], arrays: dict[str, np.ndarray], first: int = 0) -> None:
    for name in arrays:
        if "/" in name:
            np.copy(source[name][first : first + SHARD_ROWS])


def selecting(folder: Path) -> dict[str, float]:
    """What the pseudolabel stage does once the labels are there, in a process of its own."""
    taxonomy = Taxonomy.from_json(read_json(folder / "taxonomy.json"))
    before, began, worked = peak(), time.perf_counter(), time.process_time()
    labels = store.LabelStore(store.shards(folder), LEVELS)
    keep = labels.deep_enough(0.6)
    key, config = (0, "pseudolabel", 1), PseudolabelConfig(balance=True, threshold=0.6)
    selection = select(labels.terminals(taxonomy), labels.kept_confidence(keep), keep, taxonomy, config, key)
    selection.save(folder)
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    return {
        "seconds": seconds,
        "worked": worked,
        "peak_mib": (peak() - before) / MIB,
        "shown": int((selection.copies > 0).sum()),
    }


def memory() -> dict[str, int]:
    """Bytes that this process holds, and of files that it has mapped (which the system takes back when it needs to)."""
    said = Path("/proc/self/status").read_text()
    kinds = {"held": "RssAnon", "mapped": "RssFile"}
    return {kind: int(re.search(rf"{name}:\s+(\d+)", said)[1]) * 1024 for kind, name in kinds.items()}


def peak() -> int:
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


if __name__ == "__main__":
    main()
