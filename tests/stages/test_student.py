import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from nstudent.classifier import Classifier
from nstudent.config.schema import Config
from nstudent.errors import ArtifactError
from nstudent.runs.run import run_all, run_stage
from nstudent.runs.status import status
from nstudent.storage.artifact import Manifest


@pytest.mark.slow
def test_where_every_pseudo_label_is_rejected_the_run_ends_well_formed_and_names_the_threshold(
    tiny: Callable[..., Config], go_on: Path
) -> None:
    run_all(tiny("pseudolabel.threshold=1.0"), go_on)
    assert Manifest.read(go_on / "04-pseudolabel").metrics["shown"] == 0
    scores = json.loads((go_on / "08-evaluate" / "scores.json").read_text())
    assert re.search(r"no pseudo-label was kept.*pseudolabel\.threshold is 1\.0: lower it", scores["ended"])
    assert scores["final"] == "01-teacher"
    assert "06-student" not in scores["classifiers"], "the student of the run before is not taken for this one's"
    assert (status(go_on)[5].state, status(go_on)[6].state) == ("not needed", "done")
    assert Classifier.load(go_on).taxonomy.num_levels == 3


@pytest.mark.slow
def test_a_student_that_is_not_promoted_ends_the_run(tiny: Callable[..., Config], go_on: Path) -> None:
    run_all(tiny("rounds=3", "student.promote_above=1.0"), go_on)
    assert Manifest.read(go_on / "06-student").metrics["promoted"] is False
    made = {path.name for path in go_on.iterdir() if path.is_dir()}
    # 08-evaluate is the last step of the run that this one goes on from.
    assert made - {"08-evaluate"} == {
        "00-data",
        "01-teacher",
        "02-baseline",
        "04-pseudolabel",
        "05-filter",
        "06-student",
        "16-evaluate",
    }
    scores = json.loads((go_on / "16-evaluate" / "scores.json").read_text())
    assert scores["final"] == "01-teacher"
    assert list(scores["classifiers"]) == ["01-teacher", "02-baseline", "06-student"]
    assert list(scores["gain"]) == ["02-baseline"], "the gain is the final classifier's"
    states = {state.step.name: state.state for state in status(go_on)}
    assert states["06-student"] == states["16-evaluate"] == "done"
    assert {states[name] for name in ("08-pseudolabel", "09-filter", "10-student", "14-student")} == {"not needed"}


@pytest.mark.slow
def test_the_classifier_of_a_run_is_the_one_that_its_scores_call_final(
    two_rounds: Callable[..., Config], go_on: Path
) -> None:
    """A run of two rounds, run again so that its first student is not promoted: its second one is left behind."""
    run_all(two_rounds(), go_on)
    assert (go_on / "10-student").exists()
    run_all(two_rounds("student.promote_above=1.0"), go_on)
    scores = json.loads((go_on / "12-evaluate" / "scores.json").read_text())
    assert scores["final"] == "01-teacher"
    width = Classifier.load(go_on, device="cpu")._ensemble.recipe.members[0].head_width
    assert width == 64, "64 is the teacher's head, 128 that of a student"


def test_the_gate_is_the_paired_comparison_on_validation(finished: Path) -> None:
    metrics = Manifest.read(finished / "06-student").metrics
    teacher = Manifest.read(finished / "01-teacher").metrics
    gap = metrics["gain_over_teacher"]
    assert gap["value"] == pytest.approx(
        metrics["validation"]["level accuracy"] - teacher["validation"]["level accuracy"]
    )
    assert gap["low"] <= gap["value"] <= gap["high"]
    assert metrics["promoted"] is (gap["probability"] > 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_it_learns_from_hard_and_from_soft_labels(
    targets: str, tiny: Callable[..., Config], go_on: Path, finished: Path
) -> None:
    """The labels stay; which form of them the student learns from is its own setting."""
    before = Manifest.read(finished / "06-student").id
    run_all(tiny(f"pseudolabel.targets={targets}"), go_on)
    assert (Manifest.read(go_on / "06-student").id == before) is (targets == "soft")


@pytest.mark.slow
def test_given_labels_that_the_filter_dropped_teach_nothing(
    tiny: Callable[..., Config], go_on: Path, finished: Path
) -> None:
    run_all(tiny("filter.labelled=true"), go_on)
    assert sum(Manifest.read(go_on / "05-filter").metrics["dropped_given"].values()) > 0
    assert Manifest.read(go_on / "06-student").id != Manifest.read(finished / "06-student").id


def test_a_filter_of_other_labels_is_not_learnt_from(tiny: Callable[..., Config], go_on: Path) -> None:
    words = ("pseudolabel.threshold=0.5",)
    run_stage(tiny(*words), "pseudolabel", go_on)
    with pytest.raises(ArtifactError, match="05-filter was not made from the labels that 04-pseudolabel holds now"):
        run_stage(tiny(*words), "student", go_on)
