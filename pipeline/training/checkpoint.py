"""A training in the middle, on disk: tensors in safetensors, the rest in JSON, nothing that could run code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from nstudent.errors import ArtifactError
from nstudent.storage import atomic_write
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

_TENSOR = "@tensor"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a nested state of dicts, lists, tensors and JSON values as one file, replacing the one before."""
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(_take_tensors(state, tensors))
    atomic_write(path, save(tensors, metadata={"state": skeleton}))


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a state back; ``None`` where there is none yet."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            skeleton = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        state = _put_tensors(skeleton, tensors)
        if not isinstance(state, dict):
            raise ValueError("no state")
    except (SafetensorError, LookupError, ValueError, OSError, TypeError, RecursionError) as error:
        raise ArtifactError(f"the checkpoint {path} is damaged: delete it to train this network anew") from error
    return state


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
