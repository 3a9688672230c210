"""How deep the labels of a run's classifier can go, by what it says of the run's held-out images."""

from __future__ import annotations

from pathlib import Path

from nstudent.classifier import final_step
from nstudent.errors import ArtifactError, ConfigError
from nstudent.evaluation.predictions import Predictions
from nstudent.evaluation.risk import Depth
from nstudent.storage.artifact import Artifact, Manifest


def depth_of(run_dir: Path, risk: float) -> Depth:
    """The thresholds with which at most ``risk`` of the answers of each level are wrong, on validation and test images.

    Raises:
        ConfigError: ``risk`` is not above 0 and below 1.
        ArtifactError: The run has not scored its classifier, or the scores are those of another one.
    """
    if not 0 < risk < 1:
        raise ConfigError(f"--risk {risk:g}: give a share above 0 and below 1, such as 0.05")
    final = final_step(run_dir)
    for folder in sorted(run_dir.glob("[0-9]*-*"), reverse=True):
        if not (folder / "manifest.json").is_file():
            continue
        manifest = Manifest.read(folder)
        if manifest.role == "scores" and manifest.inputs.get(final.name) == final.manifest.id:
            said = Predictions.open(Artifact(folder), final.name)
            return Depth.fitted(risk, said.levels, said.paths, said.confidence, said.truth)
    raise ArtifactError(
        f"--risk goes by what the classifier said of held-out images, and {run_dir} has no scores of it: "
        f"nstudent run-all --run-dir {run_dir} makes them"
    )
