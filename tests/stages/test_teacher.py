import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from nearest_mean import NearestMeanKind, add_nearest_mean, small
from nstudent.config.file import load_config
from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset
from nstudent.errors import ConfigError, TrainingError
from nstudent.evaluation.assess import assess
from nstudent.evaluation.calibration import fit_calibration
from nstudent.evaluation.ensemble_calibration import calibrated
from nstudent.evaluation.metrics import scores
from nstudent.evaluation.out_of_fold import OutOfFold
from nstudent.listener import NoListener
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import predict
from nstudent.runs.folder import Run
from nstudent.runs.plan import plan
from nstudent.runs.run import run_all, run_stage
from nstudent.runs.stage import Context
from nstudent.runs.step_metrics import LabelMetrics, TrainedMetrics
from nstudent.runs.under_way import UnderWay, under_way
from nstudent.session import Session
from nstudent.stages.teacher import train_ahead
from nstudent.storage.artifact import Artifact, Manifest
from nstudent.storage.commit import open_partial
from PIL import Image
from small_folders import Said


@pytest.mark.slow
def test_a_teacher_no_better_than_chance_stops_the_run(tiny: Callable[..., Config], untrained: Path) -> None:
    # This weight decay takes nine tenths of every weight in each step: what is left says the same of every image.
    wither = ("teacher.warmup_epochs=0", "teacher.weight_decay=300", "teacher.ema_decay=0.0")
    config = tiny("teacher.epochs=2", *wither)
    with pytest.raises(TrainingError, match=r"no better than chance, as far as these images tell: .*teacher\.epochs"):
        run_all(config, untrained)
    assert not (untrained / "01-teacher").exists()
    assert not list(untrained.glob("0[2-9]-*")), "nothing is made from it"


@pytest.mark.slow
def test_an_untrained_teacher_stops_the_run_though_it_has_luck(tiny: Callable[..., Config], untrained: Path) -> None:
    with pytest.raises(TrainingError, match="no better than chance"):
        run_stage(tiny("teacher.epochs=1", "teacher.learning_rate=1e-9"), "teacher", untrained)


class _Looks(NoListener):
    """Looks after each epoch how far the run is, as another process would."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.found: list[UnderWay | None] = []

    def epoch(self, training: str, entry: Mapping[str, float]) -> None:
        self.found.append(under_way(self._run_dir))


@pytest.mark.slow
def test_how_far_a_stage_is_that_is_made_by_itself_is_seen_beside_it(
    tiny: Callable[..., Config], untrained: Path
) -> None:
    looks = _Looks(untrained)
    run_stage(tiny(), "teacher", untrained, Session(listener=looks))
    found = looks.found[-1]
    assert found is not None
    assert (found.step, found.of) == ("01-teacher", "stage")
    assert [work.name for work in found.work]
    assert under_way(untrained) is None


@pytest.mark.slow
def test_a_good_teacher_goes_on_where_validation_has_too_few_rare_images_to_show_it(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(100, 20, (120, 16, 16, 3))
    images[:8] += 100
    for number, image in enumerate(images):
        folder = tmp_path / "images" / ("defect" if number < 8 else "ok")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    words = ["data.source=folder", f"data.root={tmp_path / 'images'}", "data.levels=[x]", "data.image_size=16"]
    words += ["rounds=0", "teacher.members=[{}]", "teacher.epochs=16", "teacher.warmup_epochs=1", "jobs=1"]
    words += ["teacher.noise.cutmix=0", "teacher.noise.dropout=0", "teacher.noise.operations=0"]
    told = Said()
    run_all(load_config(None, words), tmp_path / "r", Session(progress=told), until="teacher")
    assert Manifest.read(tmp_path / "r" / "02-teacher").metrics["validation"]["level accuracy"] == 1.0
    (warning,) = [line for line in told.lines if "too few validation images" in line]
    assert "1 of defect, 11 of ok" in warning
    assert "data.validation" in warning


def test_the_finished_teacher_is_clearly_better_than_chance(finished: Path) -> None:
    metrics = Manifest.read(finished / "01-teacher").metrics
    assert metrics["validation"]["level accuracy"] > 0.6


@pytest.mark.parametrize("step", ["01-teacher", "02-baseline", "06-student"])
def test_a_classifier_is_saved_calibrated_and_scored_as_it_is_saved(
    step: str, tiny: Callable[..., Config], finished: Path
) -> None:
    dataset = Dataset(Artifact(finished / "00-data"))
    made = Ensemble.load(Artifact(finished / step), Placement.from_config(tiny()))
    raw = predict(made.calibrated(None), dataset.pixels, dataset.validation, None)
    wanted = fit_calibration(raw, dataset.labels[dataset.validation], made.recipe.outputs)

    assert made.recipe.temperatures == pytest.approx(wanted.temperatures, rel=1e-3)
    assert made.recipe.ends == pytest.approx(wanted.ends, abs=1e-3)
    validation = scores(assess(made, dataset, dataset.validation, None).tallies)
    assert Manifest.read(finished / step).metrics["validation"] == pytest.approx(validation)


@pytest.mark.slow
def test_members_with_different_backbones_vote_together(tiny: Callable[..., Config], untrained: Path) -> None:
    members = "[{}, {backbones: [test_efficientnet, test_nfnet], wide_channels: 8, head: coarse_to_fine}]"
    config = tiny(f"teacher.members={members}", "teacher.epochs=8", "rounds=0")
    folder = run_stage(config, "teacher", untrained)
    assert {path.name for path in folder.glob("member-*")} == {"member-0.safetensors", "member-1.safetensors"}
    metrics = Manifest.read(folder).metrics
    assert len(metrics["history"]) == 2
    assert metrics["image_passes"] == 2 * 8 * 4 * 25
    ensemble = Ensemble.load(Artifact(folder), Placement.from_config(config))
    assert [len(member.network.backbones) for member in ensemble.members] == [1, 3]
    dataset = Dataset(Artifact(untrained / "00-data"))
    coarse, mid, fine = ensemble.probabilities(dataset.pixels[dataset.test[:4]])
    assert (coarse.shape, mid.shape, fine.shape) == ((4, 3), (4, 4), (4, 8))


@pytest.mark.slow
def test_equal_members_start_and_end_apart(tiny: Callable[..., Config], untrained: Path) -> None:
    folder = run_stage(tiny("teacher.members=[{}, {}]", "teacher.epochs=6"), "teacher", untrained)
    files = Manifest.read(folder).files
    assert files["member-0.safetensors"]["sha256"] != files["member-1.safetensors"]["sha256"]


@pytest.mark.parametrize(
    ("rounds", "limit", "refused"),
    [(1, 0.0022, "the student"), (1, 0.0024, None), (0, 0.0014, "the teacher"), (0, 0.0026, None)],
)
def test_a_limit_below_every_final_classifier_is_refused_before_anything_is_trained(
    rounds: int,
    limit: float,
    refused: str | None,
    tiny: Callable[..., Config],
    untrained: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At 16 px the teacher's two members need 0.0025 GMACs, and a student of one wider network 0.0023."""

    class TrainingBeganError(Exception):
        pass

    def begin(*_: object) -> None:
        raise TrainingBeganError

    monkeypatch.setattr("nstudent.stages.teacher._fit", begin)
    student = "student.model={head_width: 64}"
    config = tiny("teacher.members=[{}, {}]", student, f"rounds={rounds}", f"final.max_gmacs={limit}")
    said = rf"final\.max_gmacs is {limit:g}, and the cheapest classifier, {refused}, needs 0\.00"
    with pytest.raises(ConfigError if refused else TrainingBeganError, match=said if refused else None):
        run_stage(config, "teacher", untrained)


def test_the_whole_ensemble_is_held_under_the_cost_limit_before_anything_is_trained(
    tiny: Callable[..., Config], untrained: Path
) -> None:
    cost = 0.00106  # GMACs of one member at 16 px
    two = ("teacher.members=[{}, {}]", f"teacher.max_gmacs={1.5 * cost}")
    with pytest.raises(ConfigError, match=r"needs 0\.002 GMACs for one 16 px image.*data\.image_size=8 fits"):
        run_stage(tiny(*two), "teacher", untrained)
    begun = (untrained / "01-teacher.partial" / "scratch").glob("*")
    assert [path.name for path in begun] == ["refused.json"], "no training began"


@pytest.mark.slow
def test_a_member_that_is_not_a_network_is_fitted_and_votes(
    tiny: Callable[..., Config], untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_nearest_mean(monkeypatch)
    config = tiny("teacher.members=[{}, {kind: nearest_mean, side: 8}]", "teacher.epochs=4", "rounds=1")

    folder = run_stage(config, "teacher", untrained)

    metrics = Manifest.read(folder).metrics
    assert metrics["image_passes"] == 4 * 4 * 25, "only the network was trained"
    assert [len(history) for history in metrics["history"]] == [4, 0]
    means = 3 * 8 * 8 * (3 + 4 + 8)
    ensemble = Ensemble.load(Artifact(folder), Placement.from_config(config))
    assert ensemble.recipe.members == config.teacher.members
    first, _second = ensemble.members
    assert metrics["gmacs"] == round(first.gmacs(16) + means / 2 / 1e9, 6), "both are in the cost"
    dataset = Dataset(Artifact(untrained / "00-data"))
    own = ensemble.alone(1)
    coarse = own.probabilities(dataset.pixels[dataset.test])[0].argmax(axis=1)
    assert (coarse == dataset.hidden_truth()[dataset.test, 0]).mean() > 0.6
    run_stage(config, "choose", untrained)
    labels = Artifact(run_stage(config, "pseudolabel", untrained))
    assert LabelMetrics.of(labels.manifest).labelled_images == 240


def test_the_cost_of_members_of_all_kinds_is_known_before_any_is_fitted(
    tiny: Callable[..., Config], untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_nearest_mean(monkeypatch)
    monkeypatch.setattr(NearestMeanKind, "fit", lambda *about: pytest.fail("it was fitted"))
    with pytest.raises(ConfigError, match=r"needs 0\.\d+ GMACs for one 16 px image, teacher\.max_gmacs is 1e-07"):
        run_stage(tiny("teacher.members=[{kind: nearest_mean}]", "teacher.max_gmacs=1e-7"), "teacher", untrained)


def test_only_a_member_that_goes_on_from_what_was_left_is_fitted_ahead(
    tiny: Callable[..., Config], untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_nearest_mean(monkeypatch)
    config = tiny("teacher.members=[{}, {kind: nearest_mean}]", "teacher.epochs=1")
    context = Context(config, plan(config)[1], untrained, {"data": Artifact(untrained / "00-data")})
    monkeypatch.setattr(NearestMeanKind, "fit", lambda *about: pytest.fail("it was fitted"))
    train_ahead(context, 1)
    train_ahead(context, 0)
    assert {path.name for path in context.scratch.iterdir()} >= {"member-0.safetensors"}
    assert not list(context.scratch.glob("*member-1*"))


CROSS_FITTED = ("data.folds=3", "teacher.cross_fit=true")
THREE_MEANS = "teacher.members=[{kind: nearest_mean}, {kind: nearest_mean}, {kind: nearest_mean}]"


@pytest.fixture(scope="module")
def cross_fitted(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run folder with a teacher of three members that were fitted in no time, each without its fold."""
    folder = tmp_path_factory.mktemp("cross-fitted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        add_nearest_mean(patch)
        yield _taught(tiny(*CROSS_FITTED, THREE_MEANS, "rounds=0"), folder).parent


def _taught(config: Config, run_dir: Path) -> Path:
    """The folder of a teacher with its data beside it."""
    run_stage(config, "data", run_dir)
    return run_stage(config, "teacher", run_dir)


def test_a_cross_fitted_member_is_fitted_to_the_images_of_the_other_folds(
    tiny: Callable[..., Config], cross_fitted: Path
) -> None:
    dataset = Dataset(Artifact(cross_fitted / "00-data"))
    teacher = Ensemble.load(Artifact(cross_fitted / "01-teacher"), Placement.from_config(tiny()))

    for number, member in enumerate(teacher.members):
        taught = dataset.labelled[dataset.folds() != number]
        assert 60 < len(taught) < 70
        images = small(teacher.images(torch.from_numpy(dataset.pixels[taught])), 4)
        for coarse, mean in enumerate(member.tensors()["level-0"]):
            of_class = torch.from_numpy(dataset.labels[taught, 0] == coarse)
            torch.testing.assert_close(mean, images[of_class].mean(dim=0))


def test_a_cross_fitted_teacher_keeps_what_each_member_says_of_its_own_fold(
    tiny: Callable[..., Config], cross_fitted: Path
) -> None:
    made = Artifact(cross_fitted / "01-teacher")
    dataset = Dataset(Artifact(cross_fitted / "00-data"))
    teacher = Ensemble.load(made, Placement.from_config(tiny()))

    kept = OutOfFold.read(made, teacher.recipe.outputs)

    assert np.array_equal(kept.images, dataset.labelled)
    assert np.array_equal(kept.members, dataset.folds())
    for number in range(3):
        # Of its fold alone: where an image stands in a batch may change the last digits.
        own = np.flatnonzero(kept.members == number)
        said = predict(teacher.alone(number), dataset.pixels, dataset.labelled[own], tiny().evaluate.batch_size)
        for found, wanted in zip(kept.levels, said, strict=True):
            np.testing.assert_allclose(found[own], wanted, atol=1e-6)


def test_the_teacher_keeps_what_each_of_its_members_costs_and_adds(cross_fitted: Path) -> None:
    metrics = TrainedMetrics.of(Manifest.read(cross_fitted / "01-teacher"))
    assert metrics.members is not None
    assert [each.weight for each in metrics.members] == pytest.approx([1 / 3] * 3, abs=1e-6)
    assert sum(each.gmacs for each in metrics.members) == pytest.approx(metrics.gmacs, abs=2e-6)
    assert all(each.gain.low <= each.gain.value <= each.gain.high for each in metrics.members)


def test_a_cross_fitted_teacher_is_calibrated_with_its_folds(tiny: Callable[..., Config], cross_fitted: Path) -> None:
    made = Artifact(cross_fitted / "01-teacher")
    dataset = Dataset(Artifact(cross_fitted / "00-data"))
    teacher = Ensemble.load(made, Placement.from_config(tiny()))
    kept = OutOfFold.read(made, teacher.recipe.outputs)

    by_both, by_validation = calibrated(teacher, dataset, None, kept), calibrated(teacher, dataset, None)

    assert teacher.recipe.calibration == by_both.recipe.calibration != by_validation.recipe.calibration
    assert teacher.recipe.member_temperatures == by_both.recipe.member_temperatures
    assert teacher.recipe.member_temperatures != by_validation.recipe.member_temperatures


@pytest.mark.slow
def test_without_the_key_folds_change_nothing_about_the_teacher(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_nearest_mean(monkeypatch)
    divided = _taught(tiny("data.folds=3", THREE_MEANS, "rounds=0"), tmp_path / "divided")
    whole = _taught(tiny(THREE_MEANS, "rounds=0"), tmp_path / "whole")

    assert Manifest.read(divided).files == Manifest.read(whole).files
    assert "teacher.cross_fit" not in Manifest.read(whole).asked["settings"]


@pytest.mark.slow
def test_cross_fitted_networks_are_the_same_whether_they_were_trained_ahead_or_in_turn(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny(*CROSS_FITTED, "teacher.members=[{}, {}, {}]", "teacher.epochs=8", "rounds=0")
    in_turn = _taught(config, tmp_path / "in-turn")
    run_stage(config, "data", tmp_path / "ahead")
    run, teacher = Run.open(config, tmp_path / "ahead"), plan(config)[1]
    open_partial(run.folder(teacher.name), run.request(teacher))
    for number in (2, 0):
        run.train_ahead(teacher, number)

    ahead = run_stage(config, "teacher", tmp_path / "ahead")

    assert Manifest.read(ahead).files == Manifest.read(in_turn).files
    metrics = Manifest.read(ahead).metrics
    assert metrics["image_passes"] == 3 * 8 * 3 * 25, "each is trained on two thirds of 100 images, in three batches"


@pytest.mark.slow
def test_another_seed_gives_another_teacher(tiny: Callable[..., Config], finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    run_stage(tiny("seed=1"), "data", tmp_path / "run")
    run_stage(tiny("seed=1"), "teacher", tmp_path / "run")
    assert Manifest.read(tmp_path / "run" / "01-teacher").id != Manifest.read(finished / "01-teacher").id


def test_the_history_stands_beside_the_scores(finished: Path) -> None:
    manifest = json.loads((finished / "01-teacher" / "manifest.json").read_text())
    (history,) = manifest["metrics"]["history"]
    assert history[-1]["loss"] < history[0]["loss"]
    assert 0 < history[-1]["validation"] <= 1
