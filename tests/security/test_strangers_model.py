"""A model folder given by a stranger: everything in it is chosen by them, hashes included."""

import inspect
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nstudent.classifier import Classifier
from nstudent.models import members
from nstudent.models.allocation import AllocationLimit
from nstudent.models.network import timm
from nstudent.models.options import _LARGEST, _SWITCHES, _WORDS
from PIL import Image
from strangers import Canary, Stranger
from torch.nn.modules.module import _global_module_registration_hooks


def test_the_honest_folder_predicts(stranger: Stranger, tmp_path: Path) -> None:
    stranger.seal()
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    assert Classifier.load(stranger.run, device="cpu").predict([tmp_path / "x.png"])[0].labels


# --- what timm would open, fetch or run ---

_PATHS = ("checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args")
_FACTORY = (
    "pretrained",
    "features_only",
    "feature_cls",
    "scriptable",
    "exportable",
    "no_jit",
    "pruned",
    "device",
    "dtype",
)


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".npy", ".safetensors", ""])
@pytest.mark.parametrize("option", _PATHS)
def test_no_option_opens_a_file(
    refused: Callable[..., str],
    opened: list[str],
    stranger: Stranger,
    canary: Canary,
    tmp_path: Path,
    option: str,
    suffix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    bait = tmp_path / f"bait{suffix}"
    bait.write_bytes(pickle.dumps(canary))
    opened.clear()
    stranger.describe(lambda model: model["members"][0].update(backbone_options={option: str(bait)}))
    refused(stranger.run, f"backbone_options.{option} may not be set")
    assert str(bait) not in opened
    assert not canary.sang


@pytest.mark.parametrize("value", [True, "fx", "cuda", 1])
@pytest.mark.parametrize("option", _FACTORY)
def test_no_option_reaches_the_factory_itself(
    refused: Callable[..., str], stranger: Stranger, option: str, value: object
) -> None:
    stranger.describe(lambda model: model["members"][0].update(backbone_options={option: value}))
    refused(stranger.run, f"backbone_options.{option} may not be set")


def test_every_option_of_the_factory_is_missing_from_the_list() -> None:
    """Whatever a later timm adds to its factory is refused until somebody puts it on the list."""
    factory = {
        *inspect.signature(timm.create_model).parameters,
        *inspect.signature(timm.models.build_model_with_cfg).parameters,
    }
    assert {"checkpoint_path", "pretrained_cfg", "cache_dir"} <= factory
    assert not factory & (_SWITCHES | _WORDS | _LARGEST.keys())


@pytest.mark.parametrize("word", ["/etc/passwd", "../x", "https://host/x", "a.b", "C:\\x", "x" * 41, "a b", "\x1b[2J"])
@pytest.mark.parametrize("option", sorted(_WORDS))
def test_a_word_is_no_path_and_no_address(
    refused: Callable[..., str], stranger: Stranger, option: str, word: str
) -> None:
    stranger.describe(lambda model: model["members"][0].update(backbone_options={option: word}))
    refused(stranger.run, f"backbone_options.{option} is .* which is not a word")


@pytest.mark.parametrize(
    "name",
    [
        "hf-hub:someone/evil",
        "hf_hub:someone/evil",
        "local-dir:/tmp/evil",
        "local-dir:evil",
        "https://host/evil.pth",
        "../test_resnet",
        "test_resnet/x",
        "test_resnet.a:b",
        "test_resnet.x.y",
        "",
        "test_resnet\n",
        "x" * 1_000_000,
    ],
)
def test_a_network_is_named_and_not_fetched(refused: Callable[..., str], stranger: Stranger, name: str) -> None:
    stranger.describe(lambda model: model["members"][0].update(backbones=[name]))
    refused(stranger.run, "is not the name of a timm network")


@pytest.mark.parametrize("pretrained", [True, "/etc/passwd", "weights.pth"])
def test_a_trained_classifier_fetches_and_opens_no_pretrained_weights(
    opened: list[str], stranger: Stranger, pretrained: bool | str
) -> None:
    """The word stays in the description of a model that began with such weights."""
    stranger.describe(lambda model: model["members"][0].update(pretrained=pretrained))
    assert Classifier.load(stranger.run, device="cpu")
    assert not {"/etc/passwd", "weights.pth"} & set(opened)


# --- what would fill the memory or never end ---

_BOMBS: dict[str, dict[str, Any]] = {
    "wide head": {"head": "fine_to_coarse", "head_width": 10**9},
    "wide convolution": {"wide_channels": 10**9},
    "wide, within int32": {"wide_channels": 2 * 10**6, "head_width": 10**5, "head": "fine_to_coarse"},
    "wide network": {"backbones": ["test_vit"], "backbone_options": {"img_size": 32, "embed_dim": 16384}},
    "huge option": {"backbones": ["test_vit"], "backbone_options": {"embed_dim": 10**9}},
    "deep network": {"backbones": ["test_vit"], "backbone_options": {"img_size": 32, "depth": 10**9}},
    "fine patches": {"backbones": ["test_vit"], "backbone_options": {"img_size": 4096, "patch_size": 1}},
    "many networks": {"backbones": ["test_resnet"] * 100_000},
    "a large one for small weights": {"backbones": ["vit_giant_patch14_224"]},
    "negative": {"backbones": ["test_vit"], "backbone_options": {"embed_dim": -5}},
    "nothing": {"backbones": ["test_vit"], "backbone_options": {"patch_size": 0}},
    "not a number": {"backbones": ["test_vit"], "backbone_options": {"mlp_ratio": "9" * 30}},
    "a long list": {"backbones": ["test_resnet"], "backbone_options": {"channels": [1] * 1000}},
}


@pytest.mark.slow
def test_sizes_that_fill_the_memory_are_refused_before_it_is_taken(
    honest: Path, strangers: Callable[[str], Stranger], refusals: Callable[..., tuple[dict[str, str], float]]
) -> None:
    """The smallest of these asks for gigabytes, the largest for more than there is anywhere."""
    runs = []
    for name, change in _BOMBS.items():
        given = strangers(name)
        given.describe(lambda model, change=change: model["members"][0].update(change))
        runs.append(given.run)
    # The honest one first: torch and timm are there then.
    setup = f"from nstudent.classifier import Classifier\nClassifier.load({str(honest)!r}, device='cpu')"
    said, grown_mib = refusals(setup, "Classifier.load(path, device='cpu')", "NstudentError", runs)
    assert all(said.values())
    assert said.keys() == _BOMBS.keys()
    assert grown_mib < 700


@pytest.mark.parametrize(
    "change",
    [
        {"members": []},
        {"members": [{}] * 257},
        {"members": "x"},
        {"members": [{"bogus": 1}]},
        {"members": [[]]},
        {"members": [{"kind": "oracle"}]},
        {"members": [{"kind": {"network": 1}}]},
        {"pooling": "__class__"},
        {"image_size": 10**6},
        {"image_size": "32"},
        {"image_size": 0},
        {"max_pixels": 10**12},
        {"absent": "maybe"},
        {"bogus": 1},
        {"decoder": "../x"},
        {"decoder": 3},
        {"link": "x" * 1_000_000},
        {"weights": [1.0, 1.0]},
        {"weights": [0.0]},
        {"weights": [1e300]},
        {"weights": ["1"]},
        {"temperatures": [1.0, 1.0]},
        {"temperatures": [1.0, 1.0, -1.0]},
        {"temperatures": [1.0, 1.0, 1e-300]},
        {"taxonomy": None},
        {"taxonomy": {"levels": [], "classes": [], "parents": [], "terminals": []}},
        {"taxonomy": {"levels": ["a"], "classes": [["x"]], "parents": [[]], "terminals": []}},
        {"taxonomy": {"levels": ["a"], "classes": [["x"], ["y"]], "parents": [[], [0]], "terminals": [[0]]}},
        {"taxonomy": {"levels": ["a"], "classes": [[{"x": 1}]], "parents": [[]], "terminals": [[0]]}},
        {
            "taxonomy": {
                "levels": ["a"] * 50,
                "classes": [["x"]] * 50,
                "parents": [[]] + [[0]] * 49,
                "terminals": [[0] * 50],
            }
        },
        {"taxonomy": {"levels": ["a"], "classes": [["x"]], "parents": [[]], "terminals": [[10**30]]}},
        {"taxonomy": {"levels": ["a"], "classes": [["x"]], "parents": [[]], "terminals": [[1]]}},
        {
            "taxonomy": {
                "levels": list("abc"),
                "classes": [["x"]] * 3,
                "parents": [[], [0], [0]],
                "terminals": [[0, -1, 0]],
            }
        },
    ],
    ids=lambda change: json.dumps(change)[:60],
)
def test_a_description_of_no_model_is_refused(
    refused: Callable[..., str], stranger: Stranger, change: dict[str, Any]
) -> None:
    stranger.describe(lambda model: model.update(change))
    refused(stranger.run, r"model\.json")


_MANY_PARTS: dict[str, dict[str, Any]] = {
    "many small layers": {
        "backbones": ["densenet121"],
        "backbone_options": {"block_config": [256] * 4, "growth_rate": 1},
    },
    "many blocks": {"backbones": ["test_vit"], "backbone_options": {"img_size": 32, "depth": 256, "embed_dim": 4}},
    "many stages": {"backbones": ["resnet18"], "backbone_options": {"layers": [256] * 4, "channels": [1] * 4}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", _MANY_PARTS)
def test_a_network_of_thousands_of_tiny_parts_is_refused_before_they_are_made(
    stranger: Stranger, refused: Callable[..., str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tensors would be small; it is the modules that take seconds for each, and a pool may hold hundreds."""
    made = 0
    count = AllocationLimit._count

    def counted(limit: AllocationLimit, *given: Any) -> None:
        nonlocal made
        made += 1
        count(limit, *given)

    monkeypatch.setattr(AllocationLimit, "_count", counted)
    stranger.describe(lambda model: model["members"][0].update(_MANY_PARTS[name]))
    refused(stranger.run, r"far more parts than its weights have|may not be set|cannot be built")
    assert made < 2500


def test_what_was_built_before_and_is_built_after_does_not_count(stranger: Stranger) -> None:
    """The count is of one network: a process that loads many classifiers loads the last as the first."""
    for _ in range(3):
        Classifier.load(stranger.run, device="cpu")
    assert not _global_module_registration_hooks


@pytest.mark.parametrize("name", ["resnet50", "vit_small_patch16_224", "densenet121", "poolformer_s12", "volo_d1_224"])
@pytest.mark.slow
def test_ordinary_networks_have_far_fewer_parts_than_are_allowed(name: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(name)
    parts, tensors = len(list(network.modules())), len(network.state_dict())
    assert 3 * parts < members._MODULES_PER_TENSOR * tensors + members._SPARE_MODULES
