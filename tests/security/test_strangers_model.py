"""A model folder given by a stranger: everything in it is chosen by them, hashes included."""

import inspect
import json
import os
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nstudent.artifact import FINAL, MANIFEST
from nstudent.classifier import Classifier
from nstudent.errors import ArtifactError, NstudentError
from nstudent.models.options import _LARGEST, _SWITCHES, _WORDS
from nstudent.models.member import timm
from PIL import Image
from safetensors.torch import load, save


@pytest.fixture(autouse=True)
def threads_put_back():
    yield
    torch.set_num_threads(1)


def refused(run: Path, match: str | None = None) -> str:
    with pytest.raises(NstudentError, match=match) as error:
        Classifier.load(run, device="cpu")
    said = str(error.value)
    assert len(said.splitlines()) == 1
    return said


def test_the_honest_folder_predicts(stranger, tmp_path):
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
def test_no_option_opens_a_file(stranger, canary, tmp_path, option, suffix, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bait = tmp_path / f"bait{suffix}"
    bait.write_bytes(pickle.dumps(canary))
    opened: list[str] = []
    _watch(opened)
    stranger.describe(lambda model: model["members"][0].update(backbone_options={option: str(bait)}))
    refused(stranger.run, f"backbone_options.{option} may not be set")
    assert str(bait) not in opened
    assert not canary.sang


@pytest.mark.parametrize("value", [True, "fx", "cuda", 1])
@pytest.mark.parametrize("option", _FACTORY)
def test_no_option_reaches_the_factory_itself(stranger, option, value):
    stranger.describe(lambda model: model["members"][0].update(backbone_options={option: value}))
    refused(stranger.run, f"backbone_options.{option} may not be set")


def test_every_option_of_the_factory_is_missing_from_the_list():
    """Whatever a later timm adds to its factory is refused until somebody puts it on the list."""
    factory = {
        *inspect.signature(timm.create_model).parameters,
        *inspect.signature(timm.models.build_model_with_cfg).parameters,
    }
    assert {"checkpoint_path", "pretrained_cfg", "cache_dir"} <= factory
    assert not factory & (_SWITCHES | _WORDS | _LARGEST.keys())


@pytest.mark.parametrize("word", ["/etc/passwd", "../x", "https://host/x", "a.b", "C:\\x", "x" * 41, "a b", "\x1b[2J"])
@pytest.mark.parametrize("option", sorted(_WORDS))
def test_a_word_is_no_path_and_no_address(stranger, option, word):
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
def test_a_network_is_named_and_not_fetched(stranger, name):
    stranger.describe(lambda model: model["members"][0].update(backbones=[name]))
    refused(stranger.run, "is not the name of a timm network")


@pytest.mark.parametrize("pretrained", [True, "/etc/passwd", "weights.pth"])
def test_a_trained_classifier_fetches_and_opens_no_pretrained_weights(stranger, pretrained):
    """The word stays in the description of a model that began with such weights."""
    opened: list[str] = []
    _watch(opened)
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

_LOAD_ALL = """
import json, resource, sys
from pathlib import Path
from nstudent.classifier import Classifier
from nstudent.errors import NstudentError
Classifier.load(sys.argv[1], device="cpu")  # torch and timm are there now
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
said = {}
for run in sys.argv[2:]:
    try:
        Classifier.load(run, device="cpu")
        said[Path(run).name] = "loaded"
    except NstudentError as error:
        said[Path(run).name] = str(error)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps({"said": said, "grown_mib": grown}))
"""


def test_sizes_that_fill_the_memory_are_refused_before_it_is_taken(honest, strangers, bounded):
    """The smallest of these asks for gigabytes, the largest for more than there is anywhere."""
    runs = []
    for name, change in _BOMBS.items():
        given = strangers(name)
        given.describe(lambda model, change=change: model["members"][0].update(change))
        runs.append(given.run)
    done = bounded(_LOAD_ALL, honest, *runs)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert "loaded" not in result["said"].values()
    assert result["said"].keys() == _BOMBS.keys()
    assert result["grown_mib"] < 700


@pytest.mark.parametrize(
    "change",
    [
        {"members": []},
        {"members": [{}] * 100},
        {"members": "x"},
        {"members": [{"bogus": 1}]},
        {"image_size": 10**6},
        {"image_size": "32"},
        {"image_size": 0},
        {"max_pixels": 10**12},
        {"absent": "maybe"},
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
def test_a_description_of_no_model_is_refused(stranger, change):
    stranger.describe(lambda model: model.update(change))
    refused(stranger.run, r"model\.json")


# --- final.json, manifest.json ---


@pytest.mark.parametrize(
    "step",
    ["..", ".", "", "../elsewhere", "/etc", "01-teacher/..", "01-teacher\0", "~", "01-TEACHER", "C:\\x", 3, None, {}],
)
def test_the_pointer_leads_to_a_step_of_this_folder(stranger, step):
    (stranger.run / FINAL).write_text(json.dumps({"step": step}))
    refused(stranger.run, r"final\.json is damaged")


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b'{"step": ' * 200_000,
        b'{"step": "01-teacher", "step": "../x"}',
        b'{"step": NaN}',
        b'{"step": -Infinity}',
        b"9" * 10_000,
        b"\xff\xfe",
        b"",
        b"null",
        b"[]",
        b"x" * 1_000,
    ],
    ids=lambda content: repr(content[:20]),
)
@pytest.mark.parametrize("name", [FINAL, f"01-teacher/{MANIFEST}"])
def test_strange_json_is_named(stranger, name, content):
    (stranger.run / name).write_bytes(content)
    refused(stranger.run, Path(name).stem)


@pytest.mark.parametrize("name", [FINAL, f"01-teacher/{MANIFEST}"])
def test_json_of_gigabytes_is_refused_unread(stranger, name):
    with open(stranger.run / name, "wb") as file:
        file.truncate(8 << 30)
    assert "more than" in refused(stranger.run, Path(name).name)


@pytest.mark.parametrize(
    "name", [FINAL, f"01-teacher/{MANIFEST}", "01-teacher/model.json", "01-teacher/member-0.safetensors"]
)
@pytest.mark.parametrize("kind", ["pipe", "endless", "folder"])
def test_what_is_no_file_is_not_waited_for(stranger, name, kind):
    path = stranger.run / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    refused(stranger.run)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/../../x", "./x", "a//b", "", "x\0"])
def test_a_file_of_the_manifest_lies_in_its_folder(stranger, name):
    manifest = json.loads((stranger.step / MANIFEST).read_text())
    manifest["files"][name] = {"sha256": "0", "bytes": 1}
    (stranger.step / MANIFEST).write_text(json.dumps(manifest))
    refused(stranger.run, r"manifest\.json is damaged")


@pytest.mark.parametrize(
    "change",
    [
        {"files": []},
        {"files": {"model.json": []}},
        {"files": {"model.json": {"sha256": "0"}}},
        {"inputs": {"a": []}},
        {"asked": "x"},
        {"metrics": [1]},
        {"stage": 3},
        {"round": "0"},
        {"more": 1},
        {"schema": 10**6},
    ],
    ids=lambda change: json.dumps(change),
)
def test_a_manifest_of_another_shape_is_refused(stranger, change):
    manifest = json.loads((stranger.step / MANIFEST).read_text())
    (stranger.step / MANIFEST).write_text(json.dumps(manifest | change))
    refused(stranger.run, "01-teacher")


def _link_the_weights(run: Path, elsewhere: Path) -> None:
    target = elsewhere / "member-0.safetensors"
    (run / "01-teacher" / "member-0.safetensors").rename(target)
    (run / "01-teacher" / "member-0.safetensors").symlink_to(target)


def _link_the_step(run: Path, elsewhere: Path) -> None:
    (run / "01-teacher").rename(elsewhere / "step")
    (run / "01-teacher").symlink_to(elsewhere / "step")


@pytest.mark.parametrize("link", [_link_the_weights, _link_the_step])
def test_a_link_out_of_the_folder_is_refused_though_its_hash_is_right(stranger, tmp_path, link: Callable[..., None]):
    (tmp_path / "elsewhere").mkdir()
    link(stranger.run, tmp_path / "elsewhere")
    refused(stranger.run, "is a link to a")


def test_a_run_folder_that_is_itself_a_link_is_as_good_as_any(stranger, tmp_path):
    (tmp_path / "linked").symlink_to(stranger.run)
    assert Classifier.load(tmp_path / "linked", device="cpu")


# --- the weights ---


def _header(entries: object, data: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def _tensor(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


_WEIGHTS = {
    "nothing": b"",
    "zeros": b"\0" * 64,
    "a header of exabytes": struct.pack("<Q", 2**63) + b"{}",
    "a header longer than the file": struct.pack("<Q", 10**6) + b"{}",
    "no JSON": _header(b"not json"),
    "deep JSON": _header(b"[" * 100_000),
    "a list": _header([]),
    "no UTF-8": _header(b'{"\xff": 1}'),
    "an unknown type": _header({"a": _tensor("PICKLE", [1], 0, 4)}, b"\0" * 4),
    "overlapping": _header({"a": _tensor("F32", [2], 0, 8), "b": _tensor("F32", [2], 4, 12)}, b"\0" * 12),
    "a hole": _header({"a": _tensor("F32", [1], 0, 4), "b": _tensor("F32", [1], 8, 12)}, b"\0" * 12),
    "backwards": _header({"a": _tensor("F32", [1], 4, 0)}, b"\0" * 4),
    "past the end": _header({"a": _tensor("F32", [10**9], 0, 4 * 10**9)}, b"\0" * 4),
    "sizes that wrap round": _header({"a": _tensor("F32", [2**62, 4], 0, 0)}),
    "negative sizes": _header({"a": _tensor("F32", [-1], 0, 4)}, b"\0" * 4),
    "other tensors": save({"a": torch.zeros(1)}),
    "a zip": b"PK\x03\x04" + b"\0" * 100,
    "HDF5": b"\x89HDF\r\n\x1a\n" + b"\0" * 100,
}


@pytest.mark.parametrize("content", _WEIGHTS.values(), ids=_WEIGHTS.keys())
def test_weights_that_are_none_are_named(stranger, content):
    stranger.weigh(content)
    refused(stranger.run, r"member-0\.safetensors does not hold the weights|larger than its weights")


def _changed(stranger, change: Callable[[dict[str, torch.Tensor]], object]) -> bytes:
    weights = load((stranger.step / "member-0.safetensors").read_bytes())
    change(weights)
    return save(weights)


_FIRST = "head.classify.0.weight"


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.pop(_FIRST),
        lambda weights: weights.update(more=torch.zeros(1)),
        lambda weights: weights.update({_FIRST: weights[_FIRST].double()}),
        lambda weights: weights.update({_FIRST: weights[_FIRST].half()}),
        lambda weights: weights.update({_FIRST: weights[_FIRST].to(torch.complex64)}),
        lambda weights: weights.update({_FIRST: weights[_FIRST].to(torch.float8_e5m2)}),
        lambda weights: weights.update({_FIRST: weights[_FIRST].int()}),
        lambda weights: weights.update({_FIRST: weights[_FIRST][:1]}),
        lambda weights: weights.update({_FIRST: weights[_FIRST] * torch.nan}),
        lambda weights: weights.update({_FIRST: weights[_FIRST] * torch.inf}),
    ],
    ids=["missing", "one more", "double", "half", "complex", "float8", "integers", "shorter", "nan", "infinite"],
)
def test_weights_that_do_not_fit_are_named(stranger, change):
    stranger.weigh(_changed(stranger, change))
    refused(stranger.run, r"member-0\.safetensors does not hold the weights")


def test_weights_that_overflow_give_an_error_and_no_label(stranger, tmp_path):
    stranger.weigh(_changed(stranger, lambda weights: weights.update({_FIRST: torch.full_like(weights[_FIRST], 3e38)})))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(ArtifactError, match="not finite"):
        Classifier.load(stranger.run, device="cpu").predict([tmp_path / "x.png"])


# --- paths opened by this process ---

_watchers: list[list[str]] = []


def _watch(opened: list[str]) -> None:
    """Note every path that is opened from now on. An audit hook stays for ever, so there is one."""
    if not _watchers:
        sys.addaudithook(lambda event, args: [w.append(str(args[0])) for w in _watchers] if event == "open" else None)
    _watchers[:] = [opened]
