"""Squares kept as pixels against squares kept as JPEG: reading them, their size and their looks, and packing them.

    python benchmarks/pack.py --config configs/grocery.yaml data.root=PATH/grocery_128.h5 data.image_size=224 --mosaic 4
    python benchmarks/pack.py data.source=folder data.root=PHOTOS data.image_size=224

Everything is read from memory (the page cache): on a disk, fewer bytes are read faster, too. ``--mosaic 4`` joins 4 x 4
photos of the source to one, for sets whose photos are smaller than real ones. Medians of interleaved turns. Markdown.
"""

import argparse
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import simplejpeg
from nstudent import load_config, machine, run_stage
from nstudent.config.schema import Config, DataConfig
from nstudent.data.dataset import PixelStore
from nstudent.data.decode import decode
from nstudent.data.packing.decoders import Decoders
from nstudent.data.packing.pack_folder import make_pack
from nstudent.data.packing.reader import Reader
from nstudent.data.packing.shards import Layout, pack, shard_name
from nstudent.data.sources import Record, open_source
from nstudent.data.sources.packed import PackMetrics
from nstudent.machine import available_cores
from nstudent.progress import Silence
from nstudent.storage.artifact import Manifest

BATCH = 64
JOINED_QUALITY = 85


class InMemory:
    """Images that are there already, so that no disk is measured."""

    encoded = True

    def __init__(self, contents: list[bytes]) -> None:
        self.contents = contents

    def stamp(self) -> str:
        return "memory"

    def records(self) -> list[Record]:
        return [Record(str(i), ("thing",)) for i in range(len(self.contents))]

    def read(self, index: int) -> bytes:
        return self.contents[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--images", type=int, default=400, help="at most so many")
    parser.add_argument("--mosaic", type=int, default=1, help="photos of the source along a side of one")
    parser.add_argument("--turns", type=int, default=9, help="of packing; batches are read ten times as often")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    page = load_config(arguments.config, arguments.overrides)
    config = page.data
    source = InMemory(originals(config, arguments.images, arguments.mosaic))
    print(
        f"{available_cores()} cores ({platform.machine()}), simplejpeg {simplejpeg.__version__}, "
        f"numpy {np.__version__}, h5py {h5py.__version__}; {len(source.contents)} photos, {config.image_size} px, "
        f"quality {config.jpeg_quality}, medians of {arguments.turns} interleaved turns\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        layouts = layouts_of(config, len(source.contents))
        stores = {kind: packed(source, config, layout, Path(folder) / kind) for kind, layout in layouts.items()}
        reading(stores, source, config, 10 * arguments.turns)
        looks(stores, len(source.contents))
        packing(source, config, layouts, Path(folder), arguments.turns)
        sharing(page, Path(folder), arguments.turns)


def originals(config: DataConfig, most: int, mosaic: int) -> list[bytes]:
    """Files of the source, or photos joined from them."""
    source = open_source(config)
    number = min(most, len(source.catalogue().records) // mosaic**2)
    contents = [source.read(i) for i in range(number * mosaic**2)]
    files = [content for content in contents if isinstance(content, bytes)]
    if mosaic == 1 or len(files) < len(contents):
        return files
    side = max(simplejpeg.decode_jpeg_header(files[0])[:2])
    squares = np.stack([decode(content, side, config.max_pixels) for content in files])
    joined = squares.reshape(number, mosaic, mosaic, side, side, 3).swapaxes(2, 3)
    joined = joined.reshape(number, mosaic * side, mosaic * side, 3)
    return [simplejpeg.encode_jpeg(np.ascontiguousarray(photo), quality=JOINED_QUALITY) for photo in joined]


def layouts_of(config: DataConfig, number: int) -> dict[str, Layout]:
    kinds = ("pixels", "jpeg")
    return {kind: Layout.of(config.model_copy(update={"storage": kind}), number, Silence()) for kind in kinds}


def packed(source: InMemory, config: DataConfig, layout: Layout, folder: Path) -> PixelStore:
    folder.mkdir()
    pack(folder, source, source.catalogue().records, config, layout, Silence())
    return PixelStore(sorted(folder.glob("*.h5")))


def medians(works: dict[str, Callable[[], object]], turns: int) -> dict[str, tuple[float, float]]:
    """(seconds, seconds of all cores) of each, in turns; the first turn brings everything into memory."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for turn in range(turns + 1):
        for name, work in works.items():
            began, worked = time.perf_counter(), time.process_time()
            work()
            if turn:
                taken[name].append((time.perf_counter() - began, time.process_time() - worked))
    medians_of = {name: [statistics.median(kind) for kind in zip(*each, strict=True)] for name, each in taken.items()}
    return {name: (wall, cores) for name, (wall, cores) in medians_of.items()}


def reading(stores: dict[str, PixelStore], source: InMemory, config: DataConfig, turns: int) -> None:
    """A batch a turn, each time another."""
    random = np.random.default_rng(0)

    def some(rows: int) -> np.ndarray:
        return random.integers(0, len(source.contents), rows)

    def alone(read: Callable[[], object]) -> Callable[[], object]:
        """As in a loader process, which has no threads."""

        def work() -> None:
            threads, machine.decoding_threads = machine.decoding_threads, lambda images: 1
            try:
                read()
            finally:
                machine.decoding_threads = threads

        return work

    def anew() -> np.ndarray:
        return np.stack([decode(source.contents[i], config.image_size, config.max_pixels) for i in some(BATCH)])

    works: dict[str, tuple[int, Callable[[], object]]] = {
        "the original decoded anew": (BATCH, anew),
        "jpeg, one thread (a loader process)": (BATCH, alone(lambda: stores["jpeg"][some(BATCH)])),
        "jpeg, a thread a core": (BATCH, lambda: stores["jpeg"][some(BATCH)]),
        "jpeg, one thread, 256 at once": (256, alone(lambda: stores["jpeg"][some(256)])),
        "jpeg, a thread a core, 256 at once": (256, lambda: stores["jpeg"][some(256)]),
        "pixels": (BATCH, lambda: stores["pixels"][some(BATCH)]),
        "pixels, 256 at once": (256, lambda: stores["pixels"][some(256)]),
    }
    found = medians({name: work for name, (_, work) in works.items()}, turns)
    print(f"| random rows, {BATCH} at a time | rows/s | rows/s of a core | against decoding anew |\n|---|---|---|---|")
    slowest = found["the original decoded anew"][0] / BATCH
    for name, (rows, _) in works.items():
        wall, cores = found[name]
        print(f"| {name} | {rows / wall:,.0f} | {rows / cores:,.0f} | {slowest * rows / wall:.1f} x |")


def looks(stores: dict[str, PixelStore], number: int) -> None:
    every = np.arange(number)
    left, right = (stores[kind][every].astype(np.float32) for kind in ("pixels", "jpeg"))
    ratio = 10 * np.log10(255**2 / ((left - right) ** 2).mean(axis=(1, 2, 3)))
    sizes = {kind: sum(path.stat().st_size for path in store._shards) / number for kind, store in stores.items()}
    print("\n| kept as | bytes an image | PSNR: median, lowest |\n|---|---|---|")
    print(f"| pixels | {sizes['pixels']:,.0f} | |")
    print(f"| jpeg | {sizes['jpeg']:,.0f} | {np.median(ratio):.1f} dB, {ratio.min():.1f} dB |")


def packing(source: InMemory, config: DataConfig, layouts: dict[str, Layout], folder: Path, turns: int) -> None:
    number = len(source.contents)

    def work(kind: str, count: int) -> Callable[[], None]:
        layout = replace(layouts[kind], rows=number)
        reader = Reader(source, layout.side_px, config.max_pixels, layout.jpeg_quality)

        def once() -> None:
            with Decoders(reader, count) as read:
                layout.write(folder / shard_name(0), read(range(number)))

        return once

    works = {(kind, count): work(kind, count) for kind in layouts for count in (1, 2)}
    found = medians({f"{kind} {count}": do for (kind, count), do in works.items()}, turns)
    print("\n| packing: decode, resize, write, sync | images/s, 1 process | images/s, 2 processes |\n|---|---|---|")
    for kind in layouts:
        print(f"| {kind} | {number / found[f'{kind} 1'][0]:,.0f} | {number / found[f'{kind} 2'][0]:,.0f} |")


def sharing(config: Config, folder: Path, turns: int) -> None:
    """The data step of a run: from its source, and from a pack of it."""
    data = config.data.model_copy(update={"near_duplicates": "ignore", "duplicates": "drop"})
    pack_folder = make_pack(data, folder / "pack")
    changed = {"source": "packed", "root": str(pack_folder), "storage": "auto"}
    pages = {"its source": data, "a pack": data.model_copy(update=changed)}

    def work(page: DataConfig) -> Callable[[], object]:
        def once() -> None:
            run = config.model_copy(update={"data": page, "rounds": 0})
            shutil.rmtree(folder / "run", ignore_errors=True)
            run_stage(run, "data", folder / "run")

        return once

    found = medians({name: work(page) for name, page in pages.items()}, max(3, turns // 3))
    images = PackMetrics.of(Manifest.read(pack_folder)).images
    print(f"\n| data step of {images:,} images, from | seconds | against its source |\n|---|---|---|")
    for name, (seconds, _) in found.items():
        print(f"| {name} | {seconds:.2f} | {found['its source'][0] / seconds:.1f} x |")


if __name__ == "__main__":
    main()
