import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nstudent.classifier import Classifier
from nstudent.config.file import load_config
from nstudent.config.schema import Config
from nstudent.data.curation.split import TEST, VALIDATION
from nstudent.data.dataset import Dataset
from nstudent.evaluation.assess import assess
from nstudent.evaluation.metrics import scores as score_of
from nstudent.evaluation.metrics import tally
from nstudent.evaluation.predictions import Predictions, PredictionWriter
from nstudent.evaluation.scores import COMPARED, HEADLINE
from nstudent.labels.path_posterior import Calibration
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble, pool_ensembles
from nstudent.runs.findings import findings
from nstudent.runs.measured import Measured
from nstudent.runs.run import run_all, run_stage
from nstudent.runs.step_metrics import ChoiceMetrics
from nstudent.runs.verdict import verdict
from nstudent.storage.artifact import Artifact, Manifest
from nstudent.storage.hdf5 import mapped
from PIL import Image

CPU = Placement(torch.device("cpu"), "float32")
TRAINED = ("01-teacher", "02-baseline", "05-filter", "06-student")


@pytest.fixture
def scores(finished: Path) -> dict[str, Any]:
    return json.loads((finished / "08-evaluate" / "scores.json").read_text())


def test_scores_every_classifier_on_validation_and_test_with_intervals(scores: dict[str, Any]) -> None:
    assert list(scores["classifiers"]) == ["01-teacher", "02-baseline", "06-student"]
    for entry in scores["classifiers"].values():
        for part in ("validation", "test"):
            assert {
                "accuracy/coarse",
                "accuracy/fine",
                "level accuracy",
                "levels before a mistake",
                "whole path",
            } <= set(entry[part])
            for score in entry[part].values():
                assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1


@pytest.mark.parametrize("step", ["01-teacher", "02-baseline", "06-student"])
def test_validation_scores_are_those_the_steps_themselves_saw(
    step: str, scores: dict[str, Any], finished: Path
) -> None:
    seen = Manifest.read(finished / step).metrics["validation"]
    found = {name: entry["value"] for name, entry in scores["classifiers"][step]["validation"].items()}
    assert found == pytest.approx(seen)


def test_the_final_classifier_is_what_the_last_choice_took_and_is_scored_as_it_is_used(
    scores: dict[str, Any], finished: Path
) -> None:
    choice = ChoiceMetrics.of(Manifest.read(finished / "07-choose"))
    assert scores["final"]["name"] == choice.chosen
    assert scores["final"]["parts"] == pytest.approx(choice.taken.parts)
    found = Predictions.open(Artifact(finished / "08-evaluate"), "07-choose")
    for part, split in (("validation", VALIDATION), ("test", TEST)):
        rows = found.rows_of(split)
        again = score_of(tally(found.paths[rows], found.truth[rows], found.levels))
        assert again == {name: each["value"] for name, each in scores["final"][part].items()}
    assert scores["final"]["validation"][HEADLINE]["value"] == pytest.approx(choice.taken.validation)


def test_the_gain_of_the_heap_is_the_best_with_it_minus_the_best_without_it_on_test(
    scores: dict[str, Any], finished: Path
) -> None:
    choice, gain = ChoiceMetrics.of(Manifest.read(finished / "07-choose")), scores["heap_gain"]
    assert gain["with_heap"]["name"] == choice.with_heap
    assert gain["labels_alone"]["name"] == choice.labels_alone
    for score in COMPARED:
        ours, theirs = (gain[side]["test"][score]["value"] for side in ("with_heap", "labels_alone"))
        assert gain["difference"][score]["value"] == pytest.approx(ours - theirs)


def test_the_gain_is_known_against_everything_that_learnt_from_the_labels_alone(
    scores: dict[str, Any], finished: Path
) -> None:
    choice, gain = ChoiceMetrics.of(Manifest.read(finished / "07-choose")), scores["heap_gain"]
    alone = {each.name for each in choice.candidates if not each.saw_heap}
    assert alone == {"01-teacher", "02-baseline", "labels-alone pool"}
    assert gain["others"].keys() == alone - {choice.labels_alone}
    for gap in gain["others"].values():
        for score in COMPARED:
            ahead = gain["with_heap"]["test"][score]["value"] - gap["test"][score]["value"]
            assert gap["difference"][score]["value"] == pytest.approx(ahead)
    # A pool that gives the teacher nearly all of the weight answers as it does.
    assert gain["others"]["02-baseline"]["differing"] > 0
    for name in gain["others"].keys() & scores["classifiers"].keys():
        assert gain["others"][name]["test"] == scores["classifiers"][name]["test"]


def test_a_side_that_is_a_pool_is_rebuilt_as_the_choice_scored_it(
    tiny: Callable[..., Config], go_on: Path, finished: Path
) -> None:
    """The other side than the final classifier is on no disk: its parts, weights and calibration make it again."""
    path = go_on / "07-choose" / "manifest.json"
    manifest = json.loads(path.read_text())
    made = {part: Ensemble.load(Artifact(go_on / part), CPU) for part in ("01-teacher", "02-baseline")}
    calibration = Calibration((1.3, 1.1, 0.9), (0.4, 0.1, 0.0))
    pool = pool_ensembles(list(made.values()), [0.25, 0.75]).calibrated(calibration)
    dataset = Dataset(Artifact(go_on / "00-data"))
    expected = score_of(assess(pool, dataset, dataset.test, None).tallies)
    single = next(each for each in manifest["metrics"]["candidates"] if each["name"] == "06-student")
    candidate = dict(single, name="a pool", parts={"01-teacher": 0.25, "02-baseline": 0.75}, saw_heap=False)
    candidate |= {"temperatures": list(calibration.temperatures), "ends": list(calibration.ends)}
    manifest["metrics"] |= {"chosen": "06-student", "with_heap": "06-student", "labels_alone": "a pool"}
    manifest["metrics"]["candidates"] = [single, candidate]
    path.write_text(json.dumps(manifest))
    shutil.rmtree(go_on / "08-evaluate")
    run_stage(tiny(), "evaluate", go_on)
    side = json.loads((go_on / "08-evaluate" / "scores.json").read_text())["heap_gain"]["labels_alone"]
    assert side["parts"] == {"01-teacher": 0.25, "02-baseline": 0.75}
    assert {name: each["value"] for name, each in side["test"].items()} == pytest.approx(expected)


def test_the_side_without_the_heap_costs_less_than_the_one_with_it(scores: dict[str, Any], finished: Path) -> None:
    passes = {step: Manifest.read(finished / step).metrics["image_passes"] for step in TRAINED}
    for side in ("with_heap", "labels_alone"):
        found, behind = scores["heap_gain"][side], set(scores["heap_gain"][side]["parts"])
        if behind & {"06-student"}:
            labeller = ChoiceMetrics.of(Manifest.read(finished / "03-choose"))
            behind |= {"05-filter", *labeller.taken.parts}
        assert found["image_passes"] == sum(passes[step] for step in behind)
    assert "05-filter" not in scores["heap_gain"]["labels_alone"]["made_from"]


def test_one_network_is_compared_with_the_one_of_its_architecture_and_passes(scores: dict[str, Any]) -> None:
    student, baseline = (scores["classifiers"][step]["test"] for step in ("06-student", "02-baseline"))
    for score in COMPARED:
        wanted = student[score]["value"] - baseline[score]["value"]
        assert scores["equal_passes"][score]["value"] == pytest.approx(wanted)


def test_the_calibration_of_the_final_classifier_is_measured_level_by_level(scores: dict[str, Any]) -> None:
    assert list(scores["calibration"]) == ["coarse", "mid", "fine"]
    for found in scores["calibration"].values():
        assert 0 < found["perfect"] < 0.2
        assert 0 <= found["error"] < 0.5


def test_the_labels_of_the_heap_are_judged_by_what_their_labeller_says_of_validation(
    scores: dict[str, Any], finished: Path
) -> None:
    (found,) = scores["labelling"].values()
    assert found["labeller"] == "03-choose"
    choice = ChoiceMetrics.of(Manifest.read(finished / "03-choose"))
    assert found["validation"] == pytest.approx(choice.taken.validation)
    kept = Manifest.read(finished / "04-pseudolabel").metrics["kept"]
    for level, quality in found["levels"].items():
        assert quality["share"] == pytest.approx(kept[level] / 240)
        assert quality["judged"] <= 180
        assert 0.3 < quality["precision"] <= 1


def test_pseudo_labels_are_held_against_the_hidden_truth_before_and_after_the_filter(scores: dict[str, Any]) -> None:
    assert list(scores["pseudo_labels"]) == ["04-pseudolabel", "05-filter"]
    assert scores["given_labels"] == {}, "no given label is known to be wrong"


def test_there_is_a_picture(finished: Path) -> None:
    with Image.open(finished / "08-evaluate" / "scores.png") as picture:
        assert min(picture.size) > 200


def test_the_test_images_are_in_no_other_split(finished: Path) -> None:
    dataset = Dataset(Artifact(finished / "00-data"))
    parts = [dataset.test, dataset.validation, dataset.labelled, dataset.unlabelled]
    assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts))


@pytest.mark.slow
def test_fewer_resamples_change_no_score(tiny: Callable[..., Config], go_on: Path, scores: dict[str, Any]) -> None:
    run_stage(tiny("evaluate.resamples=10"), "evaluate", go_on)
    again = json.loads((go_on / "08-evaluate" / "scores.json").read_text())
    for name, entry in scores["classifiers"].items():
        for part in ("validation", "test"):
            values = {score: each["value"] for score, each in again["classifiers"][name][part].items()}
            assert values == {score: each["value"] for score, each in entry[part].items()}


def test_the_predictions_that_are_kept_are_those_that_were_scored(finished: Path, scores: dict[str, Any]) -> None:
    made, dataset = Artifact(finished / "08-evaluate"), Dataset(Artifact(finished / "00-data"))
    assert Predictions.steps(made) == ["01-teacher", "02-baseline", "06-student", "07-choose"]
    for step, entry in scores["classifiers"].items():
        found = Predictions.open(made, step)
        assert found.images.tolist() == [*dataset.validation, *dataset.test]
        assert found.levels == dataset.taxonomy.levels
        assert np.array_equal(found.truth, dataset.labels[found.images])
        assert [name.decode() for name in found.names] == [dataset.name(image) for image in found.images]
        for part, split in (("validation", VALIDATION), ("test", TEST)):
            rows = found.rows_of(split)
            again = score_of(tally(found.paths[rows], found.truth[rows], found.levels))
            assert again == {name: None if each is None else each["value"] for name, each in entry[part].items()}


def test_predictions_are_kept_beside_their_images_however_many_batches_there_are(
    finished: Path, tmp_path: Path
) -> None:
    dataset, config = Dataset(Artifact(finished / "00-data")), load_config(finished / "config.yaml")
    ensemble = Ensemble.load(Artifact(finished / "01-teacher"), Placement.from_config(config))
    ids = dataset.validation
    writer = PredictionWriter(tmp_path, "teacher", dataset, ensemble.recipe.outputs)
    found = assess(ensemble, dataset, ids, -(-len(ids) // 4), writer)
    writer.finish()
    (path,) = tmp_path.iterdir()
    kept = mapped(path)
    assert np.array_equal(kept["image"], ids)
    assert np.array_equal(kept["truth"], dataset.labels[ids])
    assert np.array_equal(kept["path"], found.paths)


def test_the_probabilities_that_are_kept_are_those_of_the_ensemble(finished: Path) -> None:
    dataset, config = Dataset(Artifact(finished / "00-data")), load_config(finished / "config.yaml")
    found = Predictions.open(Artifact(finished / "08-evaluate"), "01-teacher")
    ensemble = Ensemble.load(Artifact(finished / "01-teacher"), Placement.from_config(config))
    said = ensemble.probabilities(dataset.pixels[found.images])
    rows = np.arange(len(found.images))
    for kept, level in zip(found.probabilities, said, strict=True):
        assert kept[rows] == pytest.approx(level, abs=1e-3)
    deepest = (found.paths >= 0).sum(axis=1) - 1
    sure = np.array([said[level][row, found.paths[row, level]] for row, level in enumerate(deepest)])
    assert found.confidence[rows, deepest] == pytest.approx(sure, abs=1e-5)


def test_a_run_that_an_earlier_version_has_made_is_scored_as_before(
    tiny: Callable[..., Config], go_on: Path, scores: dict[str, Any]
) -> None:
    """One whose manifests name no role, and do not count multiply-adds."""
    for path in go_on.glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        del manifest["role"]
        for entry in (manifest["metrics"], *manifest["metrics"].get("iterations", [])):
            entry.pop("training_gmacs", None)
            if manifest["stage"] == "filter":
                entry.pop("image_passes")
        path.write_text(json.dumps(manifest))
    shutil.rmtree(go_on / "08-evaluate")
    run_stage(tiny(), "evaluate", go_on)
    again = json.loads((go_on / "08-evaluate" / "scores.json").read_text())
    for name, entry in again["classifiers"].items():
        counted = scores["classifiers"][name]["training_gmacs"]
        assert counted > 0
        assert entry["training_gmacs"] is None
        entry["training_gmacs"] = counted
    for side in (again["final"], again["heap_gain"]["with_heap"], again["heap_gain"]["labels_alone"]):
        assert side.pop("training_gmacs") is None
        side.pop("image_passes")
    for side in (scores["final"], scores["heap_gain"]["with_heap"], scores["heap_gain"]["labels_alone"]):
        side.pop("training_gmacs")
        side.pop("image_passes")
    assert again == scores


def test_the_product_of_a_real_run_predicts_image_files(finished: Path, scores: dict[str, Any], tmp_path: Path) -> None:
    """Written to disk as PNG and read back, the test images score what the run says of its final classifier."""
    dataset = Dataset(Artifact(finished / "00-data"))
    truth = dataset.hidden_truth()[dataset.test]
    files = [tmp_path / f"{image}.png" for image in dataset.test]
    for path, pixels in zip(files, dataset.pixels[dataset.test], strict=True):
        Image.fromarray(pixels).save(path)
    predictions = Classifier.load(finished, device="cpu").predict(files)
    assert [prediction.image for prediction in predictions] == [str(path) for path in files]
    coarse = [dataset.taxonomy.names(row.tolist())["coarse"] for row in truth]
    right = np.mean([p.labels["coarse"].name == name for p, name in zip(predictions, coarse, strict=True)])
    # The run is scored in float32; the classifier takes the precision that suits this machine.
    expected = scores["final"]["test"]["accuracy/coarse"]["value"]
    assert right == pytest.approx(expected, abs=0.02)


def test_without_rounds_there_is_a_result_and_nothing_is_said_to_have_helped(
    tiny: Callable[..., Config], go_on: Path
) -> None:
    run_all(tiny("rounds=0"), go_on)
    measured = Measured.read(go_on, "03-evaluate")
    assert list(measured.scores.test) == ["01-teacher"]
    assert (measured.scores.heap_gain, measured.scores.equal_passes) == (None, None)
    assert verdict(measured, findings(measured)).startswith("No unlabelled image was used, because rounds is 0.")


def test_what_a_run_has_measured_is_read_from_the_steps_that_were_scored(finished: Path) -> None:
    measured = Measured.read(finished, "08-evaluate")
    assert list(measured.trained) == ["01-teacher", "02-baseline", "06-student"]
    assert list(measured.students) == ["06-student"]
    assert measured.labels_of == {"05-filter": "04-pseudolabel"}
    assert list(measured.choices) == ["03-choose", "07-choose"]
    assert measured.data is not None
    assert measured.data.labelled == 100
    # Whatever became of the student, the last sentence is about the heap.
    assert "Your unlabelled images" in verdict(measured, findings(measured))
