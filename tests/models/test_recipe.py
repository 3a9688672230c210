"""What model.json says, and what becomes of it."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nstudent.config.schema import Config, ModelConfig
from nstudent.errors import ArtifactError, ConfigError
from nstudent.labels.path_posterior import Calibration, PathPosterior
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.recipe import MODEL, Recipe
from nstudent.storage.artifact import MANIFEST, Artifact
from nstudent.storage.files import sha256_of
from nstudent.taxonomy.tree import Taxonomy

TREE = Taxonomy.from_tree({"A": {"A1": ["a", "b"], "A2": ["c"]}, "B": {"B1": ["d", "e"]}}, ("coarse", "mid", "fine"))
RECIPE = Recipe.of(Config(), TREE, [ModelConfig()] * 2)

OLD_MEMBER = """{
    "backbones": ["test_resnet"],
    "backbone_options": {},
    "wide_channels": 0,
    "pretrained": false,
    "head": "fine_to_coarse",
    "head_width": 64
}"""
OLD = """{
  "members": [MEMBER, MEMBER],
  "taxonomy": {
    "levels": ["coarse", "mid", "fine"],
    "classes": [["A", "B"], ["A1", "A2", "B1"], ["a", "b", "c", "d", "e"]],
    "parents": [[], [0, 0, 1], [0, 0, 1, 2, 2]],
    "terminals": [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [1, 2, 4]]
  },
  "absent": "ignore",
  "image_size": 32,
  "max_pixels": 64000000,
  "precision": "auto"
}""".replace("MEMBER", OLD_MEMBER)
"""What the first version wrote."""


def changed(**keys: Any) -> dict[str, Any]:
    return RECIPE.to_json() | keys


def test_a_recipe_survives_json() -> None:
    whole = Recipe.from_json(
        changed(weights=[1.0, 2.5], temperatures=[0.5, 1.0, 2.0], ends=[-1.5, 0.25, 0.0], absent="class")
    )

    assert Recipe.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    assert whole.weights == (1.0, 2.5)
    assert whole.temperatures == (0.5, 1.0, 2.0)
    assert whole.ends == (-1.5, 0.25, 0.0)
    assert whole.calibration == Calibration((0.5, 1.0, 2.0), (-1.5, 0.25, 0.0))
    assert whole.outputs.taxonomy == TREE
    assert whole.outputs.absent == "class"
    assert whole.outputs.sizes == (2, 3, 5)


def test_a_recipe_has_what_the_configuration_says() -> None:
    config = Config.model_validate({"absent": "class", "precision": "bfloat16", "data": {"image_size": 48}})

    recipe = Recipe.of(config, TREE, [ModelConfig(head_width=3)])

    assert (recipe.absent, recipe.precision, recipe.image_size) == ("class", "bfloat16", 48)
    assert recipe.max_pixels == config.data.max_pixels
    assert [member.head_width for member in recipe.members] == [3]
    assert (recipe.weights, recipe.temperatures, recipe.decoder, recipe.link) == (None, None, "best_path", "softmax")


def test_the_file_of_an_earlier_version_means_what_it_meant() -> None:
    assert Recipe.from_json(json.loads(OLD)) == RECIPE
    oldest = {key: value for key, value in json.loads(OLD).items() if key != "precision"}
    assert Recipe.from_json(oldest) == RECIPE


def test_a_folder_of_an_earlier_version_loads_and_predicts_the_same(
    make_ensemble: Callable[..., Ensemble],
    committed: Callable[[Ensemble], Artifact],
    noise_images: Callable[[int], np.ndarray],
    cpu: Placement,
) -> None:
    ensemble, images = make_ensemble(1, 2), noise_images(4)
    folder = committed(ensemble).folder
    (folder / MODEL).write_text(OLD)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][MODEL] = {"sha256": sha256_of(folder / MODEL), "bytes": (folder / MODEL).stat().st_size}
    (folder / MANIFEST).write_text(json.dumps(manifest))

    loaded = Ensemble.load(Artifact(folder), cpu)

    for mine, theirs in zip(loaded.probabilities(images), ensemble.probabilities(images), strict=True):
        assert mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(
    "damaged", [None, [], {}, {"members": 3}, {"members": [{"backbone": "x"}]}], ids=lambda value: repr(value)
)
def test_what_is_not_a_recipe_is_refused(damaged: Any) -> None:
    with pytest.raises(ArtifactError, match=r"model\.json does not describe a model"):
        Recipe.from_json(damaged)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"image_size": 4}, "image_size is 4: input should be greater than or equal to 8"),
        ({"members": [{"head": "steep"}]}, r"members\.0\.head is 'steep'"),
        ({"members": [{}] * 257}, "at most 256"),
        ({"weights": [1.0]}, "weights has 1 numbers for 2 members"),
        ({"weights": [1.0, 0.0]}, r"weights\.1 is 0\.0"),
        ({"weights": [1.0, "2"]}, r"weights\.1 is '2'"),
        ({"temperatures": [1.0, 1.0]}, "temperatures has 2 numbers for 3 levels"),
        ({"temperatures": [1.0, 1.0, 0.0]}, r"temperatures\.2 is 0\.0"),
        ({"ends": [0.0, 0.0]}, "ends has 2 numbers for 3 levels"),
        ({"ends": [0.0, -101.0, 0.0]}, r"ends\.1 is -101\.0"),
        ({"ends": [0.0, "1", 0.0]}, r"ends\.1 is '1'"),
        ({"decoder": "worst_path"}, "decoder: there is no 'worst_path': choose from best_path, expected_score"),
        ({"link": "probit"}, "link: there is no 'probit': choose from softmax"),
        ({"wieghts": [1.0, 2.0]}, "wieghts: there is no such key .did you mean 'weights'"),
        ({"taxonomy": {"levels": []}}, "taxonomy is not a taxonomy"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_value_is_named(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        Recipe.from_json(changed(**keys))


def test_a_recipe_that_is_made_of_unknown_names_is_an_error_too() -> None:
    with pytest.raises(ConfigError, match="decoder: there is no 'worst_path'"):
        Recipe(**{**dict(RECIPE), "decoder": "worst_path"})


def pooled(ensemble: Ensemble, images: np.ndarray, **keys: Any) -> tuple[np.ndarray, ...]:
    recipe = ensemble.recipe.model_copy(update=keys)
    return Ensemble(recipe, ensemble.members, ensemble._placement).probabilities(images)


def test_weights_count_votes(make_ensemble: Callable[..., Ensemble], noise_images: Callable[[int], np.ndarray]) -> None:
    images = noise_images(4)
    first, second = (make_ensemble(seed).probabilities(images) for seed in (1, 2))

    found = pooled(make_ensemble(1, 2), images, weights=(3.0, 1.0))

    for level, a, b in zip(found, first, second, strict=True):
        np.testing.assert_allclose(level, 0.75 * a + 0.25 * b, atol=1e-6)
        np.testing.assert_allclose(level.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("weights", [None, (1.0, 1.0), (0.3, 0.3)])
def test_equal_weights_change_no_bit(
    weights: tuple[float, ...] | None,
    make_ensemble: Callable[..., Ensemble],
    noise_images: Callable[[int], np.ndarray],
) -> None:
    ensemble, images = make_ensemble(1, 2), noise_images(4)
    plain = [level.tobytes() for level in ensemble.probabilities(images)]

    found = pooled(ensemble, images, weights=weights)

    assert [level.tobytes() for level in found] == plain


@pytest.mark.parametrize(
    ("keys", "meant"),
    [
        ({"temperatures": (0.5, 1.0, 2.0), "ends": (1.0, 0.5, 0.0)}, Calibration((0.5, 1.0, 2.0), (1.0, 0.5, 0.0))),
        ({"temperatures": (0.5, 1.0, 2.0)}, Calibration((0.5, 1.0, 2.0), (0.0, 0.0, 0.0))),
        ({"ends": (1.0, 0.5, 0.0)}, Calibration((1.0, 1.0, 1.0), (1.0, 0.5, 0.0))),
    ],
    ids=["both", "temperatures", "ends"],
)
def test_a_calibration_is_that_of_the_pooled_distribution(
    keys: dict[str, Any],
    meant: Calibration,
    make_ensemble: Callable[..., Ensemble],
    noise_images: Callable[[int], np.ndarray],
) -> None:
    ensemble, images = make_ensemble(1, 2), noise_images(4)
    raw = ensemble.pooled(ensemble.images(torch.from_numpy(images)))

    found = pooled(ensemble, images, **keys)

    for level, wanted in zip(found, PathPosterior(ensemble.recipe.outputs, meant).marginals(raw), strict=True):
        np.testing.assert_allclose(level, wanted.numpy(), atol=1e-6)


def test_a_recipe_names_normalised_logits_only_if_a_network_has_them() -> None:
    """So model.json, and what is made from it, is what it was before there was the key."""
    kept = Recipe.of(Config(), TREE, [ModelConfig(), ModelConfig(logit_norm=0.04)]).to_json()
    assert ["logit_norm" in member for member in kept["members"]] == [False, True]
    assert [member.logit_norm for member in Recipe.from_json(kept).members] == [None, 0.04]  # type: ignore[attr-defined]
