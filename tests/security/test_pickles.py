"""Pickles under every name and at every door: no code of theirs runs."""

import hashlib
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nstudent.classifier import Classifier
from nstudent.config.file import load_config
from nstudent.config.schema import DataConfig, ModelConfig
from nstudent.data.decode import decode
from nstudent.data.sources import hdf5, idx
from nstudent.errors import ImageError, NstudentError
from nstudent.models.network import build_network
from nstudent.storage.files import read_json
from nstudent.storage.hdf5 import attributes, mapped
from nstudent.training.checkpoint import load_checkpoint
from strangers import Canary, Stranger
from trees import outputs_of


def _plain(canary: object) -> bytes:
    return pickle.dumps(canary)


def _torch_zip(canary: object) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": canary}, buffer)
    return buffer.getvalue()


def _torch_old(canary: object) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": canary}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _npy(canary: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([canary], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _npz(canary: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.array([canary], dtype=object))
    return buffer.getvalue()


def _zip(canary: object) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(canary))
        archive.writestr(".metadata", pickle.dumps(canary))
    return buffer.getvalue()


def _in_a_safetensors_header(canary: object) -> bytes:
    """The pickle as the metadata and as the data of a well-formed file."""
    content = pickle.dumps(canary)
    entry = {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}
    text = json.dumps({"__metadata__": {"state": content.decode("latin-1")}, "pickle": entry}).encode()
    return struct.pack("<Q", len(text)) + text + content


_KINDS = (_plain, _torch_zip, _torch_old, _npy, _npz, _zip, _in_a_safetensors_header)
kinds = pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind.__name__.strip("_"))
Kind = Callable[[object], bytes]


@pytest.mark.parametrize("kind", [_plain, _torch_zip, _npy], ids=lambda kind: kind.__name__.strip("_"))
def test_the_bait_is_alive(canary: Canary, kind: Kind) -> None:
    """Opened by what trusts it, each of these runs."""
    content = io.BytesIO(kind(canary))
    if kind is _plain:
        pickle.load(content)
    elif kind is _npy:
        np.load(content, allow_pickle=True)
    else:
        torch.load(content, weights_only=False)
    assert canary.sang


@kinds
def test_as_weights_of_a_model_folder(stranger: Stranger, canary: Canary, kind: Kind) -> None:
    stranger.weigh(kind(canary))
    with pytest.raises(NstudentError, match=r"member-0\.safetensors"):
        Classifier.load(stranger.run, device="cpu")
    assert not canary.sang


@kinds
@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.ckpt", "w.bin", "w.npz", "w.safetensors"])
def test_as_pretrained_weights(canary: Canary, tmp_path: Path, kind: Kind, name: str) -> None:
    (tmp_path / name).write_bytes(kind(canary))
    with pytest.raises(NstudentError, match=r"pretrained: .*w\."):
        build_network(ModelConfig(pretrained=str(tmp_path / name)), outputs_of(2), ("key",))
    assert not canary.sang


@kinds
def test_as_a_checkpoint(canary: Canary, tmp_path: Path, kind: Kind) -> None:
    (tmp_path / "member-0.safetensors").write_bytes(kind(canary))
    with pytest.raises(NstudentError, match=r"checkpoint .*member-0"):
        load_checkpoint(tmp_path / "member-0.safetensors", print)
    assert not canary.sang


@kinds
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.pkl", "x.npy"])
def test_as_an_image(stranger: Stranger, canary: Canary, tmp_path: Path, kind: Kind, name: str) -> None:
    (tmp_path / name).write_bytes(kind(canary))
    (prediction,) = Classifier.load(stranger.run, device="cpu").predict([tmp_path / name])
    assert prediction.error
    assert not prediction.labels
    with pytest.raises(ImageError):
        decode(kind(canary), 32, 1_000_000)
    assert not canary.sang


@kinds
def test_as_an_hdf5_file(canary: Canary, tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(kind(canary))
    for read in (mapped, attributes, _records_of_hdf5):
        with pytest.raises(NstudentError, match=r"x\.h5"):
            read(path)
    assert not canary.sang


def _records_of_hdf5(path: Path) -> object:
    return hdf5.open_source(DataConfig(source="hdf5", root=str(path))).catalogue().records


@kinds
def test_as_an_idx_file(canary: Canary, tmp_path: Path, kind: Kind) -> None:
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte").write_bytes(kind(canary))
    config = DataConfig(source="idx", root=str(tmp_path), class_paths=("a",))
    with pytest.raises(NstudentError, match="IDX"):
        idx.open_source(config).catalogue()
    assert not canary.sang


@kinds
def test_as_json_and_as_a_page(canary: Canary, tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(kind(canary))
    for read in (read_json, load_config):
        with pytest.raises(NstudentError, match=r"x\.json"):
            read(path)
    assert not canary.sang


@pytest.mark.parametrize(
    "state",
    [
        "[" * 100_000,
        '{"@dict": [["a", ' * 50_000,
        '{"@dict": [[[], 1]]}',
        '{"@dict": [[{}, 1]]}',
        '{"@dict": 3}',
        '{"@dict": [[1]]}',
        '{"@dict": [["a", {"@tensor": []}]]}',
        '{"other": 1}',
        "3",
        "null",
        '"text"',
        "[]",
        "9" * 10_000,
    ],
    ids=lambda state: state[:24],
)
def test_a_checkpoint_whose_description_is_strange(tmp_path: Path, state: str) -> None:
    # With the hash that it has: what is refused is refused for what it says.
    metadata = {"state": state, "sha256": hashlib.sha256(state.encode()).hexdigest()}
    text = json.dumps({"__metadata__": metadata}).encode()
    path = tmp_path / "member-0.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(NstudentError, match=r"the checkpoint .*member-0\.safetensors is damaged"):
        load_checkpoint(path, print)
