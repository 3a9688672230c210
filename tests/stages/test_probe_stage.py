"""The probe of a run: fitted in seconds, scored and chosen like everything that is trained."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nstudent.config.members import ProbeConfig
from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset
from nstudent.evaluation.assess import assess
from nstudent.evaluation.metrics import scores
from nstudent.evaluation.pool_weights import fit_pool_weights
from nstudent.evaluation.scores import HEADLINE
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.runs.run import run_all, run_stage
from nstudent.runs.step_metrics import ChoiceMetrics, RefitMetrics, TrainedMetrics
from nstudent.session import Session
from nstudent.storage.artifact import Artifact, Manifest
from small_folders import Said

PROBE = "probe.members=[{kind: probe}]"
Tiny = Callable[..., Config]

pytestmark = pytest.mark.slow


@pytest.fixture
def one_probe(tiny: Tiny, untrained: Path) -> Path:
    run_stage(tiny(PROBE), "probe", untrained)
    return untrained


def test_it_knows_digits_from_a_hundred_labels_and_no_training(tiny: Tiny, one_probe: Path) -> None:
    made = Artifact(one_probe / "01-probe")
    metrics = TrainedMetrics.of(made.manifest)
    dataset = Dataset(Artifact(one_probe / "00-data"))
    ensemble = Ensemble.load(made, Placement(torch.device("cpu"), "float32"))
    found = scores(assess(ensemble, dataset, dataset.test, None).tallies)[HEADLINE]
    assert found is not None
    assert found > 0.9
    assert metrics.validation[HEADLINE] == pytest.approx(found, abs=0.05)
    assert (metrics.image_passes, metrics.history) == (0, ((),))
    assert metrics.gmacs == pytest.approx(ensemble.gmacs, abs=1e-6)
    assert ensemble.recipe.temperatures is not None, "it is calibrated like every classifier"


def test_it_says_what_the_labels_give_in_a_minute(tiny: Tiny, untrained: Path) -> None:
    said = Said()
    run_stage(tiny(PROBE), "probe", untrained, Session(progress=said))
    score = TrainedMetrics.of(Manifest.read(untrained / "01-probe")).validation[HEADLINE]
    assert f"  what the labels give in a minute: {HEADLINE} {score:.1%} on validation" in said.lines


def test_the_same_command_makes_it_once_and_gives_the_same_bytes(tiny: Tiny, one_probe: Path) -> None:
    first = Manifest.read(one_probe / "01-probe")
    run_stage(tiny(PROBE), "probe", one_probe)
    assert Manifest.read(one_probe / "01-probe").id == first.id
    files = first.files
    shutil.rmtree(one_probe / "01-probe")
    run_stage(tiny(PROBE), "probe", one_probe)
    assert Manifest.read(one_probe / "01-probe").files == files


def test_the_baseline_by_itself_is_preceded_by_the_probe(tiny: Tiny, untrained: Path) -> None:
    made = run_stage(tiny(PROBE, "student.epochs=1"), "baseline", untrained)
    assert made.name == "03-baseline"
    assert (untrained / "01-probe" / "manifest.json").exists()
    before = Manifest.read(untrained / "01-probe").id
    run_stage(tiny(PROBE, "student.epochs=2"), "baseline", untrained)
    assert Manifest.read(untrained / "01-probe").id == before


def test_it_stands_on_the_side_of_the_labels_and_is_not_what_others_are_compared_with(
    tiny: Tiny, untrained: Path
) -> None:
    run_all(tiny(PROBE, "student.epochs=2"), untrained)
    choice = ChoiceMetrics.of(Manifest.read(untrained / "08-choose"))
    candidates = {each.name: each for each in choice.candidates}
    assert not candidates["01-probe"].saw_heap
    assert candidates["02-teacher"].gain is None
    assert candidates["01-probe"].gain is not None
    scored = json.loads((untrained / "09-evaluate" / "scores.json").read_text())
    assert {"01-probe", "02-teacher", "03-baseline", "07-student"} <= scored["classifiers"].keys()
    assert "01-probe" in {scored["heap_gain"]["labels_alone"]["name"], *scored["heap_gain"]["others"]}


def test_a_run_of_probes_and_no_rounds_ends(tiny: Tiny, untrained: Path) -> None:
    """One that looks at frozen features and one that looks at gradients, averaged; and probes among a teacher's
    members."""
    both = "probe.members=[{kind: probe}, {kind: probe, features: backbones, regression: logistic}]"
    run_all(tiny(both, "rounds=0", "teacher.members=[{kind: probe}, {}]", "teacher.epochs=12"), untrained)
    model = json.loads((untrained / "01-probe" / "model.json").read_text())
    assert [ProbeConfig(**{k: v for k, v in each.items() if k != "kind"}) for each in model["members"]] == [
        ProbeConfig(),
        ProbeConfig(features="backbones", regression="logistic"),
    ]
    teacher = json.loads((untrained / "02-teacher" / "model.json").read_text())
    assert [each["kind"] for each in teacher["members"]] == ["probe", "network"]
    predictions = Ensemble.load(Artifact(untrained / "03-choose"), Placement(torch.device("cpu"), "float32"))
    assert all(np.isfinite(level).all() for level in predictions.probabilities(np.zeros((2, 16, 16, 3), np.uint8)))


@pytest.mark.parametrize(("mirror", "said"), [("true", "are mirrored in training"), ("false", "are not mirrored in")])
def test_trainings_mirror_their_images_where_the_probe_says_that_they_may(
    tiny: Tiny, untrained: Path, mirror: str, said: str
) -> None:
    """A stage that is made by itself makes the probe first, to know."""
    screen, given = Said(), Path(shutil.copytree(untrained, untrained.with_name("given")))
    probe = f"probe.members=[{{kind: probe, mirror: {mirror}}}]"
    run_stage(tiny(probe, "teacher.noise.flip=null"), "teacher", untrained, Session(progress=screen))
    assert any(said in line for line in screen.lines)
    found = Manifest.read(untrained / "02-teacher")
    assert set(found.inputs) == {"00-data", "01-probe"}
    files = {}
    for flip in ("false", "true"):
        run_stage(tiny(probe, f"teacher.noise.flip={flip}"), "teacher", given)
        files[flip] = Manifest.read(given / "02-teacher").files
    assert not (given / "01-probe").exists(), "nobody asked"
    assert files["false"] != files["true"]
    assert found.files == files[mirror]


TWO = "probe.members=[{kind: probe}, {kind: probe, features: backbones, backbones: [test_resnet]}]"


def test_probes_are_weighed_by_what_they_say_of_labels_that_they_were_not_fitted_to(
    tiny: Tiny, untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of a network that nothing was trained for are worth less than gradients."""
    asked = []

    def watched(raws: Any, labels: Any, outputs: Any) -> tuple[float, ...]:
        asked.append((raws, labels))
        return fit_pool_weights(raws, labels, outputs)

    monkeypatch.setattr("nstudent.probes.fit_pool_weights", watched)
    run_stage(tiny(TWO), "probe", untrained)
    recipe = json.loads((untrained / "01-probe" / "model.json").read_text())
    assert recipe["weights"][0] > recipe["weights"][1]
    assert sum(recipe["weights"]) == pytest.approx(1.0)
    ((raws, labels),) = asked
    dataset = Dataset(Artifact(untrained / "00-data"))
    assert np.array_equal(labels, dataset.labels[dataset.labelled]), "no validation image is looked at"
    right = (raws[0][0].argmax(axis=1) == labels[:, 0]).mean()
    assert 0.7 < right < 1.0, "a fit to these very images would make no mistake"


def test_a_probe_that_is_worth_nothing_is_dropped(tiny: Tiny, untrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nstudent.probes.fit_pool_weights", lambda *_: (1.0, 0.0))
    said = Said()
    run_stage(tiny(TWO), "probe", untrained, Session(progress=said))
    recipe = json.loads((untrained / "01-probe" / "model.json").read_text())
    assert [member["features"] for member in recipe["members"]] == ["gradients"]
    assert recipe["weights"] == [1.0]
    assert not (untrained / "01-probe" / "member-1.safetensors").exists()
    assert "  shares by the likelihood of held-out labels: 100% probe 0, 0% probe 1" in said.lines


def test_equal_probes_have_equal_weights(tiny: Tiny, untrained: Path) -> None:
    run_stage(tiny("probe.members=[{kind: probe}, {kind: probe}]"), "probe", untrained)
    assert json.loads((untrained / "01-probe" / "model.json").read_text())["weights"] == pytest.approx([0.5, 0.5])


def test_a_probe_that_learns_from_the_heap_is_another_classifier_and_counts_as_one_that_saw_it(
    tiny: Tiny, untrained: Path
) -> None:
    said = Said()
    config = tiny(PROBE, "probe.heap=100", "filter.enabled=false", "final.refit=true")
    run_all(config, untrained, Session(progress=said))
    labels, heap = (Manifest.read(untrained / name) for name in ("01-probe", "02-probe"))
    assert (labels.round, heap.round) == (0, 1)
    assert labels.id != heap.id
    assert any("with 100 images of the heap the log-likelihood of held-out labels is" in line for line in said.lines)
    choice = ChoiceMetrics.of(Manifest.read(untrained / "09-choose"))
    saw = {each.name: each.saw_heap for each in choice.candidates}
    assert (saw["01-probe"], saw["02-probe"]) == (False, True)
    alone = choice.candidate("labels-alone pool")
    assert "02-probe" not in alone.parts
    assert set(RefitMetrics.of(Manifest.read(untrained / "10-refit")).parts) >= set(choice.taken.parts)


def test_it_makes_the_probe_of_the_labels_no_other(tiny: Tiny, one_probe: Path) -> None:
    before = Manifest.read(one_probe / "01-probe").id
    run_stage(tiny(PROBE, "probe.heap=100"), "probe", one_probe)
    assert Manifest.read(one_probe / "01-probe").id == before
    assert (one_probe / "02-probe").exists()
