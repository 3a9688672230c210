"""Files that are whole or not there: write beside, fsync, rename; hash everything.

A file is immutable once it has its name. The order (data to disk, rename, folder to disk) is what makes a file that
exists a file that is complete, also after a power cut.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from nstudent.errors import ArtifactError

_HASH_BLOCK_BYTES = 1 << 20
_MAX_JSON_BYTES = 64 << 20


def sync_folder(folder: Path) -> None:
    """Flush the folder's entries (new names, renames) to disk, where the platform lets a folder be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, content: bytes) -> None:
    """Give ``path`` this content, or leave it as it was."""
    beside = path.with_name(f".{path.name}.writing")
    try:
        # What an attempt before left, or a link that a stranger put there: neither is written through.
        beside.unlink(missing_ok=True)
        with open(beside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise ArtifactError(f"cannot write {path} ({len(content):,} bytes): {error.strerror or error}") from error
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON; keys stay in their order, which is that of the code and so the same every time."""
    atomic_write(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of a run folder: an ordinary file, strict JSON, no key twice, at most 64 MiB."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("not an ordinary file")
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError(f"more than {_MAX_JSON_BYTES:,} bytes")
        return json.loads(path.read_bytes(), object_pairs_hook=_object, parse_constant=_no_number)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing: run the step that makes it again") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged ({error}): delete its folder and run the same command again") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Two readers of a key that stands twice may read two things."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


def sha256_of(path: Path) -> str:
    """Hash a file in blocks, in constant memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def fingerprint_of(value: Any) -> str:
    """sha256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
