"""Files that are whole or not there: write beside, fsync, rename; hash everything.

A file is immutable once it has its name. The order (data to disk, rename, folder to disk) is what makes a file that
exists a file that is complete, also after a power cut.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nstudent.errors import ArtifactError

_HASH_BLOCK_BYTES = 1 << 20
_UNFINISHED = ".writing"
_OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MARGIN = 1.2
_MAX_JSON_BYTES = 64 << 20


@contextlib.contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn what the operating system says of ``path`` into one line with the remedy.

    Raises:
        ArtifactError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        named = error.filename or path
        raise ArtifactError(f"cannot {doing} {os.fsdecode(named)}: {_reason(error, path)}") from error


def _reason(error: OSError, path: Path) -> str:
    reason = error.strerror or str(error)
    if error.errno in _OUT_OF_SPACE:
        return f"{reason}, {free_bytes(path):,} bytes are free there: make room and run the same command again"
    return f"{reason}: put that right and run the same command again"


def free_bytes(path: Path) -> int:
    """What is free on the disk that holds ``path``, or would hold it; 0 where nobody can tell."""
    for folder in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return 0


def reserve(folder: Path, num_bytes: int) -> None:
    """Check that a piece of work of ``num_bytes``, part of which may lie in ``folder`` already, fits on the disk.

    Raises:
        ArtifactError: it does not, with a fifth to spare.
    """
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed, free = int(_MARGIN * num_bytes) - there, free_bytes(folder)
    if needed > free:
        raise ArtifactError(
            f"{folder} needs about {needed:,} bytes more and {free:,} bytes are free there: "
            "make room, or choose a folder on another disk"
        )


def sync_folder(folder: Path) -> None:
    """Flush the folder's entries (new names, renames) to disk, where the platform lets a folder be opened."""
    if os.name == "nt":
        return
    with explained(folder, "flush to disk"):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def atomic_write(path: Path, content: bytes, *, lasts: bool = True) -> None:
    """Give ``path`` this content, or leave it as it was.

    ``lasts=False``: it need not outlive the machine, and no disk is waited for. It may be empty after a power cut.
    """
    with atomic_file(path, f"write {len(content):,} bytes to", lasts=lasts) as file:
        file.write(content)


@contextlib.contextmanager
def atomic_file(path: Path, doing: str = "write", *, lasts: bool = True) -> Iterator[BinaryIO]:
    """A file to write to, piece by piece: at the end of the block ``path`` has its content, or is as it was.

    ``doing`` says in an error what was done to it. ``lasts``: as for ``atomic_write``.
    """
    beside = _beside(path)
    try:
        with explained(path, doing):
            with open(beside, "xb") as file:
                yield file
                if lasts:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    if lasts:
        sync_folder(path.parent)


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file in one call; it outlives this process, and only what was synced outlives the machine."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with explained(path, f"write {len(content):,} bytes to"):
        descriptor = os.open(path, flags, 0o666)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)


def _beside(path: Path) -> Path:
    """A name in the same folder that no other process writes to, should two of them write one file at once."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")


def can_link(source: Path, folder: Path) -> bool:
    """Whether a file can get a second name in another folder: tried, because mounts and owners decide it, too."""
    name = _beside(folder / source.name)
    try:
        os.link(source, name)
    except OSError:
        return False
    name.unlink()
    return True


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that never changes a second name, in a folder where it has none; where that cannot be, a copy.

    Another disk cannot link, nor can some file systems, nor may files of other users be linked everywhere.
    """
    with explained(target, "link or copy a file to"):
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:
            _copy(source, target)
        if os.name != "nt":  # which syncs only what is open for writing
            with open(target, "rb") as file:
                os.fsync(file.fileno())
    sync_folder(target.parent)


def _copy(source: Path, target: Path) -> None:
    beside = _beside(target)
    try:
        # Not through a link that has taken the file's place meanwhile.
        with open(source, "rb", opener=_no_link) as there, open(beside, "xb") as here:
            shutil.copyfileobj(there, here, _HASH_BLOCK_BYTES)
            here.flush()
            os.fsync(here.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    os.replace(beside, target)


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def sweep(folder: Path, *, below: bool = True) -> None:
    """Remove what killed writes left beside the files of a folder and, unless ``below`` is false, of those below it."""
    pattern = f".*{_UNFINISHED}"
    for path in folder.rglob(pattern) if below else folder.glob(pattern):
        path.unlink()


def remove_file(path: Path) -> None:
    """Remove a file, where it is there, and what a killed write of it left."""
    with explained(path, "remove"):
        path.unlink(missing_ok=True)
        path.with_name(f".{path.name}{_UNFINISHED}").unlink(missing_ok=True)


def rename(source: Path, target: Path) -> None:
    """Move a file or folder to another name in the same folder, in place of what had that name."""
    with explained(source, f"rename to {target.name}"):
        os.replace(source, target)
    sync_folder(target.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it."""
    with explained(folder, "make the folder"):
        folder.mkdir(parents=True, exist_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder with everything in it, where it is there."""
    if folder.exists():
        with explained(folder, "remove"):
            shutil.rmtree(folder)


def write_json(path: Path, value: Any, *, lasts: bool = True) -> None:
    """Write readable JSON; keys stay in their order, which is that of the code and so the same every time.

    ``lasts``: as for ``atomic_write``.
    """
    atomic_write(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode(), lasts=lasts)


def read_json(path: Path) -> Any:
    """Read a JSON file of a run folder: an ordinary file, strict JSON, no key twice, at most 64 MiB.

    Raises:
        ArtifactError: It is missing, or not such a file.
    """
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
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
    with explained(path, "read"), open(path, "rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def fingerprint_of(value: Any) -> str:
    """sha256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
