"""The packed data set: what the data stage leaves behind, as every other stage reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nstudent.config.schema import DataConfig
from nstudent.data.curation.split import TEST, TRAIN, UNLABELLED, VALIDATION
from nstudent.data.decode import Pixels
from nstudent.data.packing.jpeg_shards import EncodedShards
from nstudent.data.packing.originals import Originals
from nstudent.errors import ArtifactError, ConfigError
from nstudent.machine import allow_open_files, copying_threads, in_threads
from nstudent.storage.artifact import Artifact
from nstudent.storage.hdf5 import attributes, mapped
from nstudent.taxonomy.tree import LabelArray, Taxonomy

INDEX = "index.h5"
TRUTH = "truth.h5"
FOLDS = "folds.h5"
VALIDATION_DRAWN = "validation_drawn"
"""Attribute of the file of the folds."""
TAXONOMY = "taxonomy.json"
INFO = "info.json"
FINDINGS = "findings.json"
PIXELS = "pixels-"

OK, UNREADABLE, DUPLICATE, THINNED, CONFLICTING, NEAR_DUPLICATE = 0, 1, 2, 3, 4, 5
"""Status of an image. Only those that are ``OK`` are used; the others keep their row, so that no id ever shifts."""

Ids = npt.NDArray[np.int64]


class Dataset:
    """Labels and pixels by image id, the row of an image in the order its source gave."""

    def __init__(self, artifact: Artifact, config: DataConfig | None = None) -> None:
        """Open it; ``config`` says where the images are, if they are not kept (``data.storage=original``)."""
        index = mapped(artifact.path(INDEX))
        self._artifact = artifact
        self.taxonomy = Taxonomy.from_json(artifact.json(TAXONOMY))
        self.labels: LabelArray = np.asarray(index["label"])
        """(images, levels), as training may see them: unlabelled images are unknown at every level."""
        self.split: npt.NDArray[np.int8] = np.asarray(index["split"])
        self.status: npt.NDArray[np.uint8] = np.asarray(index["status"])
        self._names = index["name"]
        self.image_size: int = artifact.json(INFO)["image_size"]
        self.pixels = PixelStore(artifact.paths(artifact.matching(PIXELS)), config)

    def __len__(self) -> int:
        return len(self.split)

    def name(self, image: int) -> str:
        """Name of an image in its source."""
        name: bytes = self._names[image]
        return name.decode("utf-8", "surrogateescape")

    def names(self, images: Ids) -> npt.NDArray[np.bytes_]:
        """Names of some images in their source, as bytes, (images,)."""
        return np.asarray(self._names[images])

    def ids(self, split: int) -> Ids:
        """Ids of the usable images of one split, ascending."""
        return np.flatnonzero((self.split == split) & (self.status == OK))

    @property
    def labelled(self) -> Ids:
        """Training images with a label at some level."""
        return self.ids(TRAIN)

    def folds(self) -> npt.NDArray[np.int16]:
        """The fold of each labelled training image, from 0, in the order of ``labelled``, (labelled images,).

        Raises:
            ConfigError: The data was not divided.
        """
        return np.array(mapped(self._folds_file)["fold"])

    def validation_is_drawn(self) -> bool:
        """Whether the validation images were drawn from the images that the labelled ones were drawn from; otherwise
        the source gives them, and they may show something else.

        Raises:
            ConfigError: The data was not divided into folds, which is when this is written down.
            ArtifactError: It was divided by a version that did not write it down.
        """
        about = attributes(self._folds_file)
        if VALIDATION_DRAWN not in about:
            raise ArtifactError(
                f"{self._folds_file} does not say whether validation was drawn: remove {self._artifact.folder.name} "
                "and run `nstudent stage data`"
            )
        return bool(about[VALIDATION_DRAWN])

    @property
    def _folds_file(self) -> Path:
        if FOLDS not in self._artifact.manifest.files:
            raise ConfigError("the labelled images are not divided into folds: set data.folds")
        return self._artifact.path(FOLDS)

    @property
    def unlabelled(self) -> Ids:
        """The heap."""
        return self.ids(UNLABELLED)

    @property
    def validation(self) -> Ids:
        """Images to choose by."""
        return self.ids(VALIDATION)

    @property
    def test(self) -> Ids:
        """Images to look at once."""
        return self.ids(TEST)

    def hidden_truth(self) -> LabelArray:
        """True labels, (images, levels), where the source knew them. For scoring only: no training code calls this."""
        return np.asarray(mapped(self._artifact.path(TRUTH))["label"])


class PixelStore:
    """All images as uint8 squares, by id: from mapped shards of pixels or JPEG, or decoded anew from their source."""

    def __init__(self, shards: list[Path], config: DataConfig | None = None) -> None:
        self._shards = shards
        self._config = config
        self._read: Callable[[Ids], Pixels] | None = None

    def __getstate__(self) -> tuple[list[Path], DataConfig | None]:
        # A worker process opens its own maps: pickling a map would copy the whole data set.
        return self._shards, self._config

    def __setstate__(self, state: tuple[list[Path], DataConfig | None]) -> None:
        self._shards, self._config = state
        self._read = None

    @property
    def decodes_anew(self) -> bool:
        """Whether every look at an image reads and decodes its original."""
        return isinstance(self._opened(), Originals)

    @property
    def are_mapped(self) -> bool:
        """Whether images are mapped squares, which cost no more to read than to copy."""
        return isinstance(self._opened(), _PixelShards)

    def open(self) -> None:
        """Open the files, or list the source: processes that are forked later share what was found."""
        self._opened()

    def __getitem__(self, ids: Ids) -> Pixels:
        """Images by id: (n,) -> uint8 (n, side, side, 3).

        Raises:
            ArtifactError: a shard cannot be read, or an image in it is damaged.
            DataError: an original is not what the data step has seen.
        """
        return self._opened()(ids)

    def read_into(self, ids: Ids, images: Pixels) -> None:
        """The same images, put into uint8 (n, side, side, 3): memory that a device can copy from by itself."""
        opened = self._opened()
        if isinstance(opened, _PixelShards):
            opened.read_into(ids, images)
        else:
            images[:] = opened(ids)

    def _opened(self) -> Callable[[Ids], Pixels]:
        if self._read is None:
            allow_open_files(len(self._shards))
            held = mapped(self._shards[0])
            if "pixels" in held:
                self._read = _PixelShards(self._shards)
            elif "jpeg" in held:
                self._read = EncodedShards(self._shards)
            elif self._config is not None:
                self._read = Originals(self._shards, self._config, self._shards[0].with_name(INDEX))
            else:
                raise ConfigError("these images are not kept: give the configuration that says where they are")
        return self._read


class _PixelShards:
    """Reads images by id from shards of pixels."""

    def __init__(self, paths: list[Path]) -> None:
        self._maps: list[Pixels] = [mapped(path)["pixels"] for path in paths]

    def __call__(self, ids: Ids) -> Pixels:
        images = np.empty((len(ids), *self._maps[0].shape[1:]), dtype=np.uint8)
        self.read_into(ids, images)
        return images

    def read_into(self, ids: Ids, images: Pixels) -> None:
        """Copy images by id, a few threads at a time where they are many megabytes."""
        in_threads(len(ids), copying_threads(images.nbytes), lambda part: self._copy(ids[part], images[part]))

    def _copy(self, ids: Ids, images: Pixels) -> None:
        rows = len(self._maps[0])
        shard = ids // rows
        for which in np.unique(shard):
            here = shard == which
            # Where all are of one shard they are copied once and not twice.
            if here.all():
                np.take(self._maps[which], ids - which * rows, axis=0, out=images, mode="clip")
            else:
                images[here] = self._maps[which][ids[here] - which * rows]
