"""The files of a stranger's run folder: pointer, manifest and weights, each with the hash that it has."""

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nstudent.classifier import Classifier
from nstudent.config.schema import ModelConfig
from nstudent.errors import ArtifactError
from nstudent.models.members import read_tensors
from nstudent.models.network import build_network
from nstudent.storage.artifact import FINAL, MANIFEST
from nstudent.training.checkpoint import load_checkpoint
from PIL import Image
from safetensors.torch import load, save
from strangers import Stranger
from trees import outputs_of

# --- final.json, manifest.json ---


@pytest.mark.parametrize(
    "step",
    ["..", ".", "", "../elsewhere", "/etc", "01-teacher/..", "01-teacher\0", "~", "01-TEACHER", "C:\\x", 3, None, {}],
)
def test_the_pointer_leads_to_a_step_of_this_folder(
    refused: Callable[..., str], stranger: Stranger, step: object
) -> None:
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
def test_strange_json_is_named(refused: Callable[..., str], stranger: Stranger, name: str, content: bytes) -> None:
    (stranger.run / name).write_bytes(content)
    refused(stranger.run, Path(name).stem)


@pytest.mark.parametrize("name", [FINAL, f"01-teacher/{MANIFEST}"])
def test_json_of_gigabytes_is_refused_unread(refused: Callable[..., str], stranger: Stranger, name: str) -> None:
    with open(stranger.run / name, "wb") as file:
        file.truncate(8 << 30)
    assert "more than" in refused(stranger.run, Path(name).name)


@pytest.mark.parametrize(
    "name", [FINAL, f"01-teacher/{MANIFEST}", "01-teacher/model.json", "01-teacher/member-0.safetensors"]
)
@pytest.mark.parametrize("kind", ["pipe", "endless", "folder"])
def test_what_is_no_file_is_not_waited_for(
    refused: Callable[..., str], stranger: Stranger, name: str, kind: str
) -> None:
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
def test_a_file_of_the_manifest_lies_in_its_folder(refused: Callable[..., str], stranger: Stranger, name: str) -> None:
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
def test_a_manifest_of_another_shape_is_refused(
    refused: Callable[..., str], stranger: Stranger, change: dict[str, Any]
) -> None:
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
def test_a_link_out_of_the_folder_is_refused_though_its_hash_is_right(
    refused: Callable[..., str], stranger: Stranger, tmp_path: Path, link: Callable[..., Any]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    link(stranger.run, tmp_path / "elsewhere")
    refused(stranger.run, "is a link to ")


def test_a_run_folder_that_is_itself_a_link_is_as_good_as_any(stranger: Stranger, tmp_path: Path) -> None:
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
def test_weights_that_are_none_are_named(refused: Callable[..., str], stranger: Stranger, content: bytes) -> None:
    stranger.weigh(content)
    refused(stranger.run, r"member-0\.safetensors does not hold the weights|larger than its weights")


def _changed(stranger: Stranger, change: Callable[[dict[str, torch.Tensor]], object]) -> bytes:
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
def test_weights_that_do_not_fit_are_named(
    refused: Callable[..., str], stranger: Stranger, change: Callable[..., Any]
) -> None:
    stranger.weigh(_changed(stranger, change))
    refused(stranger.run, r"member-0\.safetensors does not hold the weights")


def test_weights_that_overflow_give_an_error_and_no_label(stranger: Stranger, tmp_path: Path) -> None:
    stranger.weigh(_changed(stranger, lambda weights: weights.update({_FIRST: torch.full_like(weights[_FIRST], 3e38)})))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(ArtifactError, match="not finite"):
        Classifier.load(stranger.run, device="cpu").predict([tmp_path / "x.png"])


@pytest.mark.slow
def test_any_damage_to_a_weights_file_is_named_or_leaves_it_whole(stranger: Stranger, tmp_path: Path) -> None:
    """The header decides what is read where: bytes of it are changed, moved and cut, three hundred times."""
    path, config = tmp_path / "member-0.safetensors", ModelConfig(head="independent")
    whole = (stranger.step / path.name).read_bytes()
    member = build_network(config, outputs_of(2, 3, 5), ("key",))
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    chance, refusals = random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 3))):
            damaged[chance.randrange(header)] = chance.choice((chance.randrange(256), *b'0199",:[]{}'))
        path.write_bytes(damaged[: chance.randrange(len(damaged))] if chance.random() < 0.1 else damaged)
        for read in (lambda: read_tensors(path, member.state_dict(), "it"), lambda: load_checkpoint(path, [].append)):
            try:
                read()
            except ArtifactError:
                refusals += 1
    # A checkpoint has a description, which weights have not: each of those is refused.
    assert refusals > 500
