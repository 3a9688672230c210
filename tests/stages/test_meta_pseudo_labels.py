"""A run whose student has a teacher that learns beside it: from the labels to the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nstudent.classifier import Classifier
from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset
from nstudent.lessons import Lessons
from nstudent.models.device import Placement
from nstudent.report.page import write_report
from nstudent.runs.curves import read_curves
from nstudent.runs.run import run_all, run_stage
from nstudent.runs.status import status
from nstudent.runs.step_metrics import ChoiceMetrics, RefitMetrics, TrainedMetrics
from nstudent.storage.artifact import Artifact, Manifest
from nstudent.taxonomy.outputs import Outputs
from nstudent.trainer import Trainer
from nstudent.training.objective import Supervised

METHOD = ("student.method=meta_pseudo_labels", "student.meta.finetune_epochs=2")


@pytest.fixture(scope="module")
def learnt(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a refit. Tests only read it."""
    return run_all(tiny(*METHOD, "final.refit=true", "filter.enabled=false"), tmp_path_factory.mktemp("meta") / "run")


@pytest.mark.slow
def test_the_run_ends_with_a_report_and_its_student_is_a_candidate_like_each_other(learnt: Path) -> None:
    assert {state.state for state in status(learnt)} == {"done"}
    candidates = {candidate.name for candidate in ChoiceMetrics.of(Manifest.read(learnt / "07-choose")).candidates}
    assert "06-student" in candidates
    assert "06-student" in write_report(learnt).read_text(encoding="utf-8")
    assert Classifier.load(learnt).taxonomy.num_levels == 3


@pytest.mark.slow
def test_the_baseline_makes_as_many_image_passes_as_student_and_teacher_together(learnt: Path) -> None:
    """Of 100 labels and 240 images in batches of 32 and 77, in 3 epochs of 4 steps, and twice 4 steps at the end."""
    baseline, student = (TrainedMetrics.of(Manifest.read(learnt / name)) for name in ("02-baseline", "06-student"))
    assert baseline.image_passes == student.image_passes == 12 * (32 + 3 * 77) + 8 * 32
    assert student.training_gmacs > baseline.training_gmacs, "looks without gradient cost, too"
    scores = json.loads((learnt / "09-evaluate" / "scores.json").read_text())
    assert scores["equal_passes"] is not None


@pytest.mark.slow
def test_its_epochs_are_those_of_both_trainings_one_after_the_other(learnt: Path) -> None:
    (history,) = TrainedMetrics.of(Manifest.read(learnt / "06-student")).history
    assert [(entry["epoch"], entry["step"]) for entry in history] == [(1, 4), (2, 8), (3, 12), (4, 16), (5, 20)]
    assert ["meta_gain" in entry for entry in history] == [True] * 3 + [False] * 2
    curves = read_curves(learnt)
    assert len(curves["06-student/student"]) == 3
    assert len(curves["06-student/student fine-tuning"]) == len(curves["02-baseline/baseline fine-tuning"]) == 2


@pytest.mark.slow
def test_a_refit_trains_both_networks_again_and_fine_tunes(learnt: Path) -> None:
    refit = RefitMetrics.of(Manifest.read(learnt / "08-refit"))
    trained = {name: part.image_passes for name, part in refit.parts.items() if name in ("02-baseline", "06-student")}
    assert trained
    assert set(trained.values()) == {12 * (32 + 3 * 77) + 8 * 32}


@pytest.mark.slow
def test_a_student_that_is_asked_for_by_itself_goes_on_from_the_labels_that_are_there(
    tiny: Callable[..., Config], learnt: Path
) -> None:
    before = {path.name: Manifest.read(path).id for path in sorted(learnt.glob("0?-*"))}
    run_stage(tiny(*METHOD, "final.refit=true", "filter.enabled=false"), "student", learnt)
    assert {path.name: Manifest.read(path).id for path in sorted(learnt.glob("0?-*"))} == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), [1, 1, 1]),
        (("student.level_schedule=b_cnn",), [0, 0, 1]),
        (("student.level_schedule=coarse_first", "student.level_weights=[3, 1.5, 6]"), [1, 0.5, 2]),
    ],
)
def test_the_fine_tuning_goes_on_with_the_weights_of_the_levels_at_the_end_of_the_training(
    words: tuple[str, ...], expected: list[float], packed: Path, tiny: Callable[..., Config]
) -> None:
    config, dataset = tiny(*METHOD, *words), Dataset(Artifact(packed / "00-data"))

    class Bench:
        """As much of a trainer as is asked for."""

        supervised, labelled, student_length = Trainer.supervised, Trainer.labelled, Trainer.student_length

        def __init__(self) -> None:
            self.dataset = dataset
            self._config = config
            self.outputs = Outputs(dataset.taxonomy)
            self.placement = Placement(torch.device("cpu"), "float32")

    baseline = Lessons(Bench(), config).baseline()  # type: ignore[arg-type]
    then = baseline.then
    assert then is not None
    assert isinstance(then.lesson.objective, Supervised)
    for done in (0.0, 0.3, 1.0):
        assert then.lesson.objective.weights_at(done) == pytest.approx(expected)
