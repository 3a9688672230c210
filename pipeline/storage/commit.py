"""How a step comes to exist: made in a partial folder, and committed by one rename after its manifest."""

import contextlib
import functools
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from nstudent.errors import ArtifactError
from nstudent.storage.artifact import MANIFEST, Artifact, Manifest, sha256_of_each
from nstudent.storage.files import (
    explained,
    make_folder,
    read_json,
    remove_folder,
    rename,
    sweep,
    sync_folder,
    write_json,
)
from nstudent.storage.links import links_below, refuse_links
from nstudent.storage.sealed import SCRATCH, SealedFiles

ASKED = "asked.json"
"""In a partial folder: what it is being made for."""
SOURCE_CHANGED = "the source has changed"
_REFUSED = "refused.json"
"""In the scratch folder of a partial step whose settings cannot lead to an end: why."""
_REOPENED = "reopened.json"
"""In the scratch folder of a step that was committed once."""


def partial_folder(folder: Path) -> Path:
    """Where a step is made before it exists."""
    return folder.with_name(folder.name + ".partial")


def open_partial(folder: Path, asked: Mapping[str, Any], *, beside_others: bool = False, anew: bool = False) -> Path:
    """The folder to make a step in: what an interrupted attempt at the same thing left there stays.

    Args:
        folder: Of the step.
        asked: What it is to be made for.
        beside_others: Other processes may be writing files there: half written ones are left alone.
        anew: Of what an earlier attempt left there nothing stays but what classifiers have said of images, and that if
            it was asked for the same thing.

    Raises:
        ArtifactError: an attempt at something else lies there, and it holds work that nobody said to throw away.
    """
    partial = partial_folder(folder)
    if partial.is_symlink():
        raise ArtifactError(f"{partial} is a link: remove it and run the same command again")
    if partial.exists():
        refuse_links(partial, links_below(partial))
    before = _asked(partial)
    if anew and before == dict(asked):
        SealedFiles(partial).leave_walks(ASKED)
    if partial.exists() and before != dict(asked):
        if not anew:
            refuse_other_work(folder, asked)
        remove_folder(partial)
    if not partial.exists():
        make_folder(partial)
        write_json(partial / ASKED, asked)
    # Else the half manifest of a killed commit would be listed as a file of the step.
    if not beside_others:
        sweep(partial)
    return partial


def refuse_other_work(folder: Path, asked: Mapping[str, Any]) -> None:
    """Refuse to make a step where unfinished work at another request lies.

    Args:
        folder: Of the step.
        asked: What it is to be made for.

    Raises:
        ArtifactError: such work lies there, and nobody said to throw it away.
    """
    partial = partial_folder(folder)
    before = _asked(partial)
    if before is None or before == dict(asked) or not _work(partial) or refusal(folder) is not None:
        return
    then = before.get("asked") if isinstance(before, dict) else None
    changed = difference(then, asked["asked"]) or "an input was made again"
    raise ArtifactError(
        f"{partial} holds unfinished work for other settings or inputs ({changed}): "
        "run with those, or the version it was begun with, to finish it, or delete the folder"
    )


def note_refusal(folder: Path, why: str) -> None:
    """Mark the partial folder of a step: other settings may begin anew there, since these cannot lead to an end."""
    partial = partial_folder(folder)
    # The refusal itself is what a person is to see, whatever the disk says.
    with contextlib.suppress(ArtifactError):
        make_folder(partial / SCRATCH)
        write_json(partial / SCRATCH / _REFUSED, {"why": why})


def refusal(folder: Path) -> str | None:
    """Why the settings of a step that is partial cannot lead to an end; ``None`` if nobody has found that."""
    note = partial_folder(folder) / SCRATCH / _REFUSED
    return str(read_json(note).get("why", "")) if note.is_file() else None


def _asked(partial: Path) -> Any:
    mark = partial / ASKED
    return read_json(mark) if mark.exists() else None


def _work(partial: Path) -> bool:
    """Whether anything lies in a partial folder that took time to make."""
    return any(path.is_file() and path.name != ASKED and not path.name.startswith(".") for path in partial.rglob("*"))


def difference(made: Any, asked: Mapping[str, Any]) -> str:
    """What was asked for then (as a manifest or a mark says, whatever that is) and is not now; empty: nothing."""
    try:
        return _difference(made, asked)
    except (KeyError, TypeError, AttributeError):
        return "nothing says what was asked for then"


def _difference(made: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    before, now = _single_keys(made["settings"]), _single_keys(asked["settings"])
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        key = changed[0]
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        if key == "source":
            return f"{SOURCE_CHANGED}{more}"
        if ".sha256" in key and key in before:
            return f"the content of {key.partition('.sha256')[0]} changed{more}"
        if key not in before:
            return f"{key} was not set, or not known to the version that made it{more}"
        return f"{key} changed from {before[key]!r:.60} to {now.get(key)!r:.60}{more}"
    gone = [name for name in made["inputs"] if name not in asked["inputs"]]
    if gone:
        return f"{gone[0]} is not needed any more"
    inputs = [name for name, value in asked["inputs"].items() if made["inputs"].get(name) != value]
    if inputs:
        return f"{inputs[0]} was asked for differently"
    return "made by another version of the stage" if made != asked else ""


def _single_keys(settings: Mapping[Any, Any], above: str = "") -> dict[str, Any]:
    """Groups of keys, such as noise, as their keys: else a difference drowns in what is equal."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            value = dict(enumerate(value))
        inner = _single_keys(value, f"{above}{key}.") if isinstance(value, Mapping) and value else None
        found |= inner if inner is not None else {f"{above}{key}": value}
    return found


def commit(folder: Path, manifest_fields: Mapping[str, Any]) -> Artifact:
    """Make the step at ``folder`` exist from what lies in its partial folder."""
    partial = partial_folder(folder)
    found = {path.relative_to(partial).as_posix(): path for path in sorted(partial.rglob("*")) if path.is_file()}
    made = {name: path for name, path in found.items() if name != ASKED and not name.startswith(f"{SCRATCH}/")}
    hashes = sha256_of_each(list(made.values()))
    sealed = SealedFiles(partial)
    for name, digest in zip(made, hashes, strict=True):
        sealed.check(name, digest)
    files = {
        name: {"sha256": digest, "bytes": path.stat().st_size}
        for (name, path), digest in zip(made.items(), hashes, strict=True)
    }
    manifest = Manifest(**manifest_fields, files=files, environment=dict(_environment()))
    for below in (path for path in partial.rglob("*") if path.is_dir()):
        sync_folder(below)
    write_json(partial / MANIFEST, asdict(manifest))
    _put_in_place(folder)
    return Artifact(folder)


def finish_commit(folder: Path) -> None:
    """Do the rename that a crash right after the manifest left undone."""
    if (partial_folder(folder) / MANIFEST).exists():
        _put_in_place(folder)


def reopen(folder: Path, asked: Mapping[str, Any], damaged: Sequence[str]) -> None:
    """Turn a committed step back into a partial one without its damaged files, so that only these are made again."""
    partial = partial_folder(folder)
    files = Manifest.read(folder).files
    remove_folder(partial)
    rename(folder, partial)
    write_json(partial / ASKED, asked)
    make_folder(partial / SCRATCH)
    sealed = SealedFiles(partial)
    for name in files.keys() - set(damaged):
        sealed.seal(name, files[name]["sha256"])
    write_json(partial / SCRATCH / _REOPENED, list(damaged))
    # The manifest last: while it is there, a crash leaves a step that is committed and still known to be damaged.
    # Without it all that fits its seal is taken for whole.
    for name in (*damaged, MANIFEST):
        with explained(partial / name, "remove"):
            (partial / name).unlink(missing_ok=True)
        sync_folder((partial / name).parent)


def is_reopened(folder: Path) -> bool:
    """Whether the step lies there reopened, and its damaged files were not made again yet."""
    return not folder.exists() and (partial_folder(folder) / SCRATCH / _REOPENED).exists()


def _put_in_place(folder: Path) -> None:
    # Only now: with the manifest the step is whole, and a crash before it must leave the checkpoints.
    partial, before = partial_folder(folder), folder.with_name(folder.name + ".before")
    remove_folder(partial / SCRATCH)
    with explained(partial, "clear"):
        (partial / ASKED).unlink(missing_ok=True)
    remove_folder(before)
    if folder.exists():
        rename(folder, before)
    rename(partial, folder)
    remove_folder(before)


@functools.cache
def _environment() -> dict[str, str]:
    # Once a process: reading the versions from the installed packages takes longer than the rest of a small commit.
    packages = ("nstudent", "torch", "timm", "albumentations", "numpy", "h5py", "scikit-learn")
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **{name: metadata.version(name) for name in packages},
    }
