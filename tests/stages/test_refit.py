"""The last choice trained once more, on labels and validation together."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nstudent.answers.depth import depth_of
from nstudent.classifier import Classifier
from nstudent.config.schema import Config
from nstudent.data.curation.split import TEST
from nstudent.data.dataset import Dataset
from nstudent.errors import RefusedError, StoppedError
from nstudent.evaluation.predictions import Predictions
from nstudent.evaluation.scores import HEADLINE
from nstudent.lessons import Lessons
from nstudent.listener import NoListener
from nstudent.models.recipe import Recipe
from nstudent.runs.measured import Measured
from nstudent.runs.run import run_all, run_stage
from nstudent.runs.step_metrics import LABELS_ALONE, ChoiceMetrics, RefitMetrics, TrainedMetrics
from nstudent.session import Session
from nstudent.storage.artifact import Artifact, Manifest
from nstudent.trainer import Trainer
from nstudent.training.build import Lesson

REFIT, SCORES = "08-refit", "09-evaluate"


@pytest.fixture(scope="module")
def refitted(tiny: Callable[..., Config], finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run, gone on with. Tests only read it."""
    folder = tmp_path_factory.mktemp("refitted") / "run"
    shutil.copytree(finished, folder)
    return run_all(tiny("final.refit=true"), folder)


@pytest.fixture
def said(refitted: Path) -> RefitMetrics:
    return RefitMetrics.of(Manifest.read(refitted / REFIT))


def test_a_finished_run_is_gone_on_with_and_nothing_before_the_refit_is_made_again(
    finished: Path, refitted: Path
) -> None:
    before = [path.name for path in sorted(finished.glob("0[0-7]-*"))]
    assert len(before) == 8
    for step in before:
        assert (refitted / step / "manifest.json").read_bytes() == (finished / step / "manifest.json").read_bytes()
    assert Manifest.read(refitted / REFIT).role == "refit"


def test_what_was_chosen_is_trained_again_and_the_best_of_the_labels_alone_with_it(
    refitted: Path, said: RefitMetrics
) -> None:
    choice = ChoiceMetrics.of(Manifest.read(refitted / "07-choose"))
    assert said.name == choice.chosen
    assert choice.taken.saw_heap, "else there is nothing to compare it with"
    assert said.labels_alone == choice.labels_alone
    assert choice.labels_alone is not None
    assert set(said.parts) == {*choice.taken.parts, *choice.candidate(choice.labels_alone).parts}


def test_it_takes_as_many_steps_of_as_many_images_as_at_first(refitted: Path, said: RefitMetrics) -> None:
    for name, part in said.parts.items():
        first = TrainedMetrics.of(Manifest.read(refitted / name))
        assert part.image_passes == first.image_passes
        steps = [[epoch["step"] for epoch in history] for history in (*part.history, *first.history)]
        assert steps == steps[: len(part.history)] * 2


def test_it_is_not_scored_on_the_images_that_it_learns_from(refitted: Path, said: RefitMetrics) -> None:
    assert not any("validation" in epoch for part in said.parts.values() for each in part.history for epoch in each)
    found = Predictions.open(Artifact(refitted / SCORES), REFIT)
    assert set(found.split.tolist()) == {TEST}
    assert Measured.read(refitted, SCORES).refit.final.validation == {}  # type: ignore[union-attr]


def test_it_learns_from_the_validation_images_with_their_labels(
    refitted: Path, said: RefitMetrics, tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(refitted, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / REFIT)
    taught: list[Lesson] = []

    def keep(trainer: Trainer, name: str, training: Any, lesson: Lesson, key: Any) -> None:
        taught.append(lesson)
        if len(taught) == len(said.parts):
            raise RefusedError("enough was seen")

    monkeypatch.setattr(Trainer, "fit_inputs", keep)
    with pytest.raises(RefusedError, match="enough was seen"):
        run_stage(tiny("final.refit=true"), "refit", tmp_path / "run")
    dataset = Dataset(Artifact(refitted / "00-data"))
    both = np.concatenate([dataset.labelled, dataset.validation])
    assert len(both) == said.labelled
    for lesson in taught:
        examples, _ = lesson.parts[0]
        assert np.array_equal(examples.ids, both)
        masses = examples.targets(np.arange(len(both)))
        for level, mass in enumerate(masses):
            known = dataset.labels[both][:, level] >= 0
            assert (mass[known].argmax(axis=1) == dataset.labels[both][known, level]).mean() > 0.9
            assert np.array_equal(mass[-len(dataset.validation) :].sum(axis=1) > 0, known[-len(dataset.validation) :])


def test_weights_and_temperatures_stay_those_of_the_choice(refitted: Path) -> None:
    chosen, again = (Recipe.read(Artifact(refitted / step)) for step in ("07-choose", REFIT))
    assert again == chosen
    for number in range(len(chosen.members)):
        name = f"member-{number}.safetensors"
        assert (refitted / REFIT / name).read_bytes() != (refitted / "07-choose" / name).read_bytes()
    alone = Recipe.read(Artifact(refitted / REFIT), LABELS_ALONE)
    assert len(alone.members) < len(chosen.members)


def test_it_is_what_the_run_gives(refitted: Path) -> None:
    assert json.loads((refitted / "final.json").read_text()) == {"step": REFIT}
    assert Classifier.load(refitted).id == Manifest.read(refitted / REFIT).id
    # Held-out images that it has not learnt from are those of test.
    assert depth_of(refitted, 0.2)


def test_its_scores_stand_beside_those_of_what_was_chosen(refitted: Path, finished: Path, said: RefitMetrics) -> None:
    measured, before = Measured.read(refitted, SCORES), Measured.read(finished, "08-evaluate")
    assert measured.scores == before.scores, "the scores of the choice are what they were"
    assert before.refit is None
    refit = measured.refit
    assert refit is not None
    assert refit.final.name == REFIT
    assert refit.labels_alone is not None
    assert refit.gain is not None
    chosen, gain = measured.scores.final, measured.scores.heap_gain
    assert gain is not None

    def on_test(test: Any) -> float:
        return float(test[HEADLINE].value)

    assert refit.over_chosen[HEADLINE].value == pytest.approx(on_test(refit.final.test) - on_test(chosen.test))
    assert refit.gain[HEADLINE].value == pytest.approx(on_test(refit.final.test) - on_test(refit.labels_alone.test))
    assert chosen.image_passes is not None
    again = sum(said.parts[part].image_passes for part in chosen.parts)
    assert refit.final.image_passes == chosen.image_passes + again


def test_stopped_in_a_training_it_goes_on_to_the_same_bytes(
    refitted: Path, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    class Stops(NoListener):
        """Stops the run at the first epoch that it hears of, and at each later one that it has not stopped at yet."""

        def __init__(self) -> None:
            self.at: set[str] = set()

        def epoch(self, training: str, entry: Any) -> None:
            if training not in self.at:
                self.at.add(training)
                raise StoppedError("asked to")

    shutil.copytree(refitted, tmp_path / "run")
    for step in (REFIT, SCORES):
        shutil.rmtree(tmp_path / "run" / step)
    listener, stops = Stops(), 0
    config = tiny("final.refit=true", "checkpoint_minutes=0")
    while not (tmp_path / "run" / REFIT).exists():
        try:
            run_stage(config, "refit", tmp_path / "run", Session(listener=listener))
        except StoppedError:
            stops += 1
    assert stops == len(listener.at) > 1
    assert Manifest.read(tmp_path / "run" / REFIT).id == Manifest.read(refitted / REFIT).id


def test_with_validation_a_cross_fitted_member_learns_from_every_fold(
    untrained: Path, tiny: Callable[..., Config]
) -> None:
    words = ("data.folds=3", "teacher.cross_fit=true", "teacher.members=[{}, {}, {}]", "rounds=0", "final.refit=true")
    folder = run_all(tiny(*words), untrained)
    assert json.loads((folder / "final.json").read_text()) == {"step": "03-refit"}
    first = TrainedMetrics.of(Manifest.read(folder / "01-teacher"))
    again = RefitMetrics.of(Manifest.read(folder / "03-refit"))
    assert again.labels_alone is None, "the choice is of the labels alone itself"
    assert again.parts["01-teacher"].image_passes == first.image_passes
    assert Measured.read(folder, "04-evaluate").refit.gain is None  # type: ignore[union-attr]


def test_a_probe_that_would_outgrow_the_limit_of_cost_is_refused_before_anything_is_trained(
    untrained: Path, tiny: Callable[..., Config]
) -> None:
    probe, words = "teacher.members=[{}, {kind: probe}]", ("rounds=0", "final.refit=true")
    folder = run_all(tiny(probe, *words), untrained)
    costs = ChoiceMetrics.of(Manifest.read(folder / "02-choose")).taken.gmacs
    again = RefitMetrics.of(Manifest.read(folder / "03-refit")).gmacs
    assert again > costs
    with pytest.raises(RefusedError, match=r"final\.max_gmacs is .*: set final\.refit=false"):
        run_all(tiny(probe, *words, f"final.max_gmacs={(again + costs) / 2}"), folder)


def test_the_lessons_without_validation_are_those_of_the_labels(packed: Path, tiny: Callable[..., Config]) -> None:
    dataset = Dataset(Artifact(packed / "00-data"))

    class Bench:
        """As much of a trainer as is asked for."""

        def __init__(self) -> None:
            self.dataset = dataset

    assert np.array_equal(Lessons(Bench(), tiny()).ids, dataset.labelled)  # type: ignore[arg-type]
