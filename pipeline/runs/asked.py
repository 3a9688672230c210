"""What is asked of a step, so that it is the same wherever a run lies: paths are left out, and files behind keys count
by their content."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from nstudent.config.schema import Config
from nstudent.errors import ConfigError
from nstudent.runs.stage import Step
from nstudent.storage.artifact import Manifest
from nstudent.storage.commit import difference

_PATHS = frozenset({"data.root", "data.table", "data.unlabelled_root"})
"""Where the data lie; what they are is seen in the data."""
_CONTENT = "sha256"


def of_step(step: Step, config: Config, stamp: str | None, inputs: Mapping[str, Manifest]) -> dict[str, Any]:
    """Everything that decides what a step makes, as JSON.

    Args:
        step: The step.
        config: The configuration of the run.
        stamp: Of the source of the data, if the step reads it.
        inputs: Manifests of its inputs, by step.

    Raises:
        ConfigError: A file that a key names is not there, or cannot be read.
    """
    common = {key: getattr(config, key) for key in ("seed", "absent", "precision", "augment", "compile")}
    if stamp is not None:
        common = {"seed": config.seed, "source": stamp}
    return {
        "stage": step.stage.name,
        "version": step.stage.version,
        "round": step.round,
        "settings": common | by_content(step.settings(config)),
        "inputs": {name: each.id if each.role == "data" else each.fingerprint for name, each in inputs.items()},
    }


def by_content(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a step without paths: a file that a key names is replaced by the hash of its content.

    Raises:
        ConfigError: A file is not there, or cannot be read.
    """
    return {key: _of_files(key, value) for key, value in settings.items() if key not in _PATHS}


def why_stale(made: Manifest, asked: Mapping[str, Any], inputs: Mapping[str, Manifest]) -> str | None:
    """Why what was made is not what is asked for; ``None`` if it is.

    Data count by their bytes alone: made again with equal bytes, they make nothing stale that was made from them.

    Args:
        made: Manifest of the step.
        asked: What is asked for now.
        inputs: Manifests of its inputs as they are now, by step.
    """
    data = {name for name, manifest in inputs.items() if manifest.role == "data"}
    then, now = _without(made.asked, data), _without(asked, data)
    then["settings"], now["settings"] = _reconciled(then.get("settings"), now["settings"])
    if then != now:
        return difference(then, now)
    changed = [name for name, manifest in inputs.items() if made.inputs.get(name) != manifest.id]
    return f"{changed[0]} was made again" if changed else None


def stamp_of(made: Manifest) -> str:
    """The stamp of the source that data were made of; empty if the manifest, which may be a stranger's, names none."""
    settings = made.asked.get("settings")
    stamp = settings.get("source") if isinstance(settings, Mapping) else None
    return stamp if isinstance(stamp, str) else ""


def weights_files(model: Mapping[str, Any]) -> dict[str, Path]:
    """The files of weights that the settings of a network name, by backbone; none where it names no path.

    Args:
        model: JSON object of the section of a network.
    """
    named = model.get("pretrained")
    if not isinstance(named, str):
        return {}
    path = Path(named)
    return {name: path / f"{name}.safetensors" if path.is_dir() else path for name in model["backbones"]}


def _of_files(key: str, value: Any) -> Any:
    if key == "data.taxonomy" and isinstance(value, str):
        return {_CONTENT: _hash(key, Path(value))}
    if isinstance(value, list):
        return [_of_files(f"{key}.{number}", each) for number, each in enumerate(value)]
    if not isinstance(value, dict) or "backbones" not in value:
        return value
    files = weights_files(value)
    hashes = {name: _hash(f"{key}.pretrained", path) for name, path in files.items()}
    return value | {"pretrained": {_CONTENT: hashes}} if files else value


def _without(asked: Mapping[str, Any], data: set[str]) -> dict[str, Any]:
    """What was asked, less paths and the fingerprints of data."""
    found = dict(asked)
    for group, names in (("settings", _PATHS), ("inputs", data)):
        if isinstance(asked.get(group), Mapping):
            found[group] = {name: value for name, value in asked[group].items() if name not in names}
    return found


def _reconciled(then: Any, now: Any) -> tuple[Any, Any]:
    """Both, with files equal that an earlier version knew by their paths: nobody can tell what they were then."""
    if isinstance(then, str) and isinstance(now, dict) and now.keys() == {_CONTENT}:
        return now, now
    if isinstance(then, dict) and isinstance(now, dict):
        pairs = {key: _reconciled(then[key], now[key]) for key in then if key in now}
        return then | {key: pair[0] for key, pair in pairs.items()}, now | {key: pair[1] for key, pair in pairs.items()}
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        each = [_reconciled(*pair) for pair in zip(then, now, strict=True)]
        return [pair[0] for pair in each], [pair[1] for pair in each]
    return then, now


def _hash(key: str, path: Path) -> str:
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{key}: {path} is not a file but a folder, a pipe or a device: name a file")
        return _hash_of(str(path), found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise ConfigError(f"{key}: cannot read {path}: {error.strerror}: correct the path or mount the disk") from error


@lru_cache(maxsize=256)
def _hash_of(path: str, size: int, time: int) -> str:
    """Hash of a file of this size and time of change: it is asked for at every step that it decides."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
