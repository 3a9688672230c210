"""An ensemble takes whatever gives distributions for images: here networks, and the nearest mean of pixels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nearest_mean import NearestMean, PixelMeans, add_nearest_mean, expected_means
from nstudent.config.members import MEMBERS, kind_of
from nstudent.config.schema import Config, ModelConfig
from nstudent.errors import ArtifactError, ConfigError
from nstudent.models.cost import check_cost
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.inference import predict
from nstudent.models.kinds import KINDS
from nstudent.models.members import read_tensors
from nstudent.models.network import build_network
from nstudent.models.network_member import NetworkMember
from nstudent.models.pooling import POOLINGS, mean
from nstudent.models.recipe import MODEL, Recipe
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.tree import Taxonomy
from safetensors.torch import save_file

TREE = Taxonomy.from_tree({"A": {"A1": ["a", "b"], "A2": ["c"]}, "B": {"B1": ["d", "e"]}}, ("coarse", "mid", "fine"))


@pytest.fixture(autouse=True)
def nearest_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    add_nearest_mean(monkeypatch)


@pytest.fixture
def recipe(nearest_mean: None) -> Recipe:
    return Recipe.of(Config(), TREE, [ModelConfig(), PixelMeans()])


@pytest.fixture
def mixed(recipe: Recipe, cpu: Placement) -> Ensemble:
    """A network and the nearest mean, side by side."""
    network = NetworkMember(build_network(ModelConfig(), recipe.outputs, ("key",)), recipe.link, recipe.outputs, cpu)
    source, wanted = torch.Generator().manual_seed(0), expected_means(PixelMeans(), recipe.outputs)
    means = {name: torch.rand(like.shape, generator=source) for name, like in wanted.items()}
    return Ensemble(recipe, [network, NearestMean(PixelMeans(), means)], cpu)


class Pixels:
    """Images in memory, as labelling reads them."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = images

    def read_into(self, ids: np.ndarray, out: np.ndarray) -> None:
        out[:] = self._images[ids]


def test_a_network_and_another_kind_vote_together(
    mixed: Ensemble, noise_images: Callable[[int], np.ndarray], cpu: Placement
) -> None:
    images = cpu.images(torch.from_numpy(noise_images(5)))
    with torch.inference_mode():
        first, second = (member.distributions(images) for member in mixed.members)

    for level, a, b in zip(mixed.vote(images), first, second, strict=True):
        assert (a - b).abs().max() > 1e-3
        torch.testing.assert_close(level, (a + b) / 2)


def test_many_images_are_labelled_by_both(mixed: Ensemble, noise_images: Callable[[int], np.ndarray]) -> None:
    images = noise_images(7)
    mixed.compile()

    found: Any = predict(mixed, Pixels(images), np.arange(7), 3)  # type: ignore[arg-type]

    for level, whole in zip(found, mixed.probabilities(images), strict=True):
        np.testing.assert_allclose(level, whole, atol=1e-5)


def test_a_saved_ensemble_of_several_kinds_is_the_same_when_it_is_loaded(
    mixed: Ensemble,
    committed: Callable[[Ensemble], Artifact],
    noise_images: Callable[[int], np.ndarray],
    cpu: Placement,
) -> None:
    artifact = committed(mixed)
    entries = json.loads((artifact.folder / MODEL).read_text())["members"]
    assert [entry["kind"] for entry in entries] == ["network", "nearest_mean"]
    assert entries[1] == {"kind": "nearest_mean", "side": 4}

    loaded = Ensemble.load(artifact, cpu)

    assert loaded.recipe == mixed.recipe
    assert [type(member) for member in loaded.members] == [NetworkMember, NearestMean]
    images = noise_images(4)
    for mine, theirs in zip(loaded.probabilities(images), mixed.probabilities(images), strict=True):
        assert mine.tobytes() == theirs.tobytes()


def test_the_cost_is_the_sum_of_all_kinds_and_has_a_limit(mixed: Ensemble) -> None:
    network, means = mixed.members
    by_hand = (2 + 3 + 5) * 3 * 4 * 4 / 1e9
    assert means.gmacs(32) == by_hand
    assert mixed.gmacs == network.gmacs(32) + by_hand

    def cost(size: int) -> float:
        return sum(member.gmacs(size) for member in mixed.members)

    assert check_cost(cost, 32, None) == mixed.gmacs
    with pytest.raises(ConfigError, match=r"max_gmacs.*data\.image_size=24 fits"):
        check_cost(cost, 32, 0.99 * mixed.gmacs)


def test_tensors_that_do_not_fit_their_settings_are_refused(
    mixed: Ensemble, committed: Callable[[Ensemble], Artifact], cpu: Placement
) -> None:
    wider = mixed.recipe.model_copy(update={"members": (ModelConfig(), PixelMeans(side=5))})
    artifact = committed(Ensemble(wider, mixed.members, cpu))

    with pytest.raises(ArtifactError, match=r"member-1\.safetensors does not hold the weights of the means: level-0"):
        Ensemble.load(artifact, cpu)


@pytest.mark.parametrize(("held", "said"), [("a", "b is missing"), ("abc", "c is not one of them")])
def test_a_tensor_too_few_and_one_too_many_are_told_apart(held: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "member-0.safetensors"
    save_file({name: torch.ones(2) for name in held}, path)
    with pytest.raises(ArtifactError, match=f"does not hold the weights of it: {said}"):
        read_tensors(path, {"a": torch.ones(2), "b": torch.ones(2)}, "it")


@pytest.mark.parametrize("damage", ["missing", "one more", "another type", "another shape", "not finite"])
def test_only_the_tensors_that_are_expected_are_read(damage: str, tmp_path: Path) -> None:
    good = {"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.int64)}
    path = tmp_path / "member-0.safetensors"
    save_file(good, path)
    assert read_tensors(path, good, "it").keys() == good.keys()
    bad = {
        "missing": {"b": good["b"]},
        "one more": good | {"c": torch.ones(1)},
        "another type": good | {"b": torch.zeros(4)},
        "another shape": good | {"a": torch.ones(3, 2)},
        "not finite": good | {"a": torch.full((2, 3), torch.nan)},
    }[damage]
    save_file(bad, path)

    with pytest.raises(ArtifactError, match=r"member-0\.safetensors does not hold the weights of it: [abc] is "):
        read_tensors(path, good, "it")


def test_a_member_without_a_kind_is_a_network() -> None:
    recipe = Recipe.of(Config(), TREE, [ModelConfig(head_width=7)])
    entry = recipe.to_json()["members"][0]
    assert entry.pop("kind") == "network"

    assert Recipe.from_json(recipe.to_json() | {"members": [entry]}) == recipe


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"kind": "oracle"}, r"members\.0: kind: there is no 'oracle': choose from network, probe, nearest_mean"),
        ({"kind": ["network"]}, "kind: there is no"),
        ({"kind": "nearest_mean", "side": 0}, r"members\.0\.side is 0"),
        ({"kind": "nearest_mean", "head": "independent"}, r"members\.0\.head: there is no such key"),
        ("network", r"members\.0: 'network' is not a group of keys"),
    ],
    ids=str,
)
def test_an_entry_that_describes_no_member_is_refused(entry: object, said: str, recipe: Recipe) -> None:
    with pytest.raises(ArtifactError, match=said):
        Recipe.from_json(recipe.to_json() | {"members": [entry]})


def test_every_kind_of_the_configuration_can_be_fitted_and_loaded() -> None:
    assert list(KINDS) == list(MEMBERS)


def test_settings_of_no_kind_are_an_error() -> None:
    with pytest.raises(
        ConfigError, match="Config describes no kind of member: choose from network, probe, nearest_mean"
    ):
        kind_of(Config())


def test_another_rule_of_pooling_is_a_row_in_the_table(
    mixed: Ensemble, monkeypatch: pytest.MonkeyPatch, noise_images: Callable[[int], np.ndarray], cpu: Placement
) -> None:
    monkeypatch.setitem(POOLINGS, "first", lambda votes, weights: votes[0])
    recipe = Recipe.from_json(mixed.recipe.to_json() | {"pooling": "first"})

    found = Ensemble(recipe, mixed.members, cpu).probabilities(noise_images(3))

    alone = Ensemble(mixed.recipe, mixed.members[:1], cpu).probabilities(noise_images(3))
    for level, only in zip(found, alone, strict=True):
        assert level.tobytes() == only.tobytes()


def test_a_rule_of_pooling_that_there_is_not_is_an_error(recipe: Recipe) -> None:
    with pytest.raises(ArtifactError, match="pooling: there is no 'median': choose from mean"):
        Recipe.from_json(recipe.to_json() | {"pooling": "median"})


def test_the_mean_of_one_vote_is_the_vote_itself() -> None:
    vote = torch.rand(3, 4)
    assert mean([vote], (0.3,)) is vote
