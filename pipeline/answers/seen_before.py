"""Which photos a run has seen before: those that it learnt from, or chose and calibrated its classifier by.

A classifier scores better on them than on any others. They are known again by their bytes, whatever they are called.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nstudent.classifier import final_step
from nstudent.data.dataset import PIXELS, Dataset
from nstudent.storage.artifact import Artifact, Manifest
from nstudent.storage.hdf5 import mapped


def seen_before(run_dir: Path) -> frozenset[bytes] | None:
    """The sha256 of each file that the run learnt from, with a label or without, or chose by.

    It is ``None`` where the images of the run are not beside its classifier, as in an exported folder. Images that the
    run tested on are not among them: it has not learnt from those.

    Raises:
        ArtifactError: The folder holds no finished classifier, or its images cannot be read.
    """
    for name in sorted(final_step(run_dir).manifest.inputs):
        if (run_dir / name).is_dir() and Manifest.read(run_dir / name).role == "data":
            return _digests(Artifact(run_dir / name))
    return None


def _digests(data: Artifact) -> frozenset[bytes]:
    dataset = Dataset(data)
    every = np.concatenate([mapped(path)["digest"] for path in data.paths(data.matching(PIXELS))])
    seen = np.concatenate([dataset.labelled, dataset.unlabelled, dataset.validation])
    return frozenset(row.tobytes() for row in every[seen])
