from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nstudent.config.schema import Config, ModelConfig
from nstudent.errors import ArtifactError, ConfigError
from nstudent.labels.path_posterior import Calibration, PathPosterior
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble, pool_ensembles
from nstudent.models.network import build_network
from nstudent.models.recipe import Recipe
from nstudent.storage.artifact import Artifact
from nstudent.storage.commit import commit, open_partial
from nstudent.taxonomy.tree import Taxonomy
from safetensors.torch import load_file, save_file


def test_probabilities_sum_to_one_at_every_level(
    make_ensemble: Callable[..., Ensemble], noise_images: Callable[[int], np.ndarray]
) -> None:
    probabilities = make_ensemble(1, 2).probabilities(noise_images(5))
    assert [level.shape for level in probabilities] == [(5, 2), (5, 3), (5, 5)]
    for level in probabilities:
        assert level.dtype == np.float32
        assert (level > 0).all()
        np.testing.assert_allclose(level.sum(axis=1), 1.0, atol=1e-6)


def test_members_vote_with_the_mean_of_their_probabilities(
    make_ensemble: Callable[..., Ensemble], noise_images: Callable[[int], np.ndarray]
) -> None:
    images = noise_images(4)
    together = make_ensemble(1, 2).probabilities(images)
    first, second = (make_ensemble(seed).probabilities(images) for seed in (1, 2))
    for both, a, b in zip(together, first, second, strict=True):
        assert np.abs(a - b).max() > 1e-3
        np.testing.assert_allclose(both, (a + b) / 2, atol=1e-7)


CALIBRATION = Calibration((2.0, 0.7, 1.5), (0.5, -0.5, 0.0))


def test_a_calibrated_ensemble_gives_the_levels_of_its_posterior(
    make_ensemble: Callable[..., Ensemble], noise_images: Callable[[int], np.ndarray]
) -> None:
    raw = make_ensemble(1, 2)
    images = raw.images(torch.from_numpy(noise_images(4)))
    calibrated = raw.calibrated(CALIBRATION)

    wanted = PathPosterior(raw.recipe.outputs, CALIBRATION).marginals(raw.vote(images))
    for found, level in zip(calibrated.vote(images), wanted, strict=True):
        assert torch.equal(found, level)
    for found, level in zip(calibrated.pooled(images), raw.vote(images), strict=True):
        assert torch.equal(found, level)
    assert calibrated.recipe.decoder == "expected_score"
    assert calibrated.members == raw.members


def test_without_its_calibration_an_ensemble_is_what_it_was(make_ensemble: Callable[..., Ensemble]) -> None:
    raw = make_ensemble(1, 2)

    again = raw.calibrated(CALIBRATION).calibrated(None)

    assert again.recipe == raw.recipe
    assert again.recipe.calibration is None


def test_a_calibration_is_saved_with_the_ensemble(
    make_ensemble: Callable[..., Ensemble],
    committed: Callable[[Ensemble], Artifact],
    noise_images: Callable[[int], np.ndarray],
    cpu: Placement,
) -> None:
    calibrated = make_ensemble(1).calibrated(CALIBRATION)

    loaded = Ensemble.load(committed(calibrated), cpu)

    assert loaded.recipe.calibration == CALIBRATION
    for before, after in zip(
        calibrated.probabilities(noise_images(3)), loaded.probabilities(noise_images(3)), strict=True
    ):
        assert before.tobytes() == after.tobytes()


def test_a_pool_of_ensembles_is_the_weighted_mean_of_what_they_say_raw(
    make_ensemble: Callable[..., Ensemble], noise_images: Callable[[int], np.ndarray]
) -> None:
    two, one = make_ensemble(1, 2), make_ensemble(3)
    images = two.images(torch.from_numpy(noise_images(4)))

    pool = pool_ensembles([two.calibrated(CALIBRATION), one], [3.0, 1.0])

    assert len(pool.recipe.members) == len(pool.members) == 3
    assert pool.recipe.weights == (1.5, 1.5, 1.0)
    assert pool.recipe.calibration is None
    for found, a, b in zip(pool.vote(images), two.pooled(images), one.pooled(images), strict=True):
        assert torch.allclose(found, 0.75 * a + 0.25 * b, atol=1e-6)


def test_a_pool_of_a_pool_keeps_the_votes_of_its_members(
    make_ensemble: Callable[..., Ensemble], noise_images: Callable[[int], np.ndarray]
) -> None:
    first, second, third = (make_ensemble(seed) for seed in (1, 2, 3))

    pool = pool_ensembles([pool_ensembles([first, second], [1.0, 4.0]), third], [0.5, 0.5])

    assert pool.recipe.weights == pytest.approx((0.1, 0.4, 0.5))


def test_the_members_of_a_pool_keep_their_own_settings(cpu: Placement) -> None:
    taxonomy = Taxonomy.from_tree({"A": ["a", "b"]}, ("coarse", "fine"))
    ensembles = []
    for width in (16, 32):
        settings = ModelConfig(head_width=width)
        recipe = Recipe.of(Config(), taxonomy, [settings])
        network = build_network(settings, recipe.outputs, (width,))
        ensembles.append(Ensemble.of_networks(recipe, [network], cpu))

    pool = pool_ensembles(ensembles, [1.0, 1.0])

    assert [settings.head_width for settings in pool.recipe.members] == [16, 32]


def test_ensembles_of_different_taxonomies_are_not_pooled(
    make_ensemble: Callable[..., Ensemble], cpu: Placement
) -> None:
    first = make_ensemble(1)
    taxonomy = Taxonomy.from_tree({"A": ["a", "b"]}, ("coarse", "fine"))
    recipe = Recipe.of(Config(), taxonomy, [ModelConfig()])
    other = Ensemble.of_networks(recipe, [build_network(ModelConfig(), recipe.outputs, (2,))], cpu)

    with pytest.raises(ConfigError, match="cannot be pooled: they differ in taxonomy"):
        pool_ensembles([first, other], [1.0, 1.0])


def test_the_same_image_is_labelled_bit_identically_though_the_network_came_in_training_mode(
    make_ensemble: Callable[..., Ensemble], noise_images: Callable[[int], np.ndarray], cpu: Placement
) -> None:
    noised = make_ensemble(1, dropout=0.5)
    member = noised.members[0].network.train()
    images = torch.from_numpy(noise_images(3)).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        assert not torch.equal(member(images)[2], member(images)[2]), "in training mode two passes differ"
    labeller = Ensemble.of_networks(noised.recipe, [member], cpu)
    first, second = (labeller.probabilities(noise_images(3)) for _ in range(2))
    assert [level.tobytes() for level in first] == [level.tobytes() for level in second]


def test_labelling_leaves_the_weights_alone(
    make_ensemble: Callable[..., Ensemble], noise_images: Callable[[int], np.ndarray]
) -> None:
    ensemble = make_ensemble(1)
    before = {name: value.clone() for name, value in ensemble.members[0].network.state_dict().items()}
    ensemble.probabilities(noise_images(3))
    assert all(torch.equal(value, before[name]) for name, value in ensemble.members[0].network.state_dict().items())


def test_a_saved_ensemble_predicts_bit_identically(
    make_ensemble: Callable[..., Ensemble],
    committed: Callable[[Ensemble], Artifact],
    noise_images: Callable[[int], np.ndarray],
    cpu: Placement,
    run_folder_files: Callable[[Path], list[str]],
) -> None:
    ensemble = make_ensemble(1, 2)
    artifact = committed(ensemble)
    assert run_folder_files(artifact.folder) == [
        "manifest.json",
        "member-0.safetensors",
        "member-1.safetensors",
        "model.json",
    ]
    loaded = Ensemble.load(artifact, cpu)
    assert loaded.recipe == ensemble.recipe
    for before, after in zip(
        ensemble.probabilities(noise_images(6)), loaded.probabilities(noise_images(6)), strict=True
    ):
        assert before.tobytes() == after.tobytes()


def test_the_same_ensemble_is_saved_as_the_same_bytes(make_ensemble: Callable[..., Ensemble], tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make_ensemble(1).save(tmp_path / name)
    for name in ("model.json", "member-0.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_file_changed_on_disk_is_refused(
    make_ensemble: Callable[..., Ensemble], committed: Callable[[Ensemble], Artifact], cpu: Placement
) -> None:
    folder = committed(make_ensemble(1)).folder
    weights = folder / "member-0.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"member-0\.safetensors has changed"):
        Ensemble.load(Artifact(folder), cpu)


def test_a_missing_file_is_refused(
    make_ensemble: Callable[..., Ensemble], committed: Callable[[Ensemble], Artifact], cpu: Placement
) -> None:
    folder = committed(make_ensemble(1)).folder
    (folder / "member-0.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"member-0\.safetensors is missing"):
        Ensemble.load(Artifact(folder), cpu)


def drop_a_tensor(path: Path) -> None:
    weights = load_file(path)
    weights.pop(next(name for name in weights if name.endswith("conv1.0.weight")))
    save_file(weights, path)


def reshape_a_tensor(path: Path) -> None:
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("classify.0.bias"))
    save_file(weights | {name: torch.zeros(9)}, path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x80\x04pickle"),
        lambda path: path.write_bytes(path.read_bytes()[:-10]),
        drop_a_tensor,
        reshape_a_tensor,
    ],
    ids=["empty", "garbage", "truncated", "a tensor missing", "another shape"],
)
def test_weights_that_were_committed_damaged_are_refused(
    damage: Callable[[Path], object], make_ensemble: Callable[..., Ensemble], tmp_path: Path, cpu: Placement
) -> None:
    folder = tmp_path / "01-teacher"
    partial = open_partial(folder, "by hand")
    make_ensemble(1).save(partial)
    damage(partial / "member-0.safetensors")
    fields = {
        "stage": "teacher",
        "role": "labeller",
        "round": 0,
        "asked": {},
        "inputs": {},
        "metrics": {},
        "seconds": 0.0,
    }
    with pytest.raises(ArtifactError, match=r"member-0\.safetensors does not hold the weights of"):
        Ensemble.load(commit(folder, fields), cpu)


def test_the_temperature_of_a_member_acts_before_the_members_are_pooled(
    make_ensemble: Callable[..., Ensemble], noise_images: Callable[[int], np.ndarray]
) -> None:
    images, both = noise_images(4), make_ensemble(1, 2)
    apart = [both.alone(number).probabilities(images) for number in (0, 1)]
    found = both.with_member_temperatures([(0.5, 1, 1), (1, 1, 2)]).probabilities(images)
    coarse = apart[0][0] ** 2 / (apart[0][0] ** 2).sum(axis=1, keepdims=True)
    fine = apart[1][2] ** 0.5 / (apart[1][2] ** 0.5).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[0], (coarse + apart[1][0]) / 2, atol=1e-6)
    np.testing.assert_allclose(found[1], (apart[0][1] + apart[1][1]) / 2, atol=1e-6)
    np.testing.assert_allclose(found[2], (apart[0][2] + fine) / 2, atol=1e-6)


def test_pooled_ensembles_keep_the_temperatures_of_their_members(
    make_ensemble: Callable[..., Ensemble], noise_images: Callable[[int], np.ndarray]
) -> None:
    images = noise_images(4)
    sharp, plain = make_ensemble(1).with_member_temperatures([(0.5, 0.5, 0.5)]), make_ensemble(2)
    found = pool_ensembles([sharp, plain], [3.0, 1.0])
    assert found.recipe.member_temperatures == ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
    for pooled, first, second in zip(
        found.probabilities(images), sharp.probabilities(images), plain.probabilities(images), strict=True
    ):
        np.testing.assert_allclose(pooled, 0.75 * first + 0.25 * second, atol=1e-6)


def test_a_member_alone_is_as_it_was_trained(make_ensemble: Callable[..., Ensemble]) -> None:
    alone = make_ensemble(1, 2).with_member_temperatures([(0.5, 1, 1), (1, 1, 2)]).alone(1)
    assert alone.recipe.member_temperatures is None
    assert len(alone.members) == len(alone.recipe.members) == 1


@pytest.mark.parametrize("given", [[(1.0, 1.0, 1.0)], [(1.0, 1.0), (1.0, 1.0)], [(1.0, 1.0, 0.0), (1.0, 1.0, 1.0)]])
def test_a_recipe_has_a_temperature_for_every_member_and_level(
    make_ensemble: Callable[..., Ensemble], given: list[tuple[float, ...]]
) -> None:
    with pytest.raises(ValueError, match="member_temperatures"):
        make_ensemble(1, 2).with_member_temperatures(given)


def highest(own: torch.Tensor, below: torch.Tensor, children: list[list[int]]) -> torch.Tensor:
    """The larger of each column and of the columns of its children."""
    return torch.stack([torch.maximum(own[:, k], below[:, of].amax(dim=1)) for k, of in enumerate(children)], dim=1)


def test_networks_of_the_max_constrained_loss_are_read_by_its_link_also_when_they_are_loaded(
    make_ensemble: Callable[..., Ensemble],
    committed: Callable[[Ensemble], Artifact],
    noise_images: Callable[[int], np.ndarray],
    cpu: Placement,
) -> None:
    plain = make_ensemble(1)
    constrained = Config.model_validate({"teacher": {"loss": "mcm"}, "student": {"loss": "mcm"}})
    recipe = Recipe.of(constrained, plain.recipe.taxonomy, [ModelConfig()])
    ensemble = Ensemble.of_networks(recipe, [plain.members[0].network], cpu)

    loaded = Ensemble.load(committed(ensemble), cpu)

    images = plain.images(torch.from_numpy(noise_images(4)))
    with torch.no_grad():
        coarse, mid, fine = plain.members[0].network(images)
    # The toy tree: A1 has the first two fine classes, A2 the third, B1 the rest; A has A1 and A2.
    mid = highest(mid, fine, [[0, 1], [2], [3, 4]])
    coarse = highest(coarse, mid, [[0, 1], [2]])
    for found, logits in zip(loaded.probabilities(noise_images(4)), (coarse, mid, fine), strict=True):
        np.testing.assert_allclose(found, logits.softmax(dim=1).numpy(), atol=1e-6)
    with pytest.raises(ConfigError, match="they differ in link"):
        pool_ensembles([plain, loaded], [1.0, 1.0])
