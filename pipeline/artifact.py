"""What a step leaves behind: a folder of immutable files and a manifest that makes it exist.

A step writes into ``NN-stage.partial``. Committing hashes every file, writes the manifest last, and renames the folder:
a folder without ``.partial`` is complete. The manifest tells two things apart: the *fingerprint* says what was asked
for (settings and the fingerprints of the inputs), the *id* what was made (the bytes). A step is up to date where the
fingerprint is the one asked for now and the ids of its inputs are those that lie there now.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from nstudent.errors import ArtifactError
from nstudent.storage import (
    explained,
    fingerprint_of,
    make_folder,
    read_json,
    remove_folder,
    rename,
    sha256_of,
    sweep,
    sync_folder,
    write_json,
)

MANIFEST = "manifest.json"
FINAL = "final.json"
"""In the run folder: the step whose classifier stands."""
SCHEMA = 1
ASKED = "asked.json"
"""In a partial folder: what it is being made for."""
_MISSING = "missing"
_LINK = "a link to a file elsewhere"
SCRATCH = "scratch"
_REOPENED = "reopened.json"
"""In the scratch folder of a step that was committed once."""
"""Folder of a partial step for its checkpoints: removed when the step commits."""


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``."""

    stage: str
    round: int
    asked: dict[str, Any]
    """What the step was asked for: stage, version, settings, and the fingerprint of each input."""
    inputs: dict[str, str]
    """Id of each input, by the name of its step."""
    files: dict[str, dict[str, Any]]
    """sha256 and bytes of each file, by its path in the folder."""
    metrics: dict[str, Any]
    """What the step reports of its work."""
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def fingerprint(self) -> str:
        """What was asked for, as one hash."""
        return fingerprint_of(self.asked)

    @property
    def id(self) -> str:
        """What was made, as one hash: equal bytes have equal ids, wherever and whenever they were made."""
        return fingerprint_of({name: entry["sha256"] for name, entry in self.files.items()})

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of a committed step."""
        if not (folder / MANIFEST).exists():
            raise ArtifactError(f"{folder} has no {MANIFEST}: delete the folder and run the same command again")
        data = read_json(folder / MANIFEST)
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else None
            raise ArtifactError(
                f"{folder} has manifest schema {found}, this nstudent reads {SCHEMA}: "
                "use the nstudent that made it, or delete the folder and run again"
            )
        try:
            manifest = cls(**data)
            whole = manifest._is_well_formed()
        except (TypeError, AttributeError):
            whole = False
        if not whole:
            raise ArtifactError(f"{folder / MANIFEST} is damaged: delete the folder and run again")
        return manifest

    def _is_well_formed(self) -> bool:
        groups = (self.asked, self.inputs, self.files, self.metrics)
        return (
            isinstance(self.stage, str)
            and isinstance(self.round, int)
            and all(isinstance(group, dict) for group in groups)
            and all(isinstance(id_, str) for id_ in self.inputs.values())
            and all({"sha256", "bytes"} <= entry.keys() for entry in self.files.values())
            and all(_lies_below(name) for name in self.files)
        )


class Artifact:
    """A committed step, opened for reading. A file's hash is checked before its path is handed out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder)
        self._verified: set[str] = set()

    @property
    def name(self) -> str:
        """Name of the step that made it, such as ``04-student``."""
        return self.folder.name

    def path(self, name: str) -> Path:
        """Path of one file whose content is the one that was committed.

        Raises:
            ArtifactError: the file is missing or has changed.
        """
        path = self.folder / name
        if name in self._verified:
            return path
        entry = self.manifest.files.get(name)
        wrong = _MISSING if entry is None else _what_is_wrong(self.folder, name, entry)
        if wrong == _LINK:
            raise ArtifactError(f"{path} is {_LINK}: put the file itself there")
        if wrong:
            said = f"is {_MISSING}" if wrong == _MISSING else "has changed since it was made"
            raise ArtifactError(f"{path} {said}: nstudent verify {self.folder.parent} --repair makes it again")
        self._verified.add(name)
        return path

    def json(self, name: str) -> Any:
        """Content of one JSON file."""
        return read_json(self.path(name))

    def matching(self, prefix: str) -> list[str]:
        """Names of the files that start with ``prefix``, sorted."""
        return sorted(name for name in self.manifest.files if name.startswith(prefix))


def damage(folder: Path) -> dict[str, str]:
    """What is wrong with each file of a committed step that is not what was committed; every file is hashed.

    Raises:
        ArtifactError: the manifest cannot be read.
    """
    files = Manifest.read(folder).files
    found = {name: wrong for name, entry in files.items() if (wrong := _what_is_wrong(folder, name, entry))}
    return found | dict.fromkeys(strays(folder), "not part of the step: remove it")


def strays(folder: Path) -> list[str]:
    """Names of files that lie in the folder of a committed step and are none of its."""
    known = {*Manifest.read(folder).files, MANIFEST}
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return [name for name in names if name not in known]


def _what_is_wrong(folder: Path, name: str, entry: Mapping[str, Any]) -> str:
    """Why a file of a committed step is not the one that was committed; empty where it is."""
    path = folder / name
    if path.exists() and not path.resolve().is_relative_to(folder.resolve()):
        return _LINK
    if not path.is_file():
        return _MISSING
    if path.stat().st_size != entry["bytes"]:
        return f"{path.stat().st_size:,} bytes where {entry['bytes']:,} were committed"
    return "" if sha256_of(path) == entry["sha256"] else "changed since it was committed"


def _lies_below(name: str) -> bool:
    """Whether a file's name leads to a place below its folder."""
    return bool(name) and "\0" not in name and not any(part in ("", "..", ".") for part in name.split("/"))


def partial_folder(folder: Path) -> Path:
    """Where a step is made before it exists."""
    return folder.with_name(folder.name + ".partial")


def open_partial(folder: Path, asked: Mapping[str, Any]) -> Path:
    """The folder to make a step in: what an interrupted attempt at the same thing left there stays.

    Raises:
        ArtifactError: an attempt at something else lies there, and it holds work that nobody said to throw away.
    """
    partial = partial_folder(folder)
    if partial.is_symlink():
        raise ArtifactError(f"{partial} is a link: remove it and run the same command again")
    before = _asked(partial)
    if partial.exists() and before != dict(asked):
        if before is not None and _work(partial):
            then = before.get("asked") if isinstance(before, dict) else None
            changed = difference(then, asked["asked"]) or "an input was made again"
            raise ArtifactError(
                f"{partial} holds unfinished work for other settings or inputs ({changed}): "
                "run with those to finish it, or delete the folder"
            )
        remove_folder(partial)
    if not partial.exists():
        make_folder(partial)
        write_json(partial / ASKED, asked)
    # Else the half manifest of a killed commit would be listed as a file of the step.
    sweep(partial)
    return partial


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
    before, now = made["settings"], asked["settings"]
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        key = changed[0]
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"{key} changed from {before.get(key)!r:.60} to {now.get(key)!r:.60}{more}"
    gone = [name for name in made["inputs"] if name not in asked["inputs"]]
    if gone:
        return f"{gone[0]} is not needed any more"
    inputs = [name for name, value in asked["inputs"].items() if made["inputs"].get(name) != value]
    if inputs:
        return f"{inputs[0]} was asked for differently"
    return "made by another version of the stage" if made != asked else ""


def commit(folder: Path, manifest_fields: Mapping[str, Any]) -> Artifact:
    """Make the step at ``folder`` exist from what lies in its partial folder."""
    partial = partial_folder(folder)
    files = {}
    for path in sorted(path for path in partial.rglob("*") if path.is_file()):
        name = path.relative_to(partial).as_posix()
        if name != ASKED and not name.startswith(f"{SCRATCH}/"):
            files[name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    manifest = Manifest(**manifest_fields, files=files, environment=_environment())
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
    remove_folder(partial)
    rename(folder, partial)
    write_json(partial / ASKED, asked)
    make_folder(partial / SCRATCH)
    write_json(partial / SCRATCH / _REOPENED, list(damaged))
    # The manifest last: while it is there, a crash leaves a step that is committed and still known to be damaged.
    # Without it all that lies there is taken for whole.
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


def _environment() -> dict[str, str]:
    packages = ("nstudent", "torch", "timm", "albumentations", "numpy", "h5py", "scikit-learn")
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **{name: metadata.version(name) for name in packages},
    }
