"""Probes as members of an ensemble: what they say, how they are fitted, and how they are kept."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nstudent.config.members import ProbeConfig
from nstudent.config.schema import Config
from nstudent.data.batches import Examples
from nstudent.errors import ArtifactError, ConfigError, RefusedError
from nstudent.labels.path_tree import PathTree
from nstudent.labels.targets import GivenTargets
from nstudent.models import kernel_ridge, probe_member, regression
from nstudent.models import probe as probe_module
from nstudent.models.device import Placement
from nstudent.models.ensemble import Ensemble
from nstudent.models.kinds import kind_for
from nstudent.models.members import FitInputs
from nstudent.models.probe import Probe, build_features
from nstudent.models.probe_member import ProbeMember
from nstudent.models.recipe import Recipe
from nstudent.models.regression import Matrix, Solution
from nstudent.progress import Silence
from nstudent.storage.artifact import Artifact
from nstudent.taxonomy.outputs import Outputs
from nstudent.taxonomy.tree import ABSENT, UNKNOWN, Taxonomy
from safetensors.torch import save_file
from sklearn.kernel_approximation import Nystroem

# B2 has no fine class.
LABELS = [("A", "A1", "a"), ("A", "A1", "b"), ("A", "A2", "c"), ("B", "B1", "d"), ("B", "B2", "-")]
TREE = Taxonomy.from_labels(LABELS, ("coarse", "mid", "fine"))
SIDE = 16


def pictures(label: np.ndarray, seed: int = 0, noise: float = 0.1) -> np.ndarray:
    """uint8 (images, side, side, 3): a picture for each label, and noise."""
    random = np.random.default_rng(99)
    clean = np.repeat(np.repeat(random.random((len(LABELS), 4, 4, 3)), 4, axis=1), 4, axis=2)
    noisy = clean[label] + noise * np.random.default_rng(seed).normal(size=(len(label), SIDE, SIDE, 3))
    return np.asarray(255 * np.clip(noisy, 0, 1)).astype(np.uint8)


class Pixels:
    """Images in memory."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = images

    def __getitem__(self, ids: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._images[ids]
        return found


@pytest.fixture
def inputs(cpu: Placement) -> FitInputs:
    """Sixty labelled pictures."""
    label = np.arange(60) % len(LABELS)
    outputs = Outputs(TREE)
    return FitInputs(
        name="probe",
        examples=Examples(np.arange(60), GivenTargets(TREE.terminal_rows[_terminal(label)], outputs)),
        pixels=Pixels(pictures(label)),  # type: ignore[arg-type]
        outputs=outputs,
        placement=cpu,
        key=("a test",),
        progress=Silence(),
        networks=None,  # type: ignore[arg-type]
    )


def _terminal(label: np.ndarray) -> np.ndarray:
    rows = [TREE.terminal_rows.tolist().index(list(TREE.encode(LABELS[each]))) for each in label]
    return np.array(rows)


def fit(inputs: FitInputs, **settings: object) -> ProbeMember:
    config = ProbeConfig.model_validate(settings)
    member = kind_for(config).fit(config, inputs).member
    assert isinstance(member, ProbeMember)
    return member


def images(label: np.ndarray, seed: int = 1) -> torch.Tensor:
    return Placement(torch.device("cpu"), "float32").images(torch.from_numpy(pictures(label, seed)))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"regression": "logistic"}, {"features": "both"}, {"features": "backbones"}])
def test_it_knows_pictures_that_are_like_those_it_was_fitted_to(settings: dict[str, str], inputs: FitInputs) -> None:
    label = np.arange(20) % len(LABELS)
    coarse, mid, fine = fit(inputs, **settings).distributions(images(label))
    wanted = TREE.terminal_rows[_terminal(label)]
    for level, said in enumerate((coarse, mid, fine)):
        known = wanted[:, level] != ABSENT
        assert (said.argmax(dim=1).numpy() == wanted[:, level])[known].mean() > 0.9
        torch.testing.assert_close(said.sum(dim=1), torch.ones(20))


def test_a_class_is_as_probable_as_all_paths_through_it(inputs: FitInputs) -> None:
    member = fit(inputs)
    shown = images(np.arange(10) % len(LABELS))
    coarse, mid, _ = member.distributions(shown)
    parents = torch.tensor(TREE.parents[1])
    for parent in range(2):
        torch.testing.assert_close(mid[:, parents == parent].sum(dim=1), coarse[:, parent], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["kernel_ridge", "logistic"])
def test_the_module_says_what_the_regression_says(kind: str, inputs: FitInputs) -> None:
    random = np.random.default_rng(0)
    features = build_features(ProbeConfig())
    width, paths = features.width, 5
    anchors = random.normal(size=(7, width)) if kind == "kernel_ridge" else None
    solution = Solution(random.normal(size=(7 if anchors is not None else width, paths)), np.arange(5.0), anchors, 1e-3)
    shown = images(np.arange(9) % len(LABELS))
    with torch.inference_mode():
        found = features(shown).double().numpy()
        np.testing.assert_allclose(Probe.of(features, solution)(shown).numpy(), solution.scores(found), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"regression": "logistic"}, {"features": "both"}])
def test_an_answer_does_not_depend_on_the_batch(
    settings: dict[str, str], inputs: FitInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    member, shown = fit(inputs, **settings), images(np.arange(33) % len(LABELS))
    whole = member.distributions(shown)
    monkeypatch.setattr(probe_module, "_CELLS_AT_ONCE", 200)
    for size in (1, 7, 33):
        parts = [member.distributions(part) for part in shown.split(size)]
        for level, joined in zip(whole, zip(*parts, strict=True), strict=True):
            assert (level - torch.cat(joined)).abs().max() < 1e-5


@pytest.mark.slow
def test_mirror_images_are_learnt_where_held_out_labels_say_so(inputs: FitInputs) -> None:
    """Half of the pictures of each label are mirror images of the others, in an order that folds do not see."""
    label = np.arange(60) % len(LABELS)
    pixels = pictures(label, noise=0.02)
    turned = np.random.default_rng(3).random(60) < 0.15
    pixels[turned] = pixels[turned][:, :, ::-1]
    mirrored = replace(inputs, pixels=Pixels(pixels))  # type: ignore[arg-type]
    assert len(_anchors(fit(mirrored))) == 120
    # A picture whose mirror image is that of the next label must not learn from it.
    pairs = np.arange(60) % 2
    arrows = pictures(np.zeros(60, dtype=int), noise=0.02)
    arrows[pairs == 1] = arrows[pairs == 1][:, :, ::-1]
    targets = GivenTargets(TREE.terminal_rows[_terminal(pairs)], inputs.outputs)
    handed = replace(inputs, pixels=Pixels(arrows), examples=Examples(np.arange(60), targets))  # type: ignore[arg-type]
    assert len(_anchors(fit(handed))) == 60
    assert len(_anchors(fit(handed, mirror=True))) == 120
    assert len(_anchors(fit(mirrored, mirror=False))) == 60


@pytest.mark.slow
def test_it_says_whether_images_may_be_mirrored(inputs: FitInputs) -> None:
    """Unless labels are clearly less likely with mirror images, they may; of arrows they may not."""
    assert _mirrored(inputs) is True
    pairs = np.arange(60) % 2
    arrows = pictures(np.zeros(60, dtype=int), noise=0.02)
    arrows[pairs == 1] = arrows[pairs == 1][:, :, ::-1]
    targets = GivenTargets(TREE.terminal_rows[_terminal(pairs)], inputs.outputs)
    handed = replace(inputs, pixels=Pixels(arrows), examples=Examples(np.arange(60), targets))  # type: ignore[arg-type]
    assert _mirrored(handed) is False
    assert _mirrored(handed, mirror=True) is True
    assert _mirrored(inputs, mirror=False) is False


def _mirrored(inputs: FitInputs, **settings: object) -> bool | None:
    config = ProbeConfig.model_validate(settings)
    return kind_for(config).fit(config, inputs).mirrored


def test_where_memory_ends_fewer_images_are_looked_at_together(
    inputs: FitInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _anchors(fit(inputs, mirror=False))
    seen: list[int] = []
    forward, most = probe_module.Gradients.forward, [7]

    def small(self: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        if len(images) > most[0]:
            raise torch.OutOfMemoryError("no memory")
        return forward(self, images)  # type: ignore[arg-type]

    monkeypatch.setattr(probe_module.Gradients, "forward", small)
    torch.testing.assert_close(_anchors(fit(inputs, mirror=False)), whole)
    assert seen[:4] == [60, 32, 16, 8]
    assert max(seen[4:]) == 4
    most[0] = 0
    with pytest.raises(RefusedError, match="no memory for the features of one image"):
        fit(inputs, mirror=False)


def _anchors(member: ProbeMember) -> torch.Tensor:
    assert member.probe.anchors is not None
    return member.probe.anchors


def test_a_level_that_nobody_knows_leaves_the_paths_below_open(inputs: FitInputs) -> None:
    labels = TREE.terminal_rows[_terminal(np.arange(60) % len(LABELS))].copy()
    labels[:5] = UNKNOWN
    labels[5:10, 1:] = UNKNOWN
    partly = replace(inputs, examples=Examples(np.arange(60), GivenTargets(labels, inputs.outputs)))
    possible = probe_member._possible(partly, np.arange(60))
    paths = PathTree.of(inputs.outputs).terminals.numpy()
    assert possible[:5].all(), "of an image without a label everything is possible"
    for row, label in zip(possible[5:10], labels[5:10], strict=True):
        assert ((paths[:, 0] == label[0]) == row.astype(bool)).all()
    assert (possible[10:].sum(axis=1) == 1).all()
    assert (paths[possible[10:].argmax(axis=1)] == labels[10:]).all()


def test_of_very_many_images_some_are_drawn(inputs: FitInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_member, "_MOST_IMAGES", 30)
    assert len(_anchors(fit(inputs, mirror=False))) == 30


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"regression": "logistic"}, {"features": "both"}, {"features": "backbones"}])
def test_it_is_the_same_when_it_is_loaded(
    settings: dict[str, str],
    inputs: FitInputs,
    committed: Callable[[Ensemble], Artifact],
    cpu: Placement,
) -> None:
    config = ProbeConfig.model_validate(settings)
    recipe = Recipe.of(Config(data={"image_size": SIDE}), TREE, [config])  # type: ignore[arg-type]
    saved = Ensemble(recipe, [fit(inputs, **settings)], cpu)
    loaded = Ensemble.load(committed(saved), cpu)
    pixels = pictures(np.arange(10) % len(LABELS), seed=5)
    for mine, theirs in zip(loaded.probabilities(pixels), saved.probabilities(pixels), strict=True):
        assert mine.tobytes() == theirs.tobytes()
    assert loaded.recipe.members == (config,)


def test_a_file_that_holds_no_probe_is_refused(
    inputs: FitInputs, committed: Callable[[Ensemble], Artifact], cpu: Placement
) -> None:
    member = fit(inputs)
    recipe = Recipe.of(Config(data={"image_size": SIDE}), TREE, [ProbeConfig(regression="logistic", features="both")])  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=r"member-0\.safetensors does not hold the weights of a probe on both"):
        Ensemble.load(committed(Ensemble(recipe, [member], cpu)), cpu)


def test_a_file_that_is_none_is_refused(tmp_path: Path, cpu: Placement) -> None:
    path = tmp_path / "member-0.safetensors"
    path.write_bytes(b"none")
    with pytest.raises(ArtifactError, match="does not hold a probe"):
        kind_for(ProbeConfig()).load(ProbeConfig(), path, Outputs(TREE), "softmax", cpu)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"regression": "logistic"}, {"features": "backbones"}])
def test_its_cost_is_counted_and_known_beforehand(settings: dict[str, str], inputs: FitInputs) -> None:
    config = ProbeConfig.model_validate(settings)
    expected = kind_for(config).cost(config, inputs)(SIDE)
    member = fit(inputs, mirror=True, **settings)
    assert member.gmacs(SIDE) == pytest.approx(expected)
    if not settings:
        width, paths = build_features(config).width, 5
        assert expected == pytest.approx(120 * (width + paths) / 1e9)


def test_a_backbone_that_cannot_take_the_images_is_a_line(inputs: FitInputs) -> None:
    with pytest.raises(ConfigError, match=r"probe: a backbone cannot take these images.*224"):
        fit(inputs, features="backbones", backbones=["vit_tiny_patch16_224"])
    assert fit(inputs, features="backbones", backbones=["test_vit"], image_size=160)


def test_the_backbone_sees_images_at_its_own_size(inputs: FitInputs) -> None:
    shown = images(np.arange(2))
    small, large = (
        build_features(ProbeConfig(features="backbones", image_size=side))(shown) for side in (None, 2 * SIDE)
    )
    doubled = torch.nn.functional.interpolate(shown, scale_factor=2, mode="bilinear", antialias=True)
    plain = build_features(ProbeConfig(features="backbones"))
    assert small.shape == large.shape == plain(doubled).shape


def test_a_pretrained_backbone_sees_images_at_the_size_it_was_trained_at(tmp_path: Path) -> None:
    plain = build_features(ProbeConfig(features="backbones"))
    weights = plain.blocks[0].backbone.network.state_dict()  # type: ignore[union-attr]
    save_file(weights, tmp_path / "weights.safetensors")
    settings = ProbeConfig(features="backbones", pretrained=str(tmp_path / "weights.safetensors"))
    shown = images(np.arange(2))
    native = torch.nn.functional.interpolate(shown, size=(160, 160), mode="bilinear", antialias=True)
    torch.testing.assert_close(build_features(settings)(shown), plain(native))
    asked = settings.model_copy(update={"image_size": SIDE})
    torch.testing.assert_close(build_features(asked)(shown), plain(shown))


@pytest.mark.slow
def test_equal_inputs_give_equal_probes(inputs: FitInputs) -> None:
    first, second = fit(inputs), fit(inputs)
    for name, tensor in first.tensors().items():
        assert torch.equal(tensor, second.tensors()[name]), name


def test_a_probe_that_is_asked_out_of_fold_chooses_its_landmarks_once(
    inputs: FitInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_ridge, "_MOST_POINTS", 40)
    monkeypatch.setattr(kernel_ridge, "_LANDMARKS", 20)
    monkeypatch.setattr(regression, "_MOST_TO_CHOOSE", 30)
    fitted_to: list[int] = []
    fit_landmarks = Nystroem.fit

    def counted(near: Nystroem, features: Matrix) -> Nystroem:
        fitted_to.append(len(features))
        return fit_landmarks(near, features)

    monkeypatch.setattr(Nystroem, "fit", counted)
    said = kind_for(ProbeConfig(mirror=False)).fit(ProbeConfig(mirror=False), replace(inputs, held_out="all")).held_out
    assert said is not None
    assert len(said.images) == len(inputs.examples.ids)
    assert fitted_to == [len(inputs.examples.ids)]
