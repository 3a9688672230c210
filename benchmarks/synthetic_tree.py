"""Images on a tree of the contest's shape: 12 coarse, 53 mid and 42 fine classes, each of them a legal final label.

    python benchmarks/synthetic_tree.py OUT.h5        # 7,300 training and 3,000 test images, for data.source=hdf5

The contest's images are private; known are its tree (82 leaves: 2 below the root, 38 of the second level, 42 of the
third), its 7,300 training images, and that a label may end at any class. Every class has a texture of its own, finer
towards the leaves. An image is the sum of the textures on its path, each moved and weakened at random, under noise. A
few classes have most of the images, as they have in a shop.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from core_data import ABSENT, TEST, TRAIN, write_pack
from PIL import Image

COARSE, MID, FINE = 12, 53, 42
PARENTS = (10, 15)
"""Number of coarse classes with mid ones below them, and of mid classes with fine ones."""
SIDE = 32
GRIDS = (3, 5, 8)
"""Cells along a side of a class's texture, by level."""
STRENGTHS = (0.16, 0.13, 0.11)
"""Standard deviation of a class's texture, by level, where black is 0 and white 1."""
NOISE = 0.24
STOPS = 0.1
"""Share of the images of a class with children whose label ends there."""

Paths = npt.NDArray[np.int16]


def tree_paths() -> Paths:
    """Every class of the tree as a label that ends there, (107, 3); -1 below its end."""
    mid_parent = [child % PARENTS[0] for child in range(MID)]
    fine_parent = [child % PARENTS[1] for child in range(FINE)]
    rows = [(coarse, ABSENT, ABSENT) for coarse in range(COARSE)]
    rows += [(mid_parent[mid], mid, ABSENT) for mid in range(MID)]
    rows += [(mid_parent[fine_parent[fine]], fine_parent[fine], fine) for fine in range(FINE)]
    return np.array(rows, np.int16)


def frequencies(paths: Paths, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Share of the images that end at each class, (107,): the leaves by Zipf's law, the others a few of each."""
    deepest = (paths >= 0).sum(axis=1) - 1
    parents = [set(paths[deepest > level, level]) for level in range(2)] + [set()]
    inner = np.array([paths[row, level] in parents[level] for row, level in enumerate(deepest)])
    shares = np.zeros(len(paths))
    leaves = np.flatnonzero(~inner)
    shares[generator.permutation(leaves)] = (1 / np.arange(3, 3 + len(leaves))) ** 0.7
    shares[leaves] *= (1 - STOPS) / shares.sum()
    shares[inner] = STOPS / inner.sum()
    return shares


def textures(generator: np.random.Generator) -> list[npt.NDArray[np.float32]]:
    """By level, the textures of its classes, (classes, side, side, 3), of mean 0."""
    made = []
    for classes, cells, strength in zip((COARSE, MID, FINE), GRIDS, STRENGTHS, strict=True):
        rough = generator.normal(size=(classes, cells, cells, 3)).astype(np.float32)
        smooth = np.stack([np.stack([_enlarged(plane) for plane in np.moveaxis(one, 2, 0)], axis=2) for one in rough])
        smooth -= smooth.mean(axis=(1, 2, 3), keepdims=True)
        made.append(strength * smooth / smooth.std(axis=(1, 2, 3), keepdims=True))
    return made


def draw_images(
    labels: Paths, of_classes: Sequence[npt.NDArray[np.float32]], generator: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """An image of each label, (images, side, side, 3)."""
    found = np.empty((len(labels), SIDE, SIDE, 3), np.uint8)
    for number, label in enumerate(labels):
        image = generator.normal(0.5, NOISE, (SIDE, SIDE, 3)).astype(np.float32)
        for texture, entry in zip(of_classes, label, strict=True):
            if entry >= 0:
                moved = np.roll(texture[entry], tuple(generator.integers(0, SIDE, size=2)), axis=(0, 1))
                image += moved * generator.uniform(0.4, 1.2)
        found[number] = np.clip(image * 255, 0, 255)
    return found


def write_tree(out: Path, train: int = 7_300, test: int = 3_000, seed: int = 0) -> None:
    """Write the images, with numbered classes, as docs/DATA.md describes for ``data.source=hdf5``."""
    generator = np.random.default_rng(seed)
    paths = tree_paths()
    labels = paths[generator.choice(len(paths), size=train + test, p=frequencies(paths, generator))]
    # Every class is there to be learnt.
    labels[: len(paths)] = paths
    pixels = draw_images(labels, textures(generator), generator)
    names = [
        [f"{level} {entry}" for entry in range(classes)]
        for level, classes in zip(("coarse", "mid", "fine"), (COARSE, MID, FINE), strict=True)
    ]
    write_pack(out, pixels, labels, np.repeat([TRAIN, TEST], [train, test]), names)


def _enlarged(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    write_tree(parser.parse_args().out)


if __name__ == "__main__":
    main()
