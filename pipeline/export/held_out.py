"""Images that an exported program is checked with: real ones of the run where they are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from nstudent.data.dataset import Dataset
from nstudent.errors import NstudentError
from nstudent.randomness import generator
from nstudent.runs.kept_config import kept_config, with_paths_found
from nstudent.storage.artifact import Artifact, Manifest

_IMAGES = 16


def check_images(run_dir: Path, final: Artifact, side: int) -> tuple[npt.NDArray[np.uint8], str]:
    """Some images, uint8 (images, side, side, 3), and what they are.

    They are validation or test images of the run. A folder that holds the classifier alone has none: then they are
    drawn at random.
    """
    try:
        dataset = _dataset(run_dir, final)
        ids = np.concatenate([dataset.validation, dataset.test])[:_IMAGES]
        if len(ids) and dataset.image_size == side:
            return dataset.pixels[ids], f"{len(ids)} held-out images"
    except (NstudentError, OSError, StopIteration):
        # Whoever has the classifier need not have its images.
        pass
    drawn = generator("export", side).integers(0, 256, (_IMAGES, side, side, 3), dtype=np.uint8)
    return drawn, f"{_IMAGES} random images, because the run has no images here"


def _dataset(run_dir: Path, final: Artifact) -> Dataset:
    step = next(
        name
        for name in sorted(final.manifest.inputs)
        if (run_dir / name).is_dir() and Manifest.read(run_dir / name).role == "data"
    )
    return Dataset(Artifact(run_dir / step), with_paths_found(kept_config(run_dir), run_dir).data)
