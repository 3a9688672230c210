"""A soup of the teacher's members: its step, its place in choices, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from nstudent.classifier import Classifier
from nstudent.config.file import load_config
from nstudent.config.schema import Config
from nstudent.data.dataset import Dataset
from nstudent.errors import ConfigError, StoppedError
from nstudent.evaluation.assess import assess
from nstudent.evaluation.choice import PRIORS
from nstudent.evaluation.metrics import scores
from nstudent.evaluation.scores import HEADLINE
from nstudent.export.program_files import write_torch
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.network_member import NetworkMember
from nstudent.models.soup import plain_batches, soup_of
from nstudent.runs.plan import plan
from nstudent.runs.run import run_all, run_stage
from nstudent.runs.step_metrics import ChoiceMetrics, RefitMetrics, TrainedMetrics
from nstudent.runs.verification import verify
from nstudent.session import Session
from nstudent.storage.artifact import Artifact, Manifest
from safetensors.torch import save_file
from small_folders import Said

TEACHER, SOUP, CHOICE, REFIT = "01-teacher", "02-soup", "03-choose", "04-refit"


def words_of(weights: Path, members: int = 3) -> tuple[str, ...]:
    member = f"{{backbones: [test_resnet], pretrained: {weights}}}"
    each = ", ".join([member] * members)
    return (f"teacher.members=[{each}]", "teacher.soup=greedy", "rounds=0", "teacher.learning_rate=0.001")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a backbone that all members start from."""
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def souped(
    weights: Path, tiny: Callable[..., Config], packed: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Said]:
    """A run with a soup, of which the choice may cost what one network does, and what it said. Tests only read it."""
    folder = tmp_path_factory.mktemp("souped") / "run"
    shutil.copytree(packed, folder)
    said = Said()
    run_all(limited(tiny, weights), folder, Session(progress=said))
    return folder, said


def limited(tiny: Callable[..., Config], weights: Path, *words: str) -> Config:
    return tiny(*words_of(weights), "final.max_gmacs=0.002", *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["teacher.members=[{}]"], "two or more equal members"),
        (["teacher.members=[{pretrained: a.safetensors}, {pretrained: b.safetensors}]"], "two or more equal members"),
        (["teacher.members=[{head: flat, pretrained: true}, {pretrained: true}]"], "two or more equal members"),
        (["teacher.members=[{}, {}]"], "set pretrained in each of teacher.members"),
        (["teacher.members=[{kind: probe}, {kind: probe}]"], "set pretrained in each of teacher.members"),
    ],
)
def test_what_cannot_be_averaged_is_refused_in_a_line(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.soup=greedy averages") as caught:
        load_config(None, ["teacher.soup=greedy", *words])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_its_step_follows_what_learns_from_the_labels_and_leaves_the_baseline_its_number() -> None:
    words = ["probe.members=[]", "teacher.members=[{pretrained: true}, {pretrained: true}]"]
    without = [step.name for step in plan(load_config(None, words))]
    steps = plan(load_config(None, [*words, "teacher.soup=greedy"]))
    assert [step.name for step in steps[:5]] == [*without[:3], "03-soup", "04-choose"]
    reads = {step.name: step.reads for step in steps}
    assert reads["03-soup"] == ("00-data", "01-teacher")
    assert "03-soup" in reads["04-choose"]
    assert "soup" in dict(steps[4].inputs)


@pytest.mark.slow
def test_it_is_the_average_of_its_ingredients_at_the_cost_of_one(souped: tuple[Path, Said], weights: Path) -> None:
    folder, said = souped
    cpu = Placement(torch.device("cpu"), "float32")
    dataset = Dataset(Artifact(folder / "00-data"))
    teacher, soup = (Ensemble.load(Artifact(folder / step), cpu) for step in (TEACHER, SOUP))
    found = TrainedMetrics.of(Manifest.read(folder / SOUP))
    assert found.ingredients is not None
    assert 1 <= len(found.ingredients) <= 3
    networks = [member.network for member in teacher.members if isinstance(member, NetworkMember)]
    batches = plain_batches(dataset.pixels, dataset.labelled, 25, cpu)
    expected = soup_of([networks[number] for number in found.ingredients], batches, cpu).state_dict()
    for name, tensor in soup.members[0].tensors().items():
        assert torch.equal(tensor, expected[name]), name
    assert found.gmacs == pytest.approx(TrainedMetrics.of(Manifest.read(folder / TEACHER)).gmacs / 3, abs=1e-6)
    assert found.image_passes == 0
    looks = found.training_gmacs / found.gmacs / len(dataset.labelled)  # type: ignore[operator]
    # Two soups are tasted, and if the one that is taken has several ingredients it is made once more.
    assert looks == pytest.approx(2 + (len(found.ingredients) > 1), rel=0.01)
    score = scores(assess(soup, dataset, dataset.validation, None).tallies)[HEADLINE]
    assert found.validation[HEADLINE] == pytest.approx(score)
    assert any("the soup of member" in line for line in said.lines)


@pytest.mark.slow
def test_its_members_begin_with_the_same_weights_and_learn_apart(souped: tuple[Path, Said]) -> None:
    """The head is drawn at random, and would be another one in each member."""
    folder, _ = souped
    teacher = Ensemble.load(Artifact(folder / TEACHER), Placement(torch.device("cpu"), "float32"))
    first, second, _ = (member.tensors() for member in teacher.members)
    name = next(name for name in first if name.startswith("head.") and first[name].ndim > 1)
    one, other = (member[name].flatten().double().numpy() for member in (first, second))
    assert not np.array_equal(one, other)
    assert np.corrcoef(one, other)[0, 1] > 0.5


@pytest.mark.slow
def test_it_is_chosen_scored_and_used_like_any_classifier(souped: tuple[Path, Said], tmp_path: Path) -> None:
    folder, _ = souped
    choice = ChoiceMetrics.of(Manifest.read(folder / CHOICE))
    assert [each.name for each in choice.candidates] == [SOUP], "all else costs more than is allowed"
    assert choice.chosen == choice.labels_alone == SOUP
    scored = json.loads((folder / "04-evaluate" / "scores.json").read_text())
    assert SOUP in scored["classifiers"]
    # Its cost holds the trainings of the teacher whose members it is made of.
    teacher = TrainedMetrics.of(Manifest.read(folder / TEACHER))
    assert scored["final"]["image_passes"] == teacher.image_passes
    assert TEACHER in scored["final"]["made_from"]
    classifier = Classifier.load(folder)
    dataset = Dataset(Artifact(folder / "00-data"))
    answers = list(classifier.predict(list(dataset.pixels[dataset.test[:4]])))
    assert len(answers) == 4
    assert not list(verify(folder))


@pytest.mark.slow
def test_it_is_exported_and_the_program_says_what_it_says(souped: tuple[Path, Said], tmp_path: Path) -> None:
    folder, _ = souped
    made = write_torch(folder, tmp_path / "torch").folder
    dataset = Dataset(Artifact(folder / "00-data"))
    pixels = dataset.pixels[dataset.test[:5]]
    with torch.no_grad():
        said = torch.export.load(made / "classifier.pt2").module()(torch.from_numpy(pixels))
    soup = Ensemble.load(Artifact(folder / SOUP), Placement(torch.device("cpu"), "float32"))
    for level, expected in zip(said, soup.probabilities(pixels), strict=False):
        np.testing.assert_allclose(level.numpy(), expected, atol=1e-4)


@pytest.mark.slow
def test_what_is_expected_of_it_is_not_what_is_expected_of_a_network_that_was_trained(
    souped: tuple[Path, Said],
    weights: Path,
    tiny: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(shutil.copytree(souped[0], tmp_path / "run"))
    # Nothing else is known beforehand: whatever is expected of a network that was trained is not asked for.
    known = {kind: PRIORS[kind] for kind in ("soup", "pool")}
    monkeypatch.setattr("nstudent.evaluation.choice.PRIORS", known)
    choice = ChoiceMetrics.of(Manifest.read(run_stage(tiny(*words_of(weights)), "choose", folder)))
    assert {each.name for each in choice.candidates} >= {TEACHER, SOUP}


@pytest.mark.slow
def test_stopped_and_gone_on_with_it_has_the_same_bytes(
    souped: tuple[Path, Said], weights: Path, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(souped[0], tmp_path / "run"))
    shutil.rmtree(folder / SOUP)
    stops = 0

    class Stops(Said):
        """Asks to stop once in each piece of work."""

        def task(self, name: str, *arguments: object, **options: object) -> object:
            nonlocal stops
            if name.startswith("taste") and name not in at:
                at.add(name)
                stops += 1
                raise StoppedError("asked to")
            return super().task(name, *arguments, **options)  # type: ignore[arg-type]

    at: set[str] = set()
    while not (folder / SOUP).exists():
        try:
            run_stage(limited(tiny, weights), "soup", folder, Session(progress=Stops()))
        except StoppedError:
            assert not (folder / SOUP).exists()
    assert stops == 5, "three members and two soups"
    assert Manifest.read(folder / SOUP).id == Manifest.read(souped[0] / SOUP).id


@pytest.mark.slow
def test_a_refit_trains_its_ingredients_and_averages_them(
    souped: tuple[Path, Said], weights: Path, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(souped[0], tmp_path / "run"))
    run_all(limited(tiny, weights, "final.refit=true"), folder)
    said = RefitMetrics.of(Manifest.read(folder / REFIT))
    first = TrainedMetrics.of(Manifest.read(folder / TEACHER))
    ingredients = TrainedMetrics.of(Manifest.read(folder / SOUP)).ingredients or ()
    assert said.name == SOUP
    assert said.parts[SOUP].image_passes == first.image_passes * len(ingredients) // 3
    assert said.gmacs == TrainedMetrics.of(Manifest.read(folder / SOUP)).gmacs
    again = Ensemble.load(Artifact(folder / REFIT), Placement(torch.device("cpu"), "float32"))
    assert len(again.members) == 1
    assert Classifier.load(folder).id == Manifest.read(folder / REFIT).id
