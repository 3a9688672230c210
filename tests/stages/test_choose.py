"""Choosing among classifiers. They are not trained here: each compares images with the means of classes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nearest_mean import NearestMean, PixelMeans, add_nearest_mean, small
from nstudent.config.file import load_config
from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset, Ids
from nstudent.errors import ArtifactError, ConfigError
from nstudent.evaluation.assess import assess
from nstudent.evaluation.metrics import scores
from nstudent.evaluation.scores import HEADLINE
from nstudent.labels.heap_labels import HeapLabels
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble, pool_ensembles
from nstudent.models.recipe import Recipe
from nstudent.runs.run import run_stage
from nstudent.runs.step_metrics import ChoiceMetrics, TrainedMetrics
from nstudent.session import Session
from nstudent.storage.artifact import Artifact, Manifest
from nstudent.storage.commit import commit, open_partial
from nstudent.taxonomy.outputs import Outputs
from small_folders import Said
from torch.nn import functional as F

CONFIG = (
    *("rounds=1", "probe.members=[]", "device=cpu", "precision=float32", "threads=1", "jobs=1", "workers=0"),
    *("data.image_size=8", "data.labelled=60", "data.unlabelled=240"),
)
Setting = Callable[..., Config]


@pytest.fixture
def setting() -> Setting:
    return lambda *words: load_config(None, [*CONFIG, *words])


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with nothing but the data. Tests only read it."""
    folder = tmp_path_factory.mktemp("packed")
    run_stage(load_config(None, list(CONFIG)), "data", folder)
    return folder


@pytest.fixture
def run_dir(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("nstudent.storage.files.os.fsync", lambda descriptor: None)
    add_nearest_mean(monkeypatch)
    shutil.copytree(packed, tmp_path / "run")
    return tmp_path / "run"


def add(run_dir: Path, name: str, *members: tuple[int, Ids], round_: int = 0, gmacs: float = 0.01) -> Ensemble:
    """A classifier in a run folder: members that see so many pixels a side, and have seen these images."""
    dataset = Dataset(Artifact(run_dir / "00-data"))
    truth, outputs = dataset.hidden_truth(), Outputs(dataset.taxonomy, "ignore")
    settings, made = [], []
    for side, ids in members:
        images = small(Placement(torch.device("cpu"), "float32").images(torch.from_numpy(dataset.pixels[ids])), side)
        means = {}
        for level, size in enumerate(outputs.sizes):
            classes = torch.from_numpy(truth[ids, level]).long()
            seen = F.one_hot(classes.clamp(min=0), size).float() * (classes >= 0)[:, None]
            means[f"level-{level}"] = (seen.T @ images) / seen.sum(dim=0)[:, None].clamp(min=1)
        settings.append(PixelMeans(side=side))
        made.append(NearestMean(settings[-1], means))
    recipe = Recipe.of(load_config(None, list(CONFIG)), dataset.taxonomy, settings)
    ensemble = Ensemble(recipe, made, Placement(torch.device("cpu"), "float32"))
    ensemble.save(open_partial(run_dir / name, {"asked": {}, "inputs": {}}))
    metrics = TrainedMetrics({HEADLINE: 0.5}, gmacs, 10, ()).to_json()
    fields = {"stage": name.partition("-")[2], "role": "classifier", "round": round_, "asked": {}, "inputs": {}}
    commit(run_dir / name, fields | {"metrics": metrics, "seconds": 0.0})
    return ensemble


@pytest.fixture
def four(run_dir: Path) -> Path:
    """A run with a teacher of two members, a baseline that is worse, and a student that has seen more images."""
    dataset = Dataset(Artifact(run_dir / "00-data"))
    given, heap = dataset.labelled, dataset.unlabelled
    add(run_dir, "01-teacher", (4, given), (2, given), gmacs=0.02)
    add(run_dir, "02-baseline", (2, given[:20]))
    add(run_dir, "06-student", (8, np.concatenate([given, heap])), round_=1)
    return run_dir


def choose(config: Config, run_dir: Path, said: Said | None = None) -> tuple[ChoiceMetrics, Artifact]:
    """The next choice of a run: the first of them reads the teacher and the baseline alone."""
    made = Artifact(run_stage(config, "choose", run_dir, Session(progress=said or Said())))
    return ChoiceMetrics.of(made.manifest), made


def last_choice(config: Config, run_dir: Path, said: Said | None = None) -> tuple[ChoiceMetrics, Artifact]:
    choose(config, run_dir)
    return choose(config, run_dir, said)


def validation_score(run_dir: Path, ensemble: Ensemble) -> float:
    dataset = Dataset(Artifact(run_dir / "00-data"))
    score = scores(assess(ensemble, dataset, dataset.validation, None).tallies)[HEADLINE]
    assert score is not None
    return score


def prefer(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let most be expected of one candidate."""
    monkeypatch.setattr(
        "nstudent.stages.choose.expected_gains", lambda each: {one.name: float(one.name == name) for one in each}
    )


def weigh(monkeypatch: pytest.MonkeyPatch, *by_number: tuple[float, ...]) -> None:
    """Let pools of so many classifiers have these weights, whatever was predicted."""
    weights = {len(each): each for each in by_number}
    rules = {"likelihood": lambda raws, labels, outputs: weights[len(raws)]}
    monkeypatch.setattr("nstudent.stages.choose.POOL_WEIGHTS", rules)


def test_pools_are_weighed_by_the_rule_that_is_asked_for(
    setting: Setting, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = {
        "likelihood": lambda raws, labels, outputs: (0.5, 0.5),
        "greedy": lambda raws, labels, outputs: (0.75, 0.25),
    }
    monkeypatch.setattr("nstudent.stages.choose.POOL_WEIGHTS", rules)
    for rule, shares in (("likelihood", (0.5, 0.5)), ("greedy", (0.75, 0.25))):
        metrics, _ = choose(setting(f"pool_weights={rule}"), four)
        assert tuple(metrics.candidate("labels-alone pool").parts.values()) == shares


def test_what_was_trained_and_its_pools_are_candidates(
    setting: Setting, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weigh(monkeypatch, (0.75, 0.25), (0.5, 0.2, 0.3))
    metrics, _ = last_choice(setting(), four)
    assert {each.name: (each.parts, each.saw_heap, each.gmacs) for each in metrics.candidates} == {
        "01-teacher": ({"01-teacher": 1.0}, False, 0.02),
        "02-baseline": ({"02-baseline": 1.0}, False, 0.01),
        "06-student": ({"06-student": 1.0}, True, 0.01),
        "labels-alone pool": ({"01-teacher": 0.75, "02-baseline": 0.25}, False, 0.03),
        "pool of all": ({"01-teacher": 0.5, "02-baseline": 0.2, "06-student": 0.3}, True, 0.04),
    }
    assert metrics.candidates[0].gain is None
    for each in metrics.candidates[1:]:
        assert each.gain is not None
        assert each.gain.value == pytest.approx(each.validation - metrics.candidates[0].validation)
        assert each.gain.low <= each.gain.value <= each.gain.high


def test_the_student_that_saw_the_whole_heap_is_better_than_what_the_labels_gave(setting: Setting, four: Path) -> None:
    metrics, _ = last_choice(setting(), four)
    scored = {each.name: each.validation for each in metrics.candidates}
    assert scored["06-student"] > scored["01-teacher"] > scored["02-baseline"]
    assert metrics.taken.saw_heap
    assert metrics.with_heap == metrics.chosen
    assert metrics.labels_alone in ("01-teacher", "labels-alone pool")


@pytest.mark.parametrize("name", ["01-teacher", "06-student", "labels-alone pool", "pool of all"])
def test_what_is_saved_scores_what_was_reported(
    name: str, setting: Setting, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer(monkeypatch, name)
    weigh(monkeypatch, (0.75, 0.25), (0.5, 0.2, 0.3))
    metrics, made = last_choice(setting(), four)
    assert metrics.chosen == name
    saved = Ensemble.load(made, Placement(torch.device("cpu"), "float32"))
    assert validation_score(four, saved) == pytest.approx(metrics.taken.validation)
    assert (saved.recipe.temperatures, saved.recipe.ends) == (metrics.taken.temperatures, metrics.taken.ends)


def test_a_pool_is_calibrated_as_a_whole_and_holds_the_members_of_its_parts(
    setting: Setting, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer(monkeypatch, "pool of all")
    weigh(monkeypatch, (0.75, 0.25), (0.5, 0.2, 0.3))
    metrics, made = last_choice(setting(), four)
    saved = Ensemble.load(made, Placement(torch.device("cpu"), "float32"))
    assert [member.side for member in saved.recipe.members] == [4, 2, 2, 8]
    assert saved.recipe.weights == pytest.approx((0.25, 0.25, 0.2, 0.3))
    assert metrics.taken.temperatures != (1.0, 1.0, 1.0)
    # Whoever has the manifests can build any candidate again.
    placement = Placement(torch.device("cpu"), "float32")
    parts = [Ensemble.load(Artifact(four / name), placement) for name in metrics.taken.parts]
    again = pool_ensembles(parts, list(metrics.taken.parts.values())).calibrated(saved.recipe.calibration)
    pixels = Dataset(Artifact(four / "00-data")).pixels[np.arange(20)]
    for level, same in zip(again.probabilities(pixels), saved.probabilities(pixels), strict=True):
        np.testing.assert_array_equal(level, same)


def test_the_best_of_each_side_is_named(setting: Setting, four: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefer(monkeypatch, "labels-alone pool")
    weigh(monkeypatch, (0.75, 0.25), (0.5, 0.2, 0.3))
    metrics, _ = last_choice(setting(), four)
    assert (metrics.chosen, metrics.labels_alone) == ("labels-alone pool", "labels-alone pool")
    assert metrics.with_heap == "06-student", "of equals the cheapest"


def test_before_the_first_student_nothing_saw_the_heap(setting: Setting, four: Path) -> None:
    metrics, made = choose(setting(), four)
    assert made.name == "03-choose"
    assert metrics.with_heap is None
    assert not any(each.saw_heap for each in metrics.candidates)


@pytest.mark.parametrize(
    ("weights", "pools"),
    [
        ((0.5, 0.2, 0.3), ["labels-alone pool", "pool of all"]),
        ((0.0, 0.4, 0.6), ["labels-alone pool", "pool of all"]),
        ((0.0, 0.0, 1.0), ["labels-alone pool"]),
        ((0.6, 0.4, 0.0), ["labels-alone pool"]),
    ],
    ids=["all vote", "one does not vote", "one alone votes", "the heap does not vote"],
)
def test_a_pool_is_of_those_that_vote_and_no_second_name_for_another_candidate(
    weights: tuple[float, ...], pools: list[str], setting: Setting, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weigh(monkeypatch, (0.75, 0.25), weights)
    metrics, _ = last_choice(setting(), four)
    assert [each.name for each in metrics.candidates[3:]] == pools
    if "pool of all" in pools:
        voting = {"01-teacher": weights[0], "02-baseline": weights[1], "06-student": weights[2]}
        assert metrics.candidates[-1].parts == {name: weight for name, weight in voting.items() if weight}


def test_each_part_of_a_pool_is_told_by_what_it_costs_and_what_the_pool_is_without_it(
    setting: Setting, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer(monkeypatch, "pool of all")
    weigh(monkeypatch, (0.75, 0.25), (0.5, 0.2, 0.3))
    said = Said()
    metrics, _ = last_choice(setting(), four, said)
    scored = {each.name: each.validation for each in metrics.candidates}
    assert all(metrics.candidate(name).contributions is None for name in ("01-teacher", "02-baseline", "06-student"))
    of_two = metrics.candidate("labels-alone pool").contributions
    assert of_two is not None
    for part, other in (("01-teacher", "02-baseline"), ("02-baseline", "01-teacher")):
        assert of_two[part].gain.value == pytest.approx(scored["labels-alone pool"] - scored[other])
    assert [(each.weight, each.gmacs) for each in of_two.values()] == [(0.75, 0.02), (0.25, 0.01)]
    of_all = metrics.taken.contributions
    assert of_all is not None
    assert list(of_all) == ["01-teacher", "02-baseline", "06-student"]
    # Without the student it is the other pool, which is weighted alike.
    assert of_all["06-student"].gain.value == pytest.approx(scored["pool of all"] - scored["labels-alone pool"])
    assert of_all["06-student"].gain.low <= of_all["06-student"].gain.value <= of_all["06-student"].gain.high
    points = f"{100 * of_all['06-student'].gain.value:+.1f}"
    assert any(line.split()[:4] == ["06-student", "adds", points, "points"] for line in said.lines)


# --- the limit of cost ---


@pytest.mark.parametrize(
    ("limit", "names"),
    [
        (0.04, ["01-teacher", "02-baseline", "06-student", "labels-alone pool", "pool of all"]),
        (0.03, ["01-teacher", "02-baseline", "06-student", "labels-alone pool", "pool of all"]),
        (0.02, ["01-teacher", "02-baseline", "06-student"]),
        (0.015, ["02-baseline", "06-student"]),
    ],
)
def test_candidates_are_within_the_limit(
    limit: float, names: list[str], setting: Setting, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weigh(monkeypatch, (0.75, 0.25), (0.3, 0.2, 0.5))
    metrics, _ = last_choice(setting(f"final.max_gmacs={limit}"), four)
    assert [each.name for each in metrics.candidates] == names
    assert all(each.gmacs <= limit for each in metrics.candidates)
    assert metrics.labels_alone in names
    assert metrics.with_heap in names


def test_above_the_limit_a_pool_loses_the_part_with_the_least_weight(
    setting: Setting, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are left are weighed anew."""
    weigh(monkeypatch, (0.45, 0.55), (0.4, 0.25, 0.35))
    metrics, _ = last_choice(setting("final.max_gmacs=0.03"), four)
    assert metrics.candidate("pool of all").parts == {"01-teacher": 0.45, "06-student": 0.55}


def test_what_is_too_dear_alone_keeps_no_other_out_of_a_pool(
    setting: Setting, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(four, "10-student", (4, Dataset(Artifact(four / "00-data")).labelled), round_=2, gmacs=5.0)
    weigh(monkeypatch, (0.5, 0.5), (0.2, 0.2, 0.6))
    config = setting("rounds=2", "final.max_gmacs=0.04")
    choose(config, four)
    choose(config, four)
    metrics, made = choose(config, four)
    assert made.name == "11-choose"
    assert metrics.candidate("pool of all").parts == {"01-teacher": 0.2, "02-baseline": 0.2, "06-student": 0.6}


def test_the_labeller_has_no_limit_and_without_rounds_the_only_choice_has_it(setting: Setting, four: Path) -> None:
    metrics, _ = choose(setting("final.max_gmacs=0.015"), four)
    assert {"01-teacher", "02-baseline"} <= {each.name for each in metrics.candidates}
    with pytest.raises(
        ConfigError, match=r"final\.max_gmacs is 0\.015, and the cheapest classifier, 01-teacher, needs 0\.02"
    ):
        choose(setting("final.max_gmacs=0.015", "rounds=0"), four)


def test_a_limit_below_everything_is_refused_and_says_what_is_needed(setting: Setting, four: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"final\.max_gmacs is 0\.001.*02-baseline, needs 0\.01 GMACs.*raise the limit"
    ):
        last_choice(setting("final.max_gmacs=0.001"), four)


# --- what a person reads, and what is done with the choice ---


def test_all_candidates_and_what_was_taken_are_said(
    setting: Setting, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer(monkeypatch, "pool of all")
    weigh(monkeypatch, (0.4, 0.6), (0.2, 0.3, 0.5))
    said = Said()
    metrics, _ = last_choice(setting("final.max_gmacs=0.0205"), four, said)
    student = 100 * metrics.candidate("06-student").validation
    assert f"  06-student        {student:5.1f} %  +0.0 points     0.01 GMACs" in said.lines
    assert said.lines[-1] == "  taken is the pool of all: 40% 02-baseline, 60% 06-student"
    assert all(len(line) <= 80 for line in said.lines)


def test_what_is_too_dear_is_said(setting: Setting, four: Path) -> None:
    said = Said()
    last_choice(setting("final.max_gmacs=0.015"), four, said)
    assert "  01-teacher        needs 0.02 GMACs, more than final.max_gmacs (0.015)" in said.lines
    assert said.lines[-1] in ("  taken is 06-student", "  taken is 02-baseline")


def test_a_pool_of_members_of_several_kinds_labels_the_heap(
    setting: Setting, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer(monkeypatch, "labels-alone pool")
    weigh(monkeypatch, (0.75, 0.25))
    config = setting("pseudolabel.shard_rows=100")
    _, made = choose(config, four)
    labels = Artifact(run_stage(config, "pseudolabel", four))
    assert labels.manifest.inputs["03-choose"] == made.manifest.id
    dataset = Dataset(Artifact(four / "00-data"))
    labeller = Ensemble.load(made, Placement(torch.device("cpu"), "float32"))
    store = HeapLabels.open(labels).labels
    rows = np.arange(len(store))
    for level, expected in enumerate(labeller.probabilities(dataset.pixels[dataset.unlabelled])):
        np.testing.assert_allclose(store.probabilities[level][rows], expected, atol=1e-3)


def test_the_same_is_chosen_with_the_same_bytes(setting: Setting, four: Path) -> None:
    _, made = last_choice(setting(), four)
    shutil.rmtree(made.folder)
    _, again = choose(setting(), four)
    assert again.name == made.name
    assert again.manifest.id == made.manifest.id
    assert again.manifest.metrics == made.manifest.metrics


def test_of_many_classes_some_validation_images_decide(
    setting: Setting, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nstudent.stages.choose.images_to_fit", lambda ids, outputs: ids[::3])
    prefer(monkeypatch, "01-teacher")
    metrics, made = last_choice(setting(), four)
    dataset = Dataset(Artifact(four / "00-data"))
    saved = Ensemble.load(made, Placement(torch.device("cpu"), "float32"))
    score = scores(assess(saved, dataset, dataset.validation[::3], None).tallies)[HEADLINE]
    assert metrics.taken.validation == pytest.approx(score)


def test_without_a_classifier_the_stage_to_run_is_named(setting: Setting, run_dir: Path) -> None:
    with pytest.raises(ArtifactError, match=r"choose needs a trained classifier.*run `nstudent stage teacher` first"):
        choose(setting(), run_dir)


def test_a_student_alone_is_no_choice(setting: Setting, four: Path) -> None:
    """What the labels alone give is what everything is compared with."""
    choose(setting(), four)
    for name in ("01-teacher", "02-baseline"):
        shutil.rmtree(four / name)
    shutil.rmtree(four / "03-choose")
    with pytest.raises(ArtifactError, match="run `nstudent stage teacher` first"):
        choose(setting("rounds=1", "probe.members=[]"), four)


def test_until_it_was_made_there_is_no_final_classifier(setting: Setting, four: Path) -> None:
    assert Manifest.read(four / "06-student").role == "classifier"
    assert not (four / "final.json").exists()


@pytest.mark.parametrize("name", ["01-teacher", "pool of all"])
def test_the_decoder_that_is_asked_for_is_kept_in_the_classifier_and_judged_by(
    name: str, setting: Setting, four: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer(monkeypatch, name)
    weigh(monkeypatch, (0.75, 0.25), (0.5, 0.2, 0.3))
    metrics, made = last_choice(setting("decoder=argmax"), four)
    saved = Ensemble.load(made, Placement(torch.device("cpu"), "float32"))
    assert saved.recipe.decoder == "argmax"
    assert validation_score(four, saved) == pytest.approx(metrics.taken.validation)
    # The classifiers that it was made from are as they were: no training depends on the key.
    assert Recipe.read(Artifact(four / "01-teacher")).decoder == "best_path"
