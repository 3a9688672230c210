"""The product of a run in a user's hands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nstudent.config.file import check
from nstudent.data.decode import decode
from nstudent.data.given_images import GivenImage, NamedImage, named_images
from nstudent.errors import ArtifactError, ImageError
from nstudent.labels.decoders import build_decoder
from nstudent.labels.decoding import Decoder
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.recipe import Recipe
from nstudent.storage.artifact import FINAL, Artifact
from nstudent.storage.commit import partial_folder
from nstudent.storage.files import read_json
from nstudent.taxonomy.tree import Taxonomy

_STEP = re.compile(r"[0-9]+-[a-z]+")


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


class Classifier:
    """The best classifier of a run folder.

    >>> classifier = Classifier.load("runs/digits")           # doctest: +SKIP
    >>> classifier.predict(["photo.jpg"])[0].labels["coarse"]  # doctest: +SKIP
    LevelPrediction(name='loop', probability=0.98)
    """

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble

    @classmethod
    def load(cls, run_dir: str | Path, device: str = "auto") -> Classifier:
        """Load the classifier that a run gives: what its last choice took.

        Executes nothing from the folder, reads nothing outside it, and checks every hash: it may be a stranger's.

        Raises:
            ArtifactError: the folder holds no finished classifier, or a damaged one.
        """
        asked: dict[str, Any] = {"device": device}
        check(asked, where="device")
        final = _final(Path(run_dir))
        recipe = Recipe.read(final)
        asked |= {"precision": recipe.precision, "data": {"image_size": recipe.image_size}}
        return cls(Ensemble.load(final, Placement.from_config(check(asked, where="device"))))

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
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: at least one image is labelled at a time")
        predictions: list[Prediction] = []
        named = named_images(images)
        while batch := list(islice(named, batch_size)):
            predictions += self._batch(batch)
        return predictions

    def _batch(self, images: Sequence[NamedImage]) -> Iterator[Prediction]:
        recipe = self._ensemble.recipe
        pixels, errors = [], {}
        for number, image in enumerate(images):
            try:
                pixels.append(decode(image.content(), recipe.image_size, recipe.max_pixels, recipe.bits))
            except (ImageError, OSError, ValueError) as error:
                # A path may hold what no path can (a null byte), and an image in memory may have been closed.
                errors[number] = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        if pixels:
            levels = self._ensemble.vote(self._ensemble.images(torch.from_numpy(np.stack(pixels))))
            if not all(level.isfinite().all() for level in levels):
                raise ArtifactError("the classifier answers with numbers that are not finite: train it again")
            found = self._decoder.decode(levels)
        at = 0
        for number, image in enumerate(images):
            if number in errors:
                yield Prediction(image.name, {}, errors[number])
                continue
            names = recipe.taxonomy.names(found.paths[at].tolist())
            sure = dict(zip(recipe.taxonomy.levels, found.confidence[at].tolist(), strict=True))
            yield Prediction(image.name, {level: LevelPrediction(name, sure[level]) for level, name in names.items()})
            at += 1


def _final(run_dir: Path) -> Artifact:
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
