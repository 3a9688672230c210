"""The core settings of docs/RESULTS.md and the variants that are measured on them, by name.

A setting is the defaults and what its data needs: paths, sizes, the number of labels, and the backbone where the
weights are given. A variant is a list of ``KEY=VALUE`` words on top.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import core_data
import synthetic_tree
from core_data import found


@dataclass(frozen=True)
class Data:
    """Where files of settings are looked for, and where those are made that are made of others."""

    folders: tuple[Path, ...]
    made: Path

    @classmethod
    def of(cls, folders: Sequence[Path], made: Path) -> "Data":
        """The folders that were named, then those of ``NSTUDENT_DATA``, then that of Debian's data sets."""
        named = [Path(name) for name in os.environ.get("NSTUDENT_DATA", "").split(os.pathsep) if name]
        return cls((*folders, *named, Path("/usr/share/datasets")), made)


@dataclass(frozen=True)
class Setting:
    """Data and network of a run."""

    words: Callable[[Data, int], list[str]]
    """``KEY=VALUE`` words, by the data and the run's seed."""
    device: Literal["cpu", "cuda"]
    """Where a run of it is made on a machine that has both: networks of a few milliseconds gain nothing from a GPU."""
    seconds: float
    """What a run with the defaults takes there, roughly: which runs begin first is decided by it."""


LITE0 = "tf_efficientnet_lite0"


def _digits(data: Data, seed: int) -> list[str]:
    return []


def _fashion(data: Data, seed: int) -> list[str]:
    root = found(data.folders, "fashion-mnist", "Debian's package dataset-fashion-mnist holds its four IDX files.")
    paths = (
        *("clothes/tops/T-shirt", "clothes/bottoms/trouser", "clothes/tops/pullover", "clothes/dresses/dress"),
        *("clothes/outers/coat", "goods/shoes/sandal", "clothes/tops/shirt", "goods/shoes/sneaker"),
        *("goods/accessories/bag", "goods/shoes/ankle boot"),
    )
    return [
        *("data.source=idx", f"data.root={root}", f"data.class_paths=[{', '.join(paths)}]"),
        *("data.labelled=1000", "data.validation=1000", "data.duplicates=drop"),
    ]


def _grocery(data: Data, seed: int) -> list[str]:
    return [
        *("data.source=hdf5", f"data.root={_pack(data)}", "data.image_size=64"),
        *("data.labelled=0.25", "data.duplicates=drop", *_pretrained(data)),
    ]


def _packed_once(data: Data, name: str, source: str, where: str, pack: Callable[[Path, Path], None]) -> Path:
    """An HDF5 file that is made from another file, unless it is there."""
    made = data.made / name
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        pack(found(data.folders, source, where), made)
    return made


CIFAR10N = "cifar10n_lite_lossless.npz"
CIFAR10N_IS = (
    "The first 12,000 training images of CIFAR-10, their clean labels and those of CIFAR-10N, and 3,000 of test."
)


def _cifar(data: Data, seed: int) -> list[str]:
    heap = _packed_once(data, "cifar10_lite.h5", CIFAR10N, CIFAR10N_IS, core_data.cifar)
    return [
        *("data.source=hdf5", f"data.root={heap}", "data.image_size=32"),
        *("data.labelled=1000", "data.validation=1000", "data.duplicates=drop"),
    ]


def _human_labels(labels: str) -> Callable[[Data, int], list[str]]:
    """Nearly all images labelled, and a part of the labels wrong as people are wrong; so are those of validation."""

    def words(data: Data, seed: int) -> list[str]:
        pack = partial(core_data.cifar, labels=labels)
        made = _packed_once(data, f"cifar10n_{labels}.h5", CIFAR10N, CIFAR10N_IS, pack)
        sizes = ("data.labelled=10000", "data.validation=1000", "data.duplicates=drop", "data.image_size=32")
        return ["data.source=hdf5", f"data.root={made}", *sizes]

    return words


def _newcomer(data: Data, seed: int) -> list[str]:
    return _newcomer_folders(data, f"newcomer-{seed}", seed)


def _newcomer_128(data: Data, seed: int) -> list[str]:
    return [*_newcomer_folders(data, f"newcomer-128-{seed}", seed, side=128), *_pretrained(data)]


def _newcomer_folders(data: Data, name: str, seed: int, side: int = 64, heap: int = 300) -> list[str]:
    """Photos of ``side`` px in a folder for each class, and a heap beside them; made unless they are there."""
    folder = data.made / name
    # What is written last.
    if not (folder / "heap" / "Thumbs.db").exists():
        core_data.newcomer(_pack(data, side), folder, seed, heap=heap)
    roots = (f"data.root={folder / 'photos'}", f"data.unlabelled_root={folder / 'heap'}")
    return ["data.source=folder", *roots, f"data.image_size={side}"]


def _newcomer_pretrained(data: Data, seed: int) -> list[str]:
    return [*_newcomer(data, seed), *_pretrained(data)]


def _pack(data: Data, side: int = 64) -> Path:
    where = f"The Grocery Store photos at {side} px, packed as docs/DATA.md describes."
    return found(data.folders, f"grocery_{side}.h5", where)


def _pretrained(data: Data) -> list[str]:
    where = f"timm's {LITE0} with ImageNet weights, as a safetensors file."
    file = found(data.folders, "lite0.safetensors", where)
    member = f"{{backbones: [{LITE0}], pretrained: {file}}}"
    return [f"teacher.members=[{member}, {member}]", f"student.model={member}"]


def _scratch(data: Data, seed: int) -> list[str]:
    return [word for word in _grocery(data, seed) if not word.startswith(("teacher.members", "student.model"))]


def _cifar100(data: Data, seed: int) -> list[str]:
    where = "A tenth of CIFAR-100's classes' images: 10,000 training and 2,000 test images."
    heap = _packed_once(data, "cifar100_lite.h5", "cifar100_lite_lossless.npz", where, core_data.cifar100)
    sizes = ("data.labelled=2000", "data.validation=1000", "data.duplicates=drop", "data.image_size=32")
    # CIFAR-100 holds a few images twice, under two classes.
    return ["data.source=hdf5", f"data.root={heap}", *sizes, "data.conflicting_labels=drop"]


def _tree(data: Data, seed: int) -> list[str]:
    made = data.made / "tree.h5"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        synthetic_tree.write_tree(made)
    sizes = ("data.labelled=2000", "data.validation=1000", "data.near_duplicates=ignore", "data.image_size=32")
    return ["data.source=hdf5", f"data.root={made}", *sizes]


def _large_heap(data: Data, seed: int) -> list[str]:
    return _newcomer_folders(data, f"newcomer-all-{seed}", seed, heap=10_000)


CORE = {
    "digits": Setting(_digits, "cpu", 110),
    "fashion": Setting(_fashion, "cuda", 120),
    "grocery": Setting(_grocery, "cuda", 60),
    "cifar": Setting(_cifar, "cuda", 60),
    "newcomer": Setting(_newcomer, "cuda", 30),
    "newcomer_pretrained": Setting(_newcomer_pretrained, "cuda", 40),
}
"""What every change is measured on."""
FURTHER = {
    "digits_30": Setting(lambda data, seed: ["data.labelled=30"], "cpu", 90),
    "fashion_250": Setting(lambda data, seed: [*_fashion(data, seed), "data.labelled=250"], "cuda", 120),
    "grocery_eighth": Setting(lambda data, seed: [*_grocery(data, seed), "data.labelled=0.125"], "cuda", 60),
    "grocery_scratch": Setting(_scratch, "cuda", 60),
    "cifar100": Setting(_cifar100, "cuda", 80),
    "newcomer_large_heap": Setting(_large_heap, "cuda", 60),
    "newcomer_128": Setting(_newcomer_128, "cuda", 60),
    "cifar10n": Setting(_human_labels("random_label1"), "cuda", 80),
    "cifar10n_worse": Setting(_human_labels("worse_label"), "cuda", 80),
}
"""Where labels are fewer or wrong, classes more, or the heap another one: looked at once, with one seed."""
LADDER = {
    "ladder_fashion": Setting(lambda data, seed: [*_fashion(data, seed), "data.image_size=32"], "cpu", 120),
    "ladder_grocery": Setting(_scratch, "cpu", 600),
    "ladder_tree": Setting(_tree, "cpu", 180),
}
"""What ``ladder.py`` climbs on; it names the networks."""
SETTINGS = CORE | FURTHER | LADDER
CHOSEN_ON = ("digits", "fashion", "grocery")
"""Settings whose seed 0 decides what becomes a default. The others are only reported."""

SOFT = ["pseudolabel.threshold=0", "pseudolabel.balance=false", "filter.enabled=false"]
"""The null recipe: calibrated soft labels of the whole heap. A rule has to beat it, or is off by default."""

VARIANTS = {
    "defaults": [],
    "null": SOFT,
    "threshold": [*SOFT, "pseudolabel.threshold=0.6"],
    "balance": [*SOFT, "pseudolabel.balance=true"],
    "filter": [*SOFT, "filter.enabled=true"],
    "strict": [*SOFT, "pseudolabel.threshold=0.6", "pseudolabel.balance=true", "filter.enabled=true"],
    "hard": [*SOFT, "pseudolabel.targets=hard"],
    "under path": [*SOFT, "pseudolabel.targets=under_path"],
    "two rounds": [*SOFT, "rounds=2"],
    "cutout": [*SOFT, "student.noise.cutout=0.5"],
    "magnitude 10": [*SOFT, "student.noise.magnitude=10"],
    "magnitude 10, cutout": [*SOFT, "student.noise.magnitude=10", "student.noise.cutout=0.5"],
    "small stem": [*SOFT, "student.model.stem=small"],
    "wide student": [
        *SOFT,
        "student.model.backbones=[test_resnet]",
        "student.model.backbone_options={channels: [64, 96, 128, 192]}",
    ],
    "equal labels": [*SOFT, "student.unlabelled_ratio=1"],
    "more labels": [*SOFT, "student.unlabelled_weight=0.5"],
    "longer student": [*SOFT, "student.epochs=60"],
    **{f"{side} px": [f"data.image_size={side}"] for side in (32, 64, 96, 128, 160, 192, 224)},
    "four stages": ["teacher.progressive_stages=4", "student.progressive_stages=4"],
    "agc": ["teacher.clip=agc", "student.clip=agc"],
    "layers": ["teacher.layer_decay=0.75", "student.layer_decay=0.75"],
}
"""Each a list of ``KEY=VALUE`` words. Others: ``results.py --as NAME KEY=VALUE...``."""


def one_core(commit: str) -> list[str]:
    """Words that keep a run of a commit in one process and one thread. The key ``jobs`` came after 8b18941."""
    return ["threads=1", "workers=0", *([] if commit == "8b18941" else ["jobs=1"])]
