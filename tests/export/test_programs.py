"""Exported programs answer as the classifier does, for any number of images, and say what their answers mean."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished_runs import TREE, add_classifier, photo, pixels
from nearest_mean import NearestMean, PixelMeans, add_nearest_mean, expected_means
from nstudent.classifier import Classifier
from nstudent.config.members import HeadName, ModelConfig, ProbeConfig
from nstudent.errors import ArtifactError, ConfigError
from nstudent.export.program import Program, check, load_for_export, output_names, traced
from nstudent.export.program_files import write_onnx, write_torch
from nstudent.models.ensemble import Ensemble
from nstudent.models.recipe import Recipe
from nstudent.taxonomy.outputs import Outputs

pytestmark = pytest.mark.slow

POOL = (ModelConfig(), ModelConfig(head="independent", image_size=24, wide_channels=4), ProbeConfig())
CALIBRATED = {
    "absent": "class",
    "weights": (0.5, 0.2, 0.3),
    "member_temperatures": ((0.5, 1.0, 2.0), (1.5, 0.7, 0.9), (1.0, 1.0, 0.4)),
    "temperatures": (1.4, 0.8, 2.2),
    "ends": (0.7, -0.4, 0.0),
    "decoder": "expected_score",
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of two networks and a probe, with every number that a recipe can have."""
    return add_classifier(tmp_path_factory.mktemp("pool"), POOL, **CALIBRATED)


@pytest.fixture(scope="module")
def onnx_folder(run_dir: Path) -> Path:
    return write_onnx(run_dir, run_dir / "onnx").folder


@pytest.fixture(scope="module")
def torch_folder(run_dir: Path) -> Path:
    return write_torch(run_dir, run_dir / "torch").folder


def _onnx_answers(folder: Path, given: Any) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "classifier.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == output_names(TREE.levels)
    return list(session.run(None, {"pixels": given}))


def _torch_answers(folder: Path, given: Any) -> list[Any]:
    module = torch.export.load(folder / "classifier.pt2").module()
    with torch.no_grad():
        return [output.numpy() for output in module(torch.from_numpy(given))]


@pytest.mark.parametrize("images", [1, 2, 7])
@pytest.mark.parametrize(("folder", "answers"), [("onnx_folder", _onnx_answers), ("torch_folder", _torch_answers)])
def test_a_file_gives_the_probabilities_and_labels_of_the_classifier(
    request: pytest.FixtureRequest, run_dir: Path, folder: str, answers: Callable[..., list[Any]], images: int
) -> None:
    given = pixels(images)
    *levels, paths, confidence = answers(request.getfixturevalue(folder), given)
    ensemble = load_for_export(run_dir)
    wanted = ensemble.probabilities(given)
    for level, expected in zip(levels, wanted, strict=True):
        np.testing.assert_allclose(level, expected, atol=1e-4)
    found = Program(ensemble)._decoder.decode([torch.from_numpy(level) for level in wanted])
    assert paths.tolist() == found.paths.tolist()
    np.testing.assert_allclose(confidence, found.confidence, atol=1e-4)


@pytest.mark.parametrize(("head", "decoder"), [("flat", "crm"), ("hd_cnn", "majority"), ("flat", "stop_depth")])
def test_decoders_of_every_kind_and_heads_of_log_probabilities_can_be_exported(
    tmp_path: Path, head: HeadName, decoder: str
) -> None:
    run_dir = add_classifier(tmp_path / "run", (ModelConfig(head=head),), absent="class", decoder=decoder)
    given, ensemble = pixels(3), load_for_export(run_dir)
    found = Program(ensemble)._decoder.decode([torch.from_numpy(level) for level in ensemble.probabilities(given)])

    for answers, folder in (
        (_onnx_answers, write_onnx(run_dir, tmp_path / "onnx").folder),
        (_torch_answers, write_torch(run_dir, tmp_path / "torch").folder),
    ):
        assert answers(folder, given)[-2].tolist() == found.paths.tolist()


@pytest.mark.parametrize(
    "settings",
    [
        ModelConfig(head="branching"),
        ModelConfig(head="branching", backbones=("test_resnet", "test_efficientnet"), wide_channels=4, image_size=24),
        ModelConfig(head="hd_cnn", routing_threshold=0.6),
    ],
    ids=["branching", "fused branching", "experts below a threshold"],
)
def test_shallower_maps_and_experts_that_are_not_asked_are_inside_the_program(
    tmp_path: Path, settings: ModelConfig
) -> None:
    run_dir = add_classifier(tmp_path / "run", (settings,), absent="class")
    given = pixels(7)
    wanted = load_for_export(run_dir).probabilities(given)
    for answers, folder in (
        (_onnx_answers, write_onnx(run_dir, tmp_path / "onnx").folder),
        (_torch_answers, write_torch(run_dir, tmp_path / "torch").folder),
    ):
        for level, expected in zip(answers(folder, given), wanted, strict=False):
            np.testing.assert_allclose(level, expected, atol=1e-4)


def test_the_answers_depend_on_the_image(onnx_folder: Path) -> None:
    # Or a program that gives the same to all would pass the tests above.
    levels = _onnx_answers(onnx_folder, pixels(7))[:3]
    assert all(np.ptp(level, axis=0).max() > 0.1 for level in levels)


def test_the_metadata_says_what_is_taken_and_what_the_answers_mean(
    run_dir: Path, onnx_folder: Path, torch_folder: Path
) -> None:
    import onnx

    model = onnx.load(onnx_folder / "classifier.onnx")
    about = json.loads(next(each.value for each in model.metadata_props if each.key == "nstudent"))
    files = {"nstudent.json": ""}
    torch.export.load(torch_folder / "classifier.pt2", extra_files=files)
    assert json.loads(files["nstudent.json"]) == about
    assert about["taxonomy"] == TREE.to_json()
    assert about["image_size"] == 32
    assert about["made by"].startswith("nstudent 0.")
    # At levels that not every path reaches, 'nothing' has an output.
    assert about["classes"]["coarse"] == ["loop", "stroke"]
    assert about["classes"]["mid"][-1] is None


@pytest.mark.parametrize("folder", ["onnx_folder", "torch_folder"])
def test_the_example_labels_files_as_predict_does(
    request: pytest.FixtureRequest, run_dir: Path, tmp_path: Path, folder: str
) -> None:
    files = [
        photo(tmp_path / "wide.png"),
        photo(tmp_path / "clear.png", "RGBA", (40, 50), seed=1),
        photo(tmp_path / "turned.jpg", seed=2, exif=_turned(), quality=95),
        photo(tmp_path / "small.png", size=(20, 24), seed=3),
    ]
    # By its header alone, more than the pixels that the classifier was made for.
    broken, huge = tmp_path / "broken.png", photo(tmp_path / "huge.png", size=(1001, 1000))
    broken.write_bytes(files[0].read_bytes()[:100])
    script = request.getfixturevalue(folder) / "classify.py"
    given = [files[0], broken, *files[1:], huge]
    done = subprocess.run([sys.executable, str(script), *map(str, given)], capture_output=True, text=True, check=True)
    predictions = Classifier.load(run_dir, "cpu").predict(files)
    unread, large, *lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (unread["image"], large["image"]) == (str(broken), str(huge))
    assert unread["error"]
    assert large["error"] == "1001x1000 pixels are more than 1,000,000"
    assert [line["image"] for line in lines] == [str(file) for file in files]
    for line, prediction in zip(lines, predictions, strict=True):
        assert {level: name for level, (name, _) in line["labels"].items()} == {
            level: found.name for level, found in prediction.labels.items()
        }
        for level, (_, sure) in line["labels"].items():
            assert sure == pytest.approx(prediction.labels[level].probability, abs=0.02)


def _turned() -> Any:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_a_classifier_that_was_never_calibrated_is_exported(tmp_path: Path) -> None:
    run_dir = add_classifier(tmp_path, [ModelConfig()])
    program = traced(load_for_export(run_dir)).module()
    given = pixels(5)
    with torch.no_grad():
        found = [output.numpy() for output in program(torch.from_numpy(given))]
    assert check(lambda _: found if len(_) == 5 else _first(found), load_for_export(run_dir), given) < 1e-6


def _first(found: list[Any]) -> list[Any]:
    return [output[:1] for output in found]


@pytest.mark.parametrize("wrong", ["values", "nan", "one image"])
def test_a_program_that_answers_otherwise_is_refused(run_dir: Path, wrong: str) -> None:
    ensemble = load_for_export(run_dir)

    def run(given: Any) -> list[Any]:
        levels = [level.copy() for level in ensemble.probabilities(given)]
        if wrong == "values":
            levels[1][0, 0] += 2e-4
        if wrong == "nan":
            levels[2][0, 0] = np.nan
        if wrong == "one image" and len(given) == 1:
            levels = [np.repeat(level, 2, axis=0) for level in levels]
        return levels

    with pytest.raises(ArtifactError, match="exported program"):
        check(run, ensemble, pixels(4))


def test_a_member_that_cannot_be_exported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    add_nearest_mean(monkeypatch)
    recipe = Recipe(members=(PixelMeans(),), taxonomy=TREE, absent="ignore", image_size=32, max_pixels=1_000_000)
    means = {name: torch.zeros(each.shape) for name, each in expected_means(PixelMeans(), Outputs(TREE)).items()}
    from finished_runs import CPU

    with pytest.raises(ConfigError, match=r"member 0 is of the kind 'nearest_mean', which cannot be exported"):
        Program(Ensemble(recipe, [NearestMean(PixelMeans(), means)], CPU))


def test_without_the_extra_a_line_says_how_to_install_it(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"onnxruntime is not installed: pip install 'nstudent\[export\]'"):
        write_onnx(run_dir, run_dir / "nowhere")
    assert not (run_dir / "nowhere").exists()


@pytest.mark.parametrize("write", [write_onnx, write_torch], ids=["onnx", "torch"])
def test_a_constrained_link_and_normalised_logits_are_inside_the_program(
    write: Callable[[Path, Path], Any], tmp_path: Path
) -> None:
    """Writing compares the program with the classifier, and refuses one that differs."""
    members = (ModelConfig(logit_norm=0.1), ModelConfig(head="independent"))
    run_dir = add_classifier(tmp_path / "run", members, link="max_constrained", absent="class")
    assert write(run_dir, tmp_path / "out").folder.is_dir()
