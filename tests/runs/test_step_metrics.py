"""What steps report, as their manifests keep it: also the manifests of earlier versions, which named no role."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from costless_runs import ONE_ROUND, TWO_ROUNDS, states, steps_made
from nstudent.errors import ArtifactError
from nstudent.evaluation.scores import HEADLINE, Difference, Interval
from nstudent.runs.plan import STAGES
from nstudent.runs.step_metrics import (
    METRICS,
    Candidate,
    ChoiceMetrics,
    Contribution,
    DataMetrics,
    FilterIteration,
    FilterMetrics,
    LabelMetrics,
    ScoreMetrics,
    TrainedMetrics,
    read_metrics,
)
from nstudent.storage.artifact import Manifest, Metrics

if TYPE_CHECKING:
    from conftest import FakeStages

GAIN = Difference(0.1, -0.1, 0.2, 0.9)
ADDS = {"a": Contribution(0.4, 0.1, GAIN), "b": Contribution(0.6, 0.1, GAIN)}
EACH = [
    DataMetrics(1, 2, 3, 4, 5, 6, 7, 8, classes=(2, 3), terminals=4, findings={"held_out_only": 1}),
    TrainedMetrics({HEADLINE: 0.5, "accuracy/fine": None}, 0.1, 10, history=(({"epoch": 1, "loss": 0.5},), ())),
    TrainedMetrics({HEADLINE: 0.5}, 0.1, 10, (), training_gmacs=1.5, gain_over_labeller=GAIN),
    ChoiceMetrics(
        "pool of all",
        labels_alone="01-teacher",
        with_heap=None,
        candidates=(
            Candidate("01-teacher", {"01-teacher": 1.0}, False, 0.1, 0.5, None, 0.0, None, None),
            Candidate("pool of all", {"a": 0.4, "b": 0.6}, True, 0.2, 0.6, GAIN, 0.01, (1.0, 0.9), (0.1, 0.0), ADDS),
        ),
    ),
    LabelMetrics(9, {"fine": 3}, shown=3, copies=4, temperatures=(1.0, 0.9), highest_confidence=0.99),
    FilterMetrics(
        "", ("A/a",), {"fine": 2}, {"fine": 1}, {"fine": 0}, 2, 3, (FilterIteration(0.5, 1, 8, 0.5),), 8, 0.5
    ),
    ScoreMetrics("01-teacher", {HEADLINE: Interval(0.5, 0.4, 0.6), "whole path": None}, {HEADLINE: GAIN}),
]


def _manifest(stage: str, role: str, metrics: dict[str, Any]) -> Manifest:
    return Manifest(stage, role, 0, asked={}, inputs={}, files={}, metrics=metrics, seconds=0.0)


@pytest.mark.parametrize("metrics", EACH, ids=lambda each: type(each).__name__)
def test_what_is_reported_is_read_back_from_the_manifest(metrics: Metrics) -> None:
    kept = json.loads(json.dumps(metrics.to_json()))
    role = next(role for role, kind in METRICS.items() if isinstance(metrics, kind))
    assert read_metrics(_manifest("some", role, kept)) == metrics


def test_every_role_that_a_stage_provides_has_its_metrics() -> None:
    assert {stage.provides for stage in STAGES.values()} == set(METRICS)


def test_what_a_teacher_reports_names_no_labeller() -> None:
    assert set(EACH[1].to_json()) == {"validation", "gmacs", "image_passes", "history"}


def test_a_candidate_is_found_by_its_name() -> None:
    metrics = EACH[3]
    assert isinstance(metrics, ChoiceMetrics)
    assert metrics.taken is metrics.candidates[1]
    assert metrics.candidate("01-teacher") is metrics.candidates[0]
    with pytest.raises(LookupError):
        metrics.candidate("02-baseline")


@pytest.mark.parametrize("role", ["labeller", "labels", "selection", "data", "scores", "pack", "", "clean labels"])
def test_metrics_of_something_else_are_an_error_in_words(role: str) -> None:
    with pytest.raises(ArtifactError, match=r"manifest of a filter step|is not the role of a step"):
        read_metrics(_manifest("filter", role, {"promoted": "yes"}))


# --- manifests of earlier versions ---


def _without_roles(run_dir: Path) -> None:
    """Write the manifests as they were written before they named a role."""
    for path in run_dir.glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        del manifest["role"]
        path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("stage", STAGES)
def test_the_role_of_a_manifest_that_names_none_is_that_of_its_stage(stage: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    data = {"stage": stage, "round": 0, "asked": {}, "inputs": {}, "files": {}, "metrics": {}, "seconds": 0.0}
    path.write_text(json.dumps(data | {"schema": 1}))
    assert Manifest.read(tmp_path).role == STAGES[stage].provides


def test_a_run_folder_without_roles_is_up_to_date_and_read_as_before(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path)
    ids = {name: Manifest.read(tmp_path / name).id for name in ONE_ROUND}
    _without_roles(tmp_path)
    assert set(states(tmp_path).values()) == {"done"}
    assert steps_made(tmp_path) == {}
    assert {name: Manifest.read(tmp_path / name).id for name in ONE_ROUND} == ids
    assert json.loads((tmp_path / "final.json").read_text()) == {"step": "07-choose"}


def test_scores_are_made_of_what_an_earlier_version_has_left(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path)
    _without_roles(tmp_path)
    shutil.rmtree(tmp_path / "08-evaluate")
    assert list(steps_made(tmp_path)) == ["08-evaluate"]
    scores = json.loads((tmp_path / "08-evaluate" / "scores.json").read_text())
    assert list(scores["classifiers"]) == ["01-teacher", "02-baseline", "06-student"]


def test_a_filter_of_an_earlier_version_that_left_nothing_ends_the_rounds(
    tmp_path: Path, fake_stages: FakeStages
) -> None:
    fake_stages.leave_nothing_after("05-filter")
    steps_made(tmp_path, "rounds=2")
    _without_roles(tmp_path)
    assert [name for name, state in states(tmp_path).items() if state == "not needed"] == TWO_ROUNDS[6:11]


def test_the_manifest_names_the_role(tmp_path: Path, fake_stages: FakeStages) -> None:
    steps_made(tmp_path)
    roles = {name: json.loads((tmp_path / name / "manifest.json").read_text())["role"] for name in ONE_ROUND}
    assert list(roles.values()) == [
        *("data", "classifier", "classifier", "labeller"),
        *("labels", "selection", "classifier", "labeller", "scores"),
    ]


def test_an_iteration_that_leaves_no_doubt_at_all_is_not_taken_for_one_without_a_score() -> None:
    """The logarithm of a probability of one is zero."""
    certain, old = FilterIteration(1.0, 0, log_likelihood=0.0), FilterIteration(1.0, 0)
    doubtful = FilterIteration(1.0, 0, log_likelihood=-0.1)
    assert sorted((certain, doubtful, old), key=lambda each: each.score) == [old, doubtful, certain]
