"""The product of a run in a user's hands."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from nstudent.config.file import check
from nstudent.data.given_images import GIVEN, GivenImage, NamedImage, named_images
from nstudent.data.packing.decoder_at_hand import DecoderAtHand
from nstudent.data.packing.decoders import Read, reading
from nstudent.data.packing.reader import Decoded, Readable, Reader
from nstudent.errors import ArtifactError
from nstudent.evaluation.risk import Depth
from nstudent.labels.decoders import build_decoder
from nstudent.labels.decoding import Decoder
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.members import Levels
from nstudent.models.recipe import Recipe
from nstudent.storage.artifact import FINAL, Artifact
from nstudent.storage.commit import partial_folder
from nstudent.storage.files import read_json
from nstudent.taxonomy.tree import Taxonomy

_STEP = re.compile(r"[0-9]+-[a-z]+")
_FEW = 64
"""Number of images up to which they are counted before processes are started for them."""
_AT_HAND = 8
"""Number of images up to which the process that is kept decodes them: to start others would take longer."""

_Item = TypeVar("_Item")
_Seen = tuple[str, Decoded]
"""Name of an image, and the image as the members see it."""


@dataclass(frozen=True)
class LevelPrediction:
    """The class at one level, and the probability it was given there."""

    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image."""

    image: str
    """Path of the image, as it was given; of an image in memory ``#`` and its number among those given, from 0."""
    labels: dict[str, LevelPrediction]
    """By level, coarse first; levels below the end of the path are left out."""
    error: str | None = None
    """Why there are no labels, where the image cannot be read."""
    top: dict[str, tuple[LevelPrediction, ...]] = field(default_factory=dict)
    """By level the most probable classes, the most probable first, where they were asked for. Each level is by itself:
    the first class need not be that of the label, which is the best path as a whole."""
    digest: bytes = field(default=b"", repr=False, compare=False)
    """sha256 of the bytes that were decoded; zeros where they could not be read."""


class Classifier:
    """The best classifier of a run folder.

    >>> classifier = Classifier.load("runs/digits")           # doctest: +SKIP
    >>> classifier.predict(["photo.jpg"])[0].labels["coarse"]  # doctest: +SKIP
    LevelPrediction(name='loop', probability=0.98)
    """

    def __init__(self, ensemble: Ensemble, id_: str = "") -> None:
        self._ensemble = ensemble
        self.id = id_
        """Hash of the files that it was loaded from; empty if it was not loaded."""

    @classmethod
    def load(cls, run_dir: str | Path, device: str = "auto") -> Classifier:
        """Load the classifier that a run gives: what its last choice took.

        Executes nothing from the folder, reads nothing outside it, and checks every hash: it may be a stranger's.

        Raises:
            ArtifactError: the folder holds no finished classifier, or a damaged one.
        """
        asked: dict[str, Any] = {"device": device}
        check(asked, where="device")
        final = final_step(Path(run_dir))
        recipe = Recipe.read(final)
        asked |= {"precision": recipe.precision, "data": {"image_size": recipe.image_size}}
        placement = Placement.from_config(check(asked, where="device"))
        return cls(Ensemble.load(final, placement), final.manifest.id)

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes it knows."""
        return self._ensemble.recipe.taxonomy

    @cached_property
    def _decoder(self) -> Decoder:
        """The decoder that labelled and scored with this classifier."""
        return build_decoder(self._ensemble.recipe.decoder, self._ensemble.recipe.outputs)

    def predict(self, images: GivenImage | Iterable[GivenImage], batch_size: int = 64) -> list[Prediction]:
        """Labels for images, in their order; one that cannot be read gets an error instead of labels.

        Args:
            images: One image or many: paths of files or of folders, bytes of image files, PIL images, uint8 arrays
                (height, width) or (height, width, 3).
            batch_size: Number of images that are labelled at once.

        Raises:
            TypeError: Something of it is no image; the message says what is taken.
            ValueError: ``batch_size`` is below 1.
        """
        return list(self.stream(named_images(images), batch_size))

    def stream(
        self, images: Iterable[NamedImage], batch_size: int = 64, *, top: int = 1, depth: Depth | None = None
    ) -> Iterator[Prediction]:
        """Labels for images, one after the other, in their order; few of them are in memory at once.

        Args:
            images: Images that are yet to be read. They are read and decoded a few batches ahead, in processes whose
                memory and processor time are limited as in a run: what an image does to a decoder costs that image.
            batch_size: Number of images that are labelled at once.
            top: Number of classes that ``Prediction.top`` lists for each level; 1: it is empty.
            depth: Cuts labels where they are no longer sure; ``None``: they are given in full.

        Raises:
            ValueError: ``batch_size`` or ``top`` is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: at least one image is labelled at a time")
        if top < 1:
            raise ValueError(f"top is {top}: at least one class is given for each level")
        return self._stream(((image.name, image) for image in images), self._reading_given, (batch_size, top, depth))

    def stream_source(self, images: Iterable[tuple[str, int]], source: Readable[int]) -> Iterator[Prediction]:
        """Labels for images of a source, each given by its name and its number in the source, in their order.

        Raises:
            DataError: The whole source is gone.
        """
        return self._stream(iter(images), partial(self._reading, self._reader(source)), (64, 1, None))

    def _stream(
        self,
        images: Iterator[tuple[str, _Item]],
        reading_of: Callable[[int], AbstractContextManager[Read[_Item]]],
        asked: tuple[int, int, Depth | None],
    ) -> Iterator[Prediction]:
        batch_size, top, depth = asked
        first = list(islice(images, _FEW))
        names: deque[str] = deque()

        def named() -> Iterator[_Item]:
            for name, image in chain(first, images):
                names.append(name)
                yield image

        seen: list[_Seen] = []
        with reading_of(len(first)) as read:
            for some in read(named()):
                seen += [(names.popleft(), image) for image in some]
                while len(seen) >= batch_size:
                    yield from self._batch(seen[:batch_size], top, depth)
                    del seen[:batch_size]
            if seen:
                yield from self._batch(seen, top, depth)

    def _reading(self, reader: Reader[_Item], at_least: int) -> AbstractContextManager[Read[_Item]]:
        """What reads so many images, or more if there are as many as are counted."""
        return reading(reader, at_least if at_least < _FEW else None, spawn=False)

    def _reading_given(self, at_least: int) -> AbstractContextManager[Read[NamedImage]]:
        """The same of images as they were given."""
        return nullcontext(self._at_hand) if at_least <= _AT_HAND else self._reading(self._reader(GIVEN), at_least)

    def _reader(self, source: Readable[_Item]) -> Reader[_Item]:
        recipe = self._ensemble.recipe
        return Reader(source, recipe.image_size, recipe.max_pixels, recipe.bits, endless_is_unreadable=True)

    @cached_property
    def _at_hand(self) -> DecoderAtHand[NamedImage]:
        """The process that decodes a few images at a time."""
        return DecoderAtHand(self._reader(GIVEN))

    def _batch(self, seen: Sequence[_Seen], top: int, depth: Depth | None) -> Iterator[Prediction]:
        taxonomy = self._ensemble.recipe.taxonomy
        pixels = [image.pixels for _, image in seen if image.pixels is not None]
        if pixels:
            levels = self._ensemble.vote(self._ensemble.images(torch.from_numpy(np.stack(pixels))))
            if not all(level.isfinite().all() for level in levels):
                raise ArtifactError("the classifier answers with numbers that are not finite: train it again")
            found = self._decoder.decode(levels)
            paths, confidence = found.paths.cpu().numpy(), found.confidence.cpu().numpy()
            if depth is not None:
                paths = depth.cut(paths, confidence)
            best = self._best(levels, top)
        at = 0
        for name, image in seen:
            if image.pixels is None:
                yield Prediction(name, {}, image.reason, digest=image.digest)
                continue
            names, sure = (
                taxonomy.names(paths[at].tolist()),
                dict(zip(taxonomy.levels, confidence[at].tolist(), strict=True)),
            )
            labels = {level: LevelPrediction(said, sure[level]) for level, said in names.items()}
            yield Prediction(name, labels, top=best[at], digest=image.digest)
            at += 1

    def _best(self, levels: Levels, top: int) -> list[dict[str, tuple[LevelPrediction, ...]]]:
        """The most probable classes of each image by level, the most probable first; empty if ``top`` is 1."""
        taxonomy = self._ensemble.recipe.taxonomy
        found: list[dict[str, tuple[LevelPrediction, ...]]] = [{} for _ in range(len(levels[0]))]
        if top == 1:
            return found
        for level, names, masses in zip(taxonomy.levels, taxonomy.classes, levels, strict=True):
            # Behind the classes there may be an output for 'nothing'.
            values, indices = masses[:, : len(names)].topk(min(top, len(names)), dim=1)
            for image, (row, sure) in enumerate(zip(indices.tolist(), values.tolist(), strict=True)):
                found[image][level] = tuple(LevelPrediction(names[i], p) for i, p in zip(row, sure, strict=True))
        return found


def final_step(run_dir: Path) -> Artifact:
    """The committed step whose classifier is the result of a run.

    Raises:
        ArtifactError: the folder holds no finished classifier.
    """
    pointer = run_dir / FINAL
    if not pointer.exists():
        raise ArtifactError(f"{run_dir} holds no trained classifier: run `nstudent run-all --run-dir {run_dir}` first")
    said = read_json(pointer)
    name = said.get("step") if isinstance(said, dict) else None
    if not isinstance(name, str) or not _STEP.fullmatch(name):
        raise ArtifactError(f"{pointer} is damaged: run `nstudent run-all --run-dir {run_dir}` again")
    if (run_dir / name).is_symlink():
        raise ArtifactError(f"{run_dir / name} is a link to a folder elsewhere: put the folder itself there")
    if not (run_dir / name).exists() and partial_folder(run_dir / name).exists():
        raise ArtifactError(
            f"{name} of {run_dir}, the classifier, is being made again, or that was interrupted: wait, or run "
            f"`nstudent verify {run_dir} --repair`"
        )
    return Artifact(run_dir / name)
