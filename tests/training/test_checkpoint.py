import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nstudent.errors import ArtifactError
from nstudent.training.checkpoint import load_checkpoint, previous, save_checkpoint

# As an optimiser's: integer keys, 0-dimensional tensors, lists of dicts, None, booleans.
STATE = {
    "step": 12,
    "history": [{"epoch": 1, "loss": 0.1 + 0.2, "validation": None}, {"epoch": 2, "loss": 1e-300}],
    "network": {"weight": torch.arange(24.0).reshape(2, 3, 2, 2), "count": torch.tensor(3), "empty": torch.zeros(0, 4)},
    "optimizer": {
        "state": {0: {"step": torch.tensor(12.0), "exp_avg": torch.full((3,), 1e-40)}, 1: {}},
        "param_groups": [{"lr": 0.003, "betas": [0.9, 0.999], "amsgrad": False, "params": [0, 1]}],
    },
    "half": torch.tensor([1.5, -2.25], dtype=torch.bfloat16),
    "mask": torch.tensor([True, False]),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "member-0.safetensors"


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_a_nested_state_comes_back_as_it_was(path: Path) -> None:
    save_checkpoint(path, STATE)
    assert same(STATE, load_checkpoint(path, print))


def test_every_bit_of_a_number_comes_back(path: Path) -> None:
    values = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    save_checkpoint(path, {"values": values, "loss": float("nan"), "low": -0.0})
    state = load_checkpoint(path, print)
    assert state["values"].numpy().tobytes() == values.numpy().tobytes()
    assert state["loss"] != state["loss"]
    assert str(state["low"]) == "-0.0"


def test_tensors_in_any_layout_come_back_with_their_values(path: Path) -> None:
    images = torch.rand(2, 3, 4, 4)
    views = {
        "channels last": images.to(memory_format=torch.channels_last),
        "view": images[:, 1:],
        "transposed": images.transpose(0, 3),
        "needs grad": images.clone().requires_grad_(),
    }
    save_checkpoint(path, views)
    state = load_checkpoint(path, print)
    assert all(torch.equal(state[name], value) for name, value in views.items())


def test_tensors_that_share_memory_are_kept_each(path: Path) -> None:
    weight = torch.arange(4.0)
    save_checkpoint(path, {"one": weight, "two": weight})
    state = load_checkpoint(path, print)
    state["one"][0] = 9
    assert state["two"].tolist() == [0, 1, 2, 3]


def test_there_is_none_before_the_first(path: Path) -> None:
    assert load_checkpoint(path, print) is None


def test_the_next_one_takes_its_place_and_one_generation_is_kept(path: Path) -> None:
    for step in (11, 12, 13):
        save_checkpoint(path, {"step": step})
    assert load_checkpoint(path, print) == {"step": 13}
    assert {each.name for each in path.parent.iterdir()} == {path.name, previous(path).name}
    path.unlink()
    assert load_checkpoint(path, print) == {"step": 12}


def test_a_failed_write_leaves_the_one_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(path, {"step": 1})

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(ArtifactError, match=r"cannot .*: No space left on device, [\d,]+ bytes are free there"):
        save_checkpoint(path, {"step": 2})
    monkeypatch.undo()
    assert load_checkpoint(path, print) == {"step": 1}
    assert [each.name for each in path.parent.iterdir()] == [previous(path).name]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found_and_the_one_before_is_used(
    place: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("flip") / "member-0.safetensors"
    save_checkpoint(path, {"step": 1})
    save_checkpoint(path, STATE)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    said = []
    state = load_checkpoint(path, said.append)
    # A flip in the padding of the header, or in the name of a field that nobody reads, changes nothing.
    assert same(STATE, state) or (state == {"step": 1} and "member-0.safetensors is damaged" in said[0])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def flip_the_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20] ^= 0xFF
    path.write_bytes(content)


def without_state(path: Path) -> None:
    header = json.dumps({"__metadata__": {"other": "{}"}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def without_json(path: Path) -> None:
    header = json.dumps({"__metadata__": {"state": "{not json"}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def naming_a_tensor_that_is_not_there(path: Path) -> None:
    header = json.dumps({"__metadata__": {"state": '{"@dict": [["w", {"@tensor": "7"}]]}'}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x80\x04K\x01."),
        truncate,
        flip_the_header,
        without_state,
        without_json,
        naming_a_tensor_that_is_not_there,
    ],
    ids=["empty", "a pickle", "truncated", "header", "no state", "no JSON", "no such tensor"],
)
def test_a_damaged_file_says_what_to_delete(damage: Callable[[Path], object], path: Path) -> None:
    save_checkpoint(path, STATE)
    damage(path)
    with pytest.raises(ArtifactError, match=r"member-0\.safetensors is damaged: delete it"):
        load_checkpoint(path, print)


def test_the_file_is_safetensors_and_json_and_nothing_else(path: Path) -> None:
    save_checkpoint(path, STATE)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header.pop("__metadata__")["state"])
    # Everything after the header belongs to a tensor: there is no room for anything else.
    assert max(entry["data_offsets"][1] for entry in header.values()) == len(content) - 8 - length


def test_what_is_neither_a_tensor_nor_json_is_refused_and_not_pickled(path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_checkpoint(path, {"schedule": object()})
    assert not path.exists()
