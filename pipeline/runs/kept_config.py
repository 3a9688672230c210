"""The configuration that a run keeps, and where the paths in it count from.

Relative paths of a configuration count from the folder in which the run was started. A command about a finished run,
called from anywhere, looks for them there: first where that folder lies beside the run folder, so that a run and its
data can be copied together, then where it was. A run that was kept without that folder is as it was: its paths count
from the working folder.
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
from nstudent.storage.files import atomic_write, read_json, write_json
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

    folder: str
    """Its absolute path."""
    from_run: str
    """Its path relative to the run folder, or absolute if it is on another drive of Windows."""


def keep_config(config: Config, run_dir: Path) -> None:
    """Write the complete configuration into a run folder, and where its paths count from.

    Raises:
        OSError: The disk refuses it.
    """
    _write_if_other(run_dir / CONFIG, dump_yaml(config.model_dump(mode="json")).encode())
    here = os.path.realpath(os.curdir)
    started = _Started(here, _from_run(here, run_dir))
    if _read_started(run_dir) != started:
        write_json(run_dir / STARTED, started.to_json())


def kept_config(run_dir: Path) -> Config:
    """The configuration that a run was last made with, as it was given.

    Raises:
        ArtifactError: The folder does not hold a run, or the file is a link.
        ConfigError: The configuration cannot be read.
    """
    path = run_dir / CONFIG
    refuse_links(run_dir, (CONFIG,) if path.is_symlink() else ())
    if not path.exists():
        raise ArtifactError(f"{run_dir} is not a run folder: it has no {CONFIG}")
    return reload_config(path)


def with_paths_found(config: Config, run_dir: Path) -> Config:
    """The configuration of a run with those paths made absolute that lie where the run was started.

    Args:
        config: What ``kept_config`` gives.
        run_dir: Folder of the run.
    """
    started = _read_started(run_dir)
    if started is None:
        return config
    places = Path(os.path.realpath(run_dir)) / started.from_run, Path(started.folder)
    page: dict[str, Any] = config.model_dump(mode="json")
    for section, key in _paths(page):
        there = (os.path.abspath(place / section[key]) for place in places)
        section[key] = next((path for path in there if os.path.exists(path)), section[key])
    return check(page, str(run_dir / CONFIG))


def _from_run(here: str, run_dir: Path) -> str:
    try:
        return os.path.relpath(here, os.path.realpath(run_dir))
    except ValueError:
        # From one drive of Windows to another there is no relative path.
        return here


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
    if not path.exists() or path.read_bytes() != content:
        atomic_write(path, content)
