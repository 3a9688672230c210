"""``nstudent data pack``: a source, decoded once into a folder that many runs share.

The folder is made like a step: in ``OUT.partial``, shard by shard, and committed by one rename after its manifest.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nstudent.config.schema import DataConfig
from nstudent.data.curation.given_labels import encode_labels, taxonomy_of
from nstudent.data.decode import VERSION
from nstudent.data.left_out import LEFT_OUT, announce, write_left_out
from nstudent.data.packing.shards import Layout, pack
from nstudent.data.sources import catalogue_of, open_source
from nstudent.data.sources.packed import INFO, RECORDS, SHARD, STAGE, Info, PackMetrics, is_pack, write_records
from nstudent.errors import ArtifactError, ConfigError, DataError
from nstudent.progress import Progress
from nstudent.session import Session
from nstudent.storage.artifact import MANIFEST, Manifest, damage, refuse_strays, strays
from nstudent.storage.commit import (
    ASKED,
    commit,
    difference,
    finish_commit,
    note_refusal,
    open_partial,
    partial_folder,
    reopen,
)
from nstudent.storage.files import explained, fingerprint_of
from nstudent.storage.lock import hold_beside
from nstudent.storage.sealed import SCRATCH

_VERSION = 2
"""Raised when the same source and settings should give another pack."""
_DECIDING = (
    *("source", "root", "table", "path_column", "split_column"),
    *("unlabelled_root", "levels", "class_paths", "split_folders"),
    *("image_size", "storage", "jpeg_quality", "max_pixels", "bits"),
)
"""The keys of ``data`` that decide what a pack holds; the others are up to each run."""


def make_pack(config: DataConfig, out: str | Path, session: Session | None = None, *, repair: bool = False) -> Path:
    """Decode the source of a configuration into the folder ``out``, unless that is up to date.

    Args:
        config: What to decode, and to what size.
        out: Folder of the pack. Where one lies there that was made for something else, it is replaced as a whole.
        session: Who is told of the work, and may stop it between shards; default: nobody.
        repair: Hash every file of a pack that is up to date, and make damaged ones again. Without it those are that
            are missing or have another length.

    Raises:
        NstudentError: with a line that says what to put right. What was made stays; the same call goes on from there.
    """
    folder, shown = Path(out), (session or Session()).watched()
    _refuse(folder, config)
    with explained(folder, "use"), hold_beside(folder):
        finish_commit(folder)
        request: dict[str, Any] = {"asked": _asked(config), "inputs": {}}
        reason = _why_stale(folder, request["asked"])
        if reason is None:
            damaged = _damaged(folder, repair)
            if not damaged:
                shown.say(f"{folder}: up to date")
                return folder
            _reopen(folder, request, damaged)
            reason = f"making {', '.join(damaged)} again"
        elif (folder / MANIFEST).exists():
            refuse_strays(folder, strays(folder), "the pack, which is to be replaced")
        shown.say(f"{folder}: {reason}")
        try:
            _make(folder, request, config, shown)
        except (ConfigError, DataError) as error:
            note_refusal(folder, str(error))
            raise
    return folder


def _refuse(folder: Path, config: DataConfig) -> None:
    """What lies there and is no pack is not ours to replace."""
    if config.source == "packed":
        raise ConfigError("data.source packed is a pack already: name the source it was made from, or copy the folder")
    if config.storage == "original":
        raise ConfigError("data.storage=original keeps no image, and there would be nothing to pack: choose another")
    if folder.name in ("", ".."):
        raise ConfigError(f"{folder} is no name of a folder: write a path that ends with one")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ArtifactError(f"{folder} is a link or a file: name a folder that is not there yet")
    if folder.exists() and any(folder.iterdir()) and not is_pack(folder):
        raise ArtifactError(f"{folder} holds something else than a pack: name a folder that is not there yet")
    for beside in (partial_folder(folder), folder.with_name(f"{folder.name}.before")):
        if os.path.lexists(beside) and (beside.is_symlink() or not _is_ours(beside)):
            raise ArtifactError(f"{beside} is needed and holds something else: move it away, or name another folder")


def _is_ours(folder: Path) -> bool:
    """Whether all that lies in a folder has the name of a file of ours, so that it may be replaced."""
    known = {RECORDS, INFO, LEFT_OUT, MANIFEST, ASKED, SCRATCH}
    return folder.is_dir() and all(
        path.name in known or path.name.startswith(".") or SHARD.fullmatch(path.name) for path in folder.iterdir()
    )


def _asked(config: DataConfig) -> dict[str, Any]:
    values = config.model_dump(mode="json")
    settings = {f"data.{key}": values[key] for key in _DECIDING}
    stamp = {"source": open_source(config).seen().stamp, "decode_version": VERSION}
    return {"stage": STAGE, "version": _VERSION, "round": 0, "settings": stamp | settings, "inputs": {}}


def _why_stale(folder: Path, asked: Mapping[str, Any]) -> str | None:
    if not (folder / MANIFEST).exists():
        return "not made yet"
    made = Manifest.read(folder)
    return None if made.fingerprint == fingerprint_of(asked) else difference(made.asked, asked)


def _damaged(folder: Path, repair: bool) -> list[str]:
    foreign = strays(folder)
    if repair:
        found = [name for name in damage(folder) if name not in foreign]
    else:
        found = [name for name, entry in Manifest.read(folder).files.items() if not _is_there(folder / name, entry)]
    if found:
        refuse_strays(folder, foreign, "the pack, which is damaged")
    return found


def _is_there(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == entry["bytes"]


def _reopen(folder: Path, request: Mapping[str, Any], damaged: Sequence[str]) -> None:
    partial = partial_folder(folder)
    if partial.exists():
        raise ArtifactError(f"{partial} holds unfinished work for other settings: finish it with those, or delete it")
    reopen(folder, request, damaged)


def _make(folder: Path, request: Mapping[str, Any], config: DataConfig, progress: Progress) -> None:
    began = time.monotonic()
    partial = open_partial(folder, request)
    source = open_source(config)
    found = catalogue_of(source, config)
    records = found.records
    announce(found, progress)
    # What no run could use is said before the first image is decoded, not after the last.
    encode_labels(records, taxonomy_of(found, config))
    layout = Layout.of(config, len(records), progress)
    _, reasons = pack(partial, source, records, config, layout, progress)
    write_records(partial, records)
    write_left_out(partial, records, reasons, found.passed_over)
    Info(config.image_size, VERSION, found.levels, layout.storage, len(records), config.bits).save(partial)
    metrics = PackMetrics(len(records), len(reasons)).to_json()
    seconds = round(time.monotonic() - began, 1)
    commit(folder, {"stage": STAGE, "role": STAGE, "round": 0, **request, "metrics": metrics, "seconds": seconds})
