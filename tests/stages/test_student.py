import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nstudent.classifier import Classifier
from nstudent.config.schema import Config
from nstudent.errors import ArtifactError, TrainingError
from nstudent.labels.heap_labels import HeapLabels
from nstudent.runs.run import run_all, run_stage
from nstudent.runs.status import status
from nstudent.storage.artifact import Artifact, Manifest
from nstudent.trainer import Trainer


@pytest.mark.slow
def test_where_every_pseudo_label_is_rejected_the_run_ends_well_formed_and_names_the_threshold(
    tiny: Callable[..., Config], go_on: Path
) -> None:
    run_all(tiny("pseudolabel.threshold=1.0", "pseudolabel.calibrate=false"), go_on)
    assert Manifest.read(go_on / "03-pseudolabel").metrics["shown"] == 0
    scores = json.loads((go_on / "06-evaluate" / "scores.json").read_text())
    assert re.search(r"no pseudo-label was kept.*pseudolabel\.threshold is 1\.0: lower it", scores["ended"])
    assert scores["final"] == "01-teacher"
    assert "05-student" not in scores["classifiers"], "the student of the run before is not taken for this one's"
    assert (status(go_on)[5].state, status(go_on)[6].state) == ("not needed", "done")
    assert Classifier.load(go_on).taxonomy.num_levels == 3


@pytest.mark.slow
def test_a_student_that_is_not_promoted_ends_the_run(tiny: Callable[..., Config], go_on: Path) -> None:
    run_all(tiny("rounds=3", "student.promote_above=1.0"), go_on)
    assert Manifest.read(go_on / "05-student").metrics["promoted"] is False
    made = {path.name for path in go_on.iterdir() if path.is_dir()}
    # 06-evaluate is the last step of the run that this one goes on from.
    assert made - {"06-evaluate"} == {
        "00-data",
        "01-teacher",
        "02-baseline",
        "03-pseudolabel",
        "04-filter",
        "05-student",
        "12-evaluate",
    }
    scores = json.loads((go_on / "12-evaluate" / "scores.json").read_text())
    assert scores["final"] == "01-teacher"
    assert list(scores["classifiers"]) == ["01-teacher", "02-baseline", "05-student"]
    assert list(scores["gain"]) == ["02-baseline"], "the gain is the final classifier's"
    states = {state.step.name: state.state for state in status(go_on)}
    assert states["05-student"] == states["12-evaluate"] == "done"
    assert {states[name] for name in ("06-pseudolabel", "07-filter", "08-student", "11-student")} == {"not needed"}


@pytest.mark.slow
def test_the_classifier_of_a_run_is_the_one_that_its_scores_call_final(
    two_rounds: Callable[..., Config], go_on: Path
) -> None:
    """A run of two rounds, run again so that its first student is not promoted: its second one is left behind."""
    run_all(two_rounds(), go_on)
    assert (go_on / "08-student").exists()
    run_all(two_rounds("student.promote_above=1.0"), go_on)
    scores = json.loads((go_on / "09-evaluate" / "scores.json").read_text())
    assert scores["final"] == "01-teacher"
    width = Classifier.load(go_on, device="cpu")._ensemble.recipe.members[0].head_width
    assert width == 64, "64 is the teacher's head, 128 that of a student"


def test_the_gate_is_the_paired_comparison_on_validation(finished: Path) -> None:
    metrics = Manifest.read(finished / "05-student").metrics
    teacher = Manifest.read(finished / "01-teacher").metrics
    gap = metrics["gain_over_teacher"]
    assert gap["value"] == pytest.approx(
        metrics["validation"]["contest alone"] - teacher["validation"]["contest alone"]
    )
    assert gap["low"] <= gap["value"] <= gap["high"]
    assert metrics["promoted"] is (gap["probability"] > 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_it_learns_from_hard_and_from_soft_labels(
    targets: str, tiny: Callable[..., Config], go_on: Path, finished: Path
) -> None:
    """The labels stay; which form of them the student learns from is its own setting."""
    before = Manifest.read(finished / "05-student").id
    run_all(tiny(f"pseudolabel.targets={targets}"), go_on)
    assert (Manifest.read(go_on / "05-student").id == before) is (targets == "soft")


@pytest.mark.slow
def test_given_labels_that_the_filter_dropped_teach_nothing(
    tiny: Callable[..., Config], go_on: Path, finished: Path
) -> None:
    run_all(tiny("filter.labelled=true"), go_on)
    assert sum(Manifest.read(go_on / "04-filter").metrics["dropped_given"].values()) > 0
    assert Manifest.read(go_on / "05-student").id != Manifest.read(finished / "05-student").id


def test_a_filter_of_other_labels_is_not_learnt_from(tiny: Callable[..., Config], go_on: Path) -> None:
    words = ("pseudolabel.calibrate=false",)
    run_stage(tiny(*words), "pseudolabel", go_on)
    with pytest.raises(ArtifactError, match="04-filter was not made from the labels that 03-pseudolabel holds now"):
        run_stage(tiny(*words), "student", go_on)


def test_the_heap_counts_at_a_level_by_the_shown_images_that_could_have_a_label_there(
    tiny: Callable[..., Config], go_on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def supervised(trainer: Trainer, *args: Any) -> None:
        asked.append(args)
        raise TrainingError("enough was seen")

    monkeypatch.setattr(Trainer, "supervised", supervised)
    with pytest.raises(TrainingError, match="enough was seen"):
        run_stage(tiny("student.weight_decay=0.5"), "student", go_on)
    heap = HeapLabels.open(*(Artifact(go_on / step) for step in ("03-pseudolabel", "04-filter")))
    ((_, weight, shares),) = asked
    assert weight == 1.0
    assert shares == heap.level_shares(heap.copies)
    assert all(0 < share <= 1 for share in shares)
