"""A training in the middle, on disk: tensors in safetensors, the rest in JSON, nothing that could run code.

Two generations are kept, each with a hash of its own content: where the newest is damaged, the one before it is used,
and the training ends with the same bytes a little later.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from nstudent.errors import ArtifactError, summary
from nstudent.storage.files import atomic_write, rename
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

_SHARE = 0.02
"""At most this share of a training goes into its checkpoints, but where one is asked for after every step."""
_TENSOR = "@tensor"
_DAMAGE = (SafetensorError, LookupError, ValueError, TypeError, OSError, RecursionError)


class Pace:
    """When the next checkpoint is due."""

    def __init__(self, seconds: float) -> None:
        """``seconds`` between two; more where writing one takes long; 0: after every step."""
        self._seconds = seconds
        self._due = time.monotonic() + seconds

    def is_due(self) -> bool:
        """Whether it is time for one."""
        return time.monotonic() >= self._due

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Around the writing of one."""
        began = time.monotonic()
        yield
        now = time.monotonic()
        # A large network on a slow disk is kept less often, so that keeping it stays a small part of the work.
        self._due = now + max(self._seconds, (now - began) / _SHARE if self._seconds else 0.0)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a nested state of dicts, lists, tensors and JSON values; the one before stays as ``previous``."""
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(_take_tensors(state, tensors))
    content = save(tensors, metadata={"state": skeleton, "sha256": _digest(skeleton, tensors)})
    if path.exists():
        rename(path, previous(path))
    atomic_write(path, content)


def as_kept(state: dict[str, Any]) -> Any:
    """A state as a checkpoint of it gives it back, without a file; tensors are copies.

    Raises:
        TypeError: It holds what no checkpoint can.
    """
    tensors: dict[str, Tensor] = {}
    return _put_tensors(json.loads(json.dumps(_take_tensors(state, tensors))), tensors)


def previous(path: Path) -> Path:
    """Where the generation before a checkpoint lies."""
    return path.with_name(f"previous-{path.name}")


def load_checkpoint(path: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Read the newest state that is whole; ``None`` where there is none yet.

    Args:
        path: As given to ``save_checkpoint``.
        say: Told where the newest is damaged and the one before it is used.

    Raises:
        ArtifactError: there are checkpoints, and none is whole.
    """
    found = [each for each in (path, previous(path)) if each.exists()]
    for each in found:
        try:
            state = _read(each)
        except _DAMAGE as error:
            said = summary(error)
            say(f"  {each} is damaged ({said}): going on from the checkpoint before it, if there is one")
        else:
            return state
    if found:
        raise ArtifactError(f"the checkpoint {path} is damaged: delete it to train this network anew")
    return None


def _read(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    if _digest(metadata["state"], tensors) != metadata["sha256"]:
        raise ValueError("its content has changed since it was written")
    state = _put_tensors(json.loads(metadata["state"]), tensors)
    if not isinstance(state, dict):
        raise ValueError("it holds no state")
    return state


def _digest(skeleton: str, tensors: dict[str, Tensor]) -> str:
    """Neither safetensors nor torch notices a flipped bit in a tensor."""
    digest = hashlib.sha256(skeleton.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _take_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone(memory_format=torch.contiguous_format)
        return {_TENSOR: name}
    if isinstance(value, dict):
        # JSON keys are strings; the optimiser's are integers.
        return {"@dict": [[key, _take_tensors(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, list | tuple):
        return [_take_tensors(entry, tensors) for entry in value]
    return value


def _put_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict) and _TENSOR in value:
        return tensors[value[_TENSOR]]
    if isinstance(value, dict):
        return {key: _put_tensors(entry, tensors) for key, entry in value["@dict"]}
    if isinstance(value, list):
        return [_put_tensors(entry, tensors) for entry in value]
    return value
