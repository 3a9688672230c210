import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nstudent.classifier import Classifier
from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset, Ids
from nstudent.errors import ArtifactError, TrainingError
from nstudent.evaluation.scores import HEADLINE, Difference
from nstudent.labels.heap_labels import HeapLabels
from nstudent.labels.selection import load_given_keep
from nstudent.runs.curves import read_curves
from nstudent.runs.run import run_all, run_stage
from nstudent.runs.status import status
from nstudent.runs.step_metrics import ChoiceMetrics, TrainedMetrics
from nstudent.stages.student import in_words
from nstudent.storage.artifact import Artifact, Manifest
from nstudent.taxonomy.tree import UNKNOWN, LabelArray
from nstudent.trainer import Trainer
from nstudent.training.build import Lesson


@pytest.mark.slow
def test_where_every_pseudo_label_is_rejected_the_run_ends_well_formed_and_names_the_threshold(
    tiny: Callable[..., Config], go_on: Path
) -> None:
    run_all(tiny("pseudolabel.threshold=1.0"), go_on)
    assert Manifest.read(go_on / "04-pseudolabel").metrics["shown"] == 0
    scores = json.loads((go_on / "08-evaluate" / "scores.json").read_text())
    assert re.search(r"no pseudo-label was kept.*pseudolabel\.threshold is 1\.0: lower it", scores["ended"])
    assert scores["final"]["name"] == ChoiceMetrics.of(Manifest.read(go_on / "07-choose")).chosen
    assert "06-student" not in scores["classifiers"], "the student of the run before is not taken for this one's"
    choice = ChoiceMetrics.of(Manifest.read(go_on / "07-choose"))
    assert (choice.with_heap, choice.labels_alone) == (None, choice.chosen)
    assert [state.state for state in status(go_on)[6:]] == ["not needed", "done", "done"]
    assert Classifier.load(go_on).taxonomy.num_levels == 3


@pytest.mark.slow
def test_a_student_that_is_worse_does_not_end_the_run(tiny: Callable[..., Config], go_on: Path) -> None:
    """It has next to no vote in what is chosen, which labels the heap of the second round."""
    run_all(tiny("rounds=2", "student.learning_rate=1e-6"), go_on)
    gain = TrainedMetrics.of(Manifest.read(go_on / "06-student")).gain_over_labeller
    assert gain is not None
    assert gain.high < 0
    choices = [ChoiceMetrics.of(Manifest.read(go_on / name)) for name in ("07-choose", "11-choose")]
    for choice in choices:
        assert sum(choice.taken.parts.get(name, 0.0) for name in ("06-student", "10-student")) < 0.15
    assert Manifest.read(go_on / "08-pseudolabel").inputs["07-choose"] == Manifest.read(go_on / "07-choose").id
    assert {state.state for state in status(go_on)} == {"done"}


@pytest.mark.slow
def test_the_classifier_of_a_run_is_the_one_that_its_scores_call_final(
    two_rounds: Callable[..., Config], go_on: Path
) -> None:
    run_all(two_rounds(), go_on)
    scores = json.loads((go_on / "12-evaluate" / "scores.json").read_text())
    taken = ChoiceMetrics.of(Manifest.read(go_on / "11-choose")).taken
    assert scores["final"]["name"] == taken.name
    recipe = Classifier.load(go_on, device="cpu")._ensemble.recipe
    assert (recipe.temperatures, recipe.ends) == (taken.temperatures, taken.ends)
    assert len(recipe.members) == len(taken.parts), "every classifier of this run has one member"


def test_the_gain_over_the_labeller_is_paired_on_validation(finished: Path) -> None:
    student = TrainedMetrics.of(Manifest.read(finished / "06-student"))
    labeller = ChoiceMetrics.of(Manifest.read(finished / "03-choose")).taken
    gain, score = student.gain_over_labeller, student.validation[HEADLINE]
    assert gain is not None
    assert score is not None
    assert gain.value == pytest.approx(score - labeller.validation)
    assert gain.low <= gain.value <= gain.high


@pytest.mark.parametrize(
    ("low", "value", "high", "how", "gain"),
    [
        (0.01, 0.02, 0.03, "is better than", "+2.0 points [+1.0, +3.0]"),
        (-0.03, -0.02, -0.01, "is worse than", "-2.0 points [-3.0, -1.0]"),
        (-0.01, 0.02, 0.05, "cannot be told from", "+2.0 points [-1.0, +5.0]"),
    ],
)
def test_the_gain_is_said_in_words(low: float, value: float, high: float, how: str, gain: str) -> None:
    said = f"  the student {how} the classifier that guessed its labels (pool of all): {gain} on validation"
    assert in_words(Difference(value, low, high, 0.5), "pool of all") == said


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_it_learns_from_hard_and_from_soft_labels(
    targets: str, tiny: Callable[..., Config], go_on: Path, finished: Path
) -> None:
    """The labels stay; which form of them the student learns from is its own setting."""
    before = Manifest.read(finished / "06-student").id
    run_all(tiny(f"pseudolabel.targets={targets}"), go_on)
    assert (Manifest.read(go_on / "06-student").id == before) is (targets == "soft")


def test_given_labels_that_the_filter_dropped_teach_nothing(
    tiny: Callable[..., Config], go_on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = load_given_keep(Artifact(go_on / "05-filter"))
    keep[3, 2] = keep[5] = False
    monkeypatch.setattr("nstudent.lessons.load_given_keep", lambda _: keep)
    taught = []

    def labelled(_: Trainer, labels: LabelArray, ids: Ids) -> None:
        taught.append(labels)
        raise TrainingError("enough was seen")

    monkeypatch.setattr(Trainer, "labelled", labelled)
    with pytest.raises(TrainingError, match="enough was seen"):
        run_stage(tiny("student.weight_decay=0.5"), "student", go_on)
    dataset = Dataset(Artifact(go_on / "00-data"))
    expected = dataset.labels[dataset.labelled].copy()
    expected[~keep] = UNKNOWN
    np.testing.assert_array_equal(taught, [expected])


def test_a_filter_of_other_labels_is_not_learnt_from(tiny: Callable[..., Config], go_on: Path) -> None:
    words = ("pseudolabel.threshold=0.5",)
    run_stage(tiny(*words), "pseudolabel", go_on)
    with pytest.raises(ArtifactError, match="05-filter was not made from the labels that 04-pseudolabel holds now"):
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
    heap = HeapLabels.open(*(Artifact(go_on / step) for step in ("04-pseudolabel", "05-filter")))
    ((_, weight, shares, _),) = asked
    assert weight == 1.0
    assert shares == heap.level_shares(heap.copies)
    assert all(0 < share <= 1 for share in shares)


@pytest.mark.slow
def test_a_student_that_goes_on_learning_is_shown_images_without_a_label_and_says_what_it_believes(
    tiny: Callable[..., Config], go_on: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step before the student stays as it is, the baseline among them."""
    before = {path.name: Manifest.read(path).id for path in sorted(go_on.glob("0?-*"))}
    shown: list[Lesson] = []
    train = Trainer.train

    def spy(self: Trainer, *given: Any) -> Any:
        shown.extend(each for each in given if isinstance(each, Lesson))
        return train(self, *given)

    monkeypatch.setattr(Trainer, "train", spy)
    run_all(tiny("student.consistency.begins=0.1"), go_on)

    after = {path.name: Manifest.read(path).id for path in sorted(go_on.glob("0?-*"))}
    assert [name for name in before if before[name] != after[name]] == ["06-student", "07-choose", "08-evaluate"]
    (lesson,) = shown
    heap = HeapLabels.open(*(Artifact(go_on / name) for name in ("04-pseudolabel", "05-filter")))
    copies, bare = lesson.parts[1][0].copies, ~heap.keep.any(axis=1)
    assert bare.any()
    assert (copies[bare] == 1).all()
    assert np.array_equal(copies[~bare], heap.copies[~bare])
    (history,) = TrainedMetrics.of(Manifest.read(go_on / "06-student")).history
    assert history[-1]["own_share"] > 0.9
    assert 0 < history[-1]["own_weight"] < 1
    assert "own_agreement" in read_curves(go_on)["06-student/student"][-1]
