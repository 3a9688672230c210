"""The configuration that a run keeps, and where the paths in it count from.

Relative paths of a configuration count from the folder in which the run was started. If the run folder lies below it,
as ``runs/NAME`` does, the run notes how far below, and a command about the run, called from anywhere, looks for the
paths there: also where a run and its data were copied together. The note is a number and no path, so that a run that is
given away does not tell where it was made. Without it paths count from the working folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nstudent.config.file import check, reload_config
from nstudent.config.schema import Config
from nstudent.config.yaml_text import dump_yaml
from nstudent.errors import ArtifactError
from nstudent.storage.files import atomic_write, read_json, remove_file, write_json
from nstudent.storage.json_record import JsonRecord
from nstudent.storage.links import refuse_links

CONFIG = "config.yaml"
STARTED = ".started.json"
"""File in the run folder that says where the run was started; the run does without it if it is gone."""
_OF_DATA = ("root", "unlabelled_root", "taxonomy")
_OF_NETWORKS = "pretrained"


@dataclass(frozen=True)
class _Started(JsonRecord):
    """The folder in which a run was started last."""

    above: int
    """By how many folders it lies above the run folder."""


def keep_config(config: Config, run_dir: Path) -> None:
    """Write the complete configuration into a run folder, and where its paths count from.

    Raises:
        OSError: The disk refuses it.
    """
    _write_if_other(run_dir / CONFIG, dump_yaml(config.model_dump(mode="json")).encode())
    here, above = Path(os.path.realpath(os.curdir)), Path(os.path.realpath(run_dir)).parents
    if here not in above:
        remove_file(run_dir / STARTED)
    elif _read_started(run_dir) != (started := _Started(above.index(here) + 1)):
        write_json(run_dir / STARTED, started.to_json())


def kept_config(run_dir: Path) -> Config:
    """The configuration that a run was last made with, as it was given.

    Raises:
        ArtifactError: The folder does not hold a run, or the file is a link.
        ConfigError: The configuration cannot be read.
    """
    path = run_dir / CONFIG
    refuse_links(run_dir, (CONFIG,) if path.is_symlink() else ())
    # A pipe in its place would be waited for.
    if not path.is_file():
        raise ArtifactError(f"{run_dir} is not a run folder: it has no {CONFIG}")
    return reload_config(path)


def with_paths_found(config: Config, run_dir: Path) -> Config:
    """The configuration of a run with those paths made absolute that lie where the run was started.

    Args:
        config: What ``kept_config`` gives.
        run_dir: Folder of the run.
    """
    started, above = _read_started(run_dir), Path(os.path.realpath(run_dir)).parents
    if started is None or not 1 <= started.above <= len(above):
        return config
    page: dict[str, Any] = config.model_dump(mode="json")
    for section, key in _paths(page):
        there = os.path.abspath(above[started.above - 1] / section[key])
        section[key] = there if os.path.exists(there) else section[key]
    return check(page, str(run_dir / CONFIG))


def _paths(page: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """The sections of a configuration that name relative paths, each with the key that does."""
    found = [(page["data"], key) for key in _OF_DATA]
    found += [(section, _OF_NETWORKS) for section in _sections(page) if _OF_NETWORKS in section]
    for section, key in found:
        if isinstance(section[key], str) and not os.path.isabs(section[key]):
            yield section, key


def _sections(value: Any) -> Iterator[dict[str, Any]]:
    """All groups of keys in a value, at any depth."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from _sections(each)
    elif isinstance(value, list):
        for each in value:
            yield from _sections(each)


def _read_started(run_dir: Path) -> _Started | None:
    path = run_dir / STARTED
    if path.is_symlink() or not path.is_file():
        return None
    with suppress(ArtifactError, ValueError):
        return _Started.from_json(read_json(path))
    return None


def _write_if_other(path: Path, content: bytes) -> None:
    if not path.is_file() or path.stat().st_size != len(content) or path.read_bytes() != content:
        atomic_write(path, content)
