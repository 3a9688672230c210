"""The files that the core settings read, made from what is to be had.

    python benchmarks/core_data.py cifar cifar10n_lite_lossless.npz cifar10_lite.h5
    python benchmarks/core_data.py newcomer grocery_64.h5 FOLDER --seed 0
    python benchmarks/core_data.py carry FOLDER... OUT        # all of it in 50 MB, for a machine without a network
    python benchmarks/core_data.py unpack OUT DATA            # and there, the files again

``benchmarks/results.py`` and ``benchmarks/gpu/core.py`` make the first two by themselves. What ``carry`` leaves out:
Fashion-MNIST keeps its first 20,000 training images (and all 10,000 of the test), and the pretrained convolutions are
rounded to half precision, without the classifier over ImageNet's classes.
"""

import argparse
import gzip
import io
import json
import lzma
import struct
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
from PIL import Image

ABSENT = -1
TRAIN, TEST = 0, 2
CLEAN = "clean_label"
"""Name of the clean labels in the file of CIFAR-10's images."""

FASHION = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
CARRIED_FASHION = 20_000
CIFAR_TREE = {
    "airplane": ("vehicle", "air-water", "airplane"),
    "automobile": ("vehicle", "road", "automobile"),
    "bird": ("animal", "bird"),
    "cat": ("animal", "mammal", "cat"),
    "deer": ("animal", "mammal", "deer"),
    "dog": ("animal", "mammal", "dog"),
    "frog": ("animal", "frog"),
    "horse": ("animal", "mammal", "horse"),
    "ship": ("vehicle", "air-water", "ship"),
    "truck": ("vehicle", "road", "truck"),
}
"""CIFAR-10's classes in their order, each with its path. Bird and frog end at the second level."""


class MissingDataError(Exception):
    """A file of a setting is in none of the folders; the message says which, and where it is to be had."""


def found(folders: Sequence[Path], name: str, where: str) -> Path:
    """Path of a file or folder in the first of the folders that has it.

    Raises:
        MissingDataError: none has it.
    """
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    looked = ", ".join(map(str, folders)) or "no folder was given: --data FOLDER, or NSTUDENT_DATA"
    raise MissingDataError(f"{name} is missing ({looked}). {where}")


def cifar(npz: Path, out: Path, labels: str = CLEAN) -> None:
    """Write the first 12,000 training and 3,000 test images of CIFAR-10, for ``data.source=hdf5``.

    Args:
        npz: The images, the clean labels, and those of CIFAR-10N, which people have given.
        out: The file.
        labels: Which labels the training images have; those of the test images are clean.
    """
    with np.load(npz, allow_pickle=False) as packed:
        pixels = np.concatenate([_tiles(packed, "train"), _tiles(packed, "test")])
        label = np.concatenate([packed[labels], packed["test_label"]])
        split = np.repeat([TRAIN, TEST], [int(packed["train_n"]), int(packed["test_n"])])
    names = [
        list(dict.fromkeys(path[level] for path in CIFAR_TREE.values() if level < len(path))) for level in range(3)
    ]
    rows = np.full((len(CIFAR_TREE), 3), ABSENT, np.int16)
    for row, path in zip(rows, CIFAR_TREE.values(), strict=True):
        row[: len(path)] = [names[level].index(name) for level, name in enumerate(path)]
    write_pack(out, pixels, rows[label], split, names)


def cifar100(npz: Path, out: Path) -> None:
    """Write the 10,000 training and 2,000 test images of a part of CIFAR-100 that way, with its 20 and 100 classes."""
    with np.load(npz, allow_pickle=False) as packed:
        pixels = np.concatenate([_tiles(packed, "train"), _tiles(packed, "test")])
        coarse, fine = (
            np.concatenate([packed[f"train_{name}"], packed[f"test_{name}"]]) for name in ("coarse", "fine")
        )
        split = np.repeat([TRAIN, TEST], [int(packed["train_n"]), int(packed["test_n"])])
    names = [[f"group {number}" for number in range(20)], [f"class {number}" for number in range(100)]]
    write_pack(out, pixels, np.stack([coarse, fine], axis=1).astype(np.int16), split, names)


def write_pack(
    out: Path,
    pixels: npt.NDArray[np.uint8],
    label: npt.NDArray[np.int16],
    split: npt.NDArray[np.int64],
    names: list[list[str]],
) -> None:
    """Write images as PNG, with labels, splits, and class names by level, as docs/DATA.md describes for HDF5.

    Args:
        out: The file.
        pixels: (images, side, side, 3).
        label: (images, levels); ``ABSENT`` below the end of a label.
        split: (images,); ``TRAIN`` or ``TEST``.
        names: By level, the names of its classes.
    """
    contents = [_png(image) for image in pixels]
    waiting = out.with_name(f"{out.name}.part")
    with h5py.File(waiting, "w") as file:
        file["jpeg"] = np.frombuffer(b"".join(contents), np.uint8)
        file["offset"] = np.cumsum([0, *map(len, contents)], dtype=np.int64)
        file["label"] = label
        file["split"] = split.astype(np.int8)
        file["name"] = np.array([f"{number:05d}".encode() for number in range(len(label))])
        file.attrs["meta"] = json.dumps({"levels": names})
    waiting.replace(out)


def newcomer(pack: Path, out: Path, seed: int, labelled: int = 300, heap: int = 300) -> None:
    """Write a newcomer's folders from the Grocery photos: few labelled ones, a heap, and the official test photos.

    Labelled photos are taken in turns from the classes, so that as many classes as possible have some. The heap is
    drawn from the other training photos. A broken JPEG, files that are no images and upper-case suffixes lie among
    them, as they do in a real folder.
    """
    with h5py.File(pack) as file:
        jpeg, offset, label, split = (file[name][:] for name in ("jpeg", "offset", "label", "split"))
        levels = json.loads(file.attrs["meta"])["levels"]
    train = np.random.default_rng(seed).permutation(np.flatnonzero(split == TRAIN))
    by_path: dict[tuple[int, ...], list[int]] = {}
    for image in train:
        by_path.setdefault(tuple(label[image]), []).append(int(image))
    turns = [image for turn in range(len(train)) for images in by_path.values() for image in images[turn : turn + 1]]
    chosen = set(turns[:labelled])

    def put(image: int, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{image}{'.JPG' if image % 5 == 0 else '.jpg'}"
        path.write_bytes(jpeg[offset[image] : offset[image + 1]].tobytes())
        return path

    first = None
    for images, part in ((turns[:labelled], "train"), (np.flatnonzero(split == TEST), "test")):
        for image in images:
            names = [levels[level][entry] for level, entry in enumerate(label[image]) if entry >= 0]
            path = put(int(image), out.joinpath("photos", part, *names))
            first = first or path
    for image in [int(image) for image in train if int(image) not in chosen][:heap]:
        put(image, out / "heap")
    if first is not None:
        (first.parent / "IMG_broken.jpg").write_bytes(first.read_bytes()[:700])
        (first.parent / ".DS_Store").write_text("x")
        (first.parent / "notes.txt").write_text("x")
    (out / "heap").mkdir(exist_ok=True)
    (out / "heap" / "Thumbs.db").write_text("x")


def carry(folders: Sequence[Path], out: Path) -> None:
    """Write everything that the core settings need into one folder of about 50 MB."""
    from safetensors.numpy import load_file

    out.mkdir(parents=True, exist_ok=True)
    for name in ("grocery_64.h5", "cifar10n_lite_lossless.npz"):
        (out / name).write_bytes(found(folders, name, "").read_bytes())
    fashion = found(folders, "fashion-mnist", "")
    for name in FASHION:
        content = gzip.decompress((fashion / f"{name}-ubyte.gz").read_bytes())
        keep = CARRIED_FASHION if name.startswith("train") else None
        (out / f"{name}-ubyte.xz").write_bytes(lzma.compress(_first(content, keep), preset=9))
    weights = load_file(found(folders, "lite0.safetensors", ""))
    half = {
        name: value.astype(np.float16) if value.ndim > 1 else value
        for name, value in weights.items()
        if not name.startswith("classifier.")
    }
    np.savez_compressed(out / "lite0.npz", allow_pickle=False, **half)


def unpack(carried: Path, data: Path) -> None:
    """Make the files of the core settings from what ``carry`` wrote."""
    from safetensors.numpy import save_file

    (data / "fashion-mnist").mkdir(parents=True, exist_ok=True)
    for name in FASHION:
        content = lzma.decompress((carried / f"{name}-ubyte.xz").read_bytes())
        (data / "fashion-mnist" / f"{name}-ubyte").write_bytes(content)
    with np.load(carried / "lite0.npz", allow_pickle=False) as half:
        whole = {name: half[name].astype(np.float32) if half[name].ndim > 1 else half[name] for name in half.files}
    save_file(whole, data / "lite0.safetensors")
    for name in ("grocery_64.h5", "cifar10n_lite_lossless.npz"):
        (data / name).write_bytes((carried / name).read_bytes())


def _first(content: bytes, images: int | None) -> bytes:
    """The first images or labels of an IDX file, as an IDX file."""
    dimensions = content[3]
    shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    kept = shape[0] if images is None else images
    row = int(np.prod(shape[1:], dtype=np.int64))
    start = 4 + 4 * dimensions
    return content[:4] + struct.pack(f">{dimensions}I", kept, *shape[1:]) + content[start : start + kept * row]


def _tiles(packed: "np.lib.npyio.NpzFile", part: str) -> npt.NDArray[np.uint8]:
    """The images of a part, which lie 25 in a row on sprites of 32 px tiles."""
    names = [name for name in sorted(packed.files) if name.startswith(f"{part}_") and name.split("_")[1].isdigit()]
    sprites = [np.asarray(Image.open(io.BytesIO(packed[name].tobytes())).convert("RGB")) for name in names]
    tiles = [each.reshape(len(each) // 32, 32, 25, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3) for each in sprites]
    images: npt.NDArray[np.uint8] = np.concatenate(tiles)[: int(packed[f"{part}_n"])]
    return images


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cifar", "newcomer", "carry", "unpack"])
    parser.add_argument("source", type=Path, nargs="+")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the newcomer's draw")
    options = parser.parse_args()
    if options.what == "carry":
        carry(options.source, options.out)
    elif options.what == "unpack":
        unpack(options.source[0], options.out)
    elif options.what == "cifar":
        cifar(options.source[0], options.out)
    else:
        newcomer(options.source[0], options.out, options.seed)


if __name__ == "__main__":
    main()
