"""The ensemble that a candidate of a choice stands for, put together from the classifiers that are its parts."""

from __future__ import annotations

from collections.abc import Mapping

from nstudent.labels.path_posterior import Calibration
from nstudent.models.ensemble import Ensemble, pool_ensembles
from nstudent.runs.step_metrics import Candidate


def ensemble_of(candidate: Candidate, trained: Mapping[str, Ensemble], decoder: str) -> Ensemble:
    """A candidate's ensemble, with its weights, temperatures and ends.

    Args:
        candidate: One that was chosen from.
        trained: Classifiers by the names of their steps: those that are its parts, and perhaps others.
        decoder: As the configuration names it.
    """
    if len(candidate.parts) == 1:
        (name,) = candidate.parts
        return trained[name].decoded_by(decoder)
    pool = pool_ensembles([trained[name] for name in candidate.parts], list(candidate.parts.values()))
    if candidate.temperatures is not None and candidate.ends is not None:
        pool = pool.calibrated(Calibration(candidate.temperatures, candidate.ends))
    return pool.decoded_by(decoder)
