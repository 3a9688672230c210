"""What a step leaves behind: a folder of immutable files and a manifest that makes it exist.

A step writes into ``NN-stage.partial``. Committing hashes every file, writes the manifest last, and renames the folder:
a folder without ``.partial`` is complete. The manifest tells two things apart: the *fingerprint* says what was asked
for (settings and the fingerprints of the inputs), the *id* what was made (the bytes). A step is up to date where the
fingerprint is the one asked for now and the ids of its inputs are those that lie there now.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from nstudent.errors import ArtifactError
from nstudent.machine import available_cores
from nstudent.storage.files import fingerprint_of, read_json, sha256_of
from nstudent.storage.json_record import JsonRecord
from nstudent.storage.links import LINK, is_behind_link, links_below

MANIFEST = "manifest.json"
FINAL = "final.json"
"""In the run folder: the step whose classifier stands."""
SCHEMA = 1
_MISSING = "missing"
_ROLE_OF_STAGE = {
    "data": "data",
    "probe": "classifier",
    "teacher": "classifier",
    "baseline": "classifier",
    "choose": "labeller",
    "pseudolabel": "labels",
    "filter": "selection",
    "student": "classifier",
    "soup": "classifier",
    "refit": "refit",
    "evaluate": "scores",
    "pack": "pack",
}
"""Role of what each stage made when manifests did not say it."""

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``."""

    stage: str
    role: str
    """What the step is to those that read it, such as ``labeller``."""
    round: int
    asked: dict[str, Any]
    """What the step was asked for: stage, version, settings, and the fingerprint of each input."""
    inputs: dict[str, str]
    """Id of each input, by the name of its step."""
    files: dict[str, dict[str, Any]]
    """sha256 and bytes of each file, by its path in the folder."""
    metrics: dict[str, Any]
    """What the step reports of its work, as JSON; read it with ``Metrics.of``."""
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
        """Read the manifest of a committed step.

        Raises:
            ArtifactError: It is missing, damaged, behind a link, or of a schema that this version does not read.
        """
        if folder.is_symlink():
            raise ArtifactError(f"{folder} is {LINK}: put the folder itself there")
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
            manifest = cls(**{"role": _ROLE_OF_STAGE.get(data["stage"], ""), **data})
            whole = manifest._is_well_formed()
        except (LookupError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise ArtifactError(f"{folder / MANIFEST} is damaged: delete the folder and run again")
        return manifest

    def _is_well_formed(self) -> bool:
        groups = (self.asked, self.inputs, self.files, self.metrics)
        return (
            isinstance(self.stage, str)
            and isinstance(self.role, str)
            and isinstance(self.round, int)
            and all(isinstance(group, dict) for group in groups)
            and all(isinstance(id_, str) for id_ in self.inputs.values())
            and all({"sha256", "bytes"} <= entry.keys() for entry in self.files.values())
            and all(_lies_below(name) for name in self.files)
        )


class Metrics(JsonRecord):
    """What a step reports of its work; each role has a class of its own."""

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """What a committed step reported.

        Raises:
            ArtifactError: It reported something else.
        """
        try:
            return cls.from_json(manifest.metrics)
        except ValueError as error:
            raise ArtifactError(
                f"the manifest of a {manifest.stage} step does not say what it did ({error}): "
                "delete the step's folder and run again"
            ) from error


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
        return self.paths([name])[0]

    def paths(self, names: Sequence[str]) -> list[Path]:
        """Paths of files whose contents are those that were committed; several are hashed at a time.

        Raises:
            ArtifactError: A file is missing or has changed; the first of them, in the order of ``names``, is named.
        """
        unknown = [name for name in names if name not in self._verified]
        with closing(_each(self._what_is_wrong, unknown)) as found:
            for name, wrong in zip(unknown, found, strict=True):
                if wrong:
                    raise ArtifactError(self._explained(name, wrong))
                self._verified.add(name)
        return [self.folder / name for name in names]

    def _what_is_wrong(self, name: str) -> str:
        entry = self.manifest.files.get(name)
        return _MISSING if entry is None else _what_is_wrong(self.folder, name, entry)

    def _explained(self, name: str, wrong: str) -> str:
        path = self.folder / name
        if wrong == LINK:
            return f"{path} is {LINK}, or lies behind one: put the file itself there"
        said = f"is {_MISSING}" if wrong == _MISSING else "has changed since it was made"
        return f"{path} {said}: nstudent verify {self.folder.parent} --repair makes it again"

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
    checked = _each(lambda name: _what_is_wrong(folder, name, files[name]), list(files))
    found = {name: wrong for name, wrong in zip(files, checked, strict=True) if wrong}
    links = dict.fromkeys(links_below(folder), LINK)
    return dict.fromkeys(strays(folder), "not part of the step: remove it") | found | links


def strays(folder: Path) -> list[str]:
    """Names of files that lie in the folder of a committed step and are none of its."""
    known = {*Manifest.read(folder).files, MANIFEST}
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return [name for name in names if name not in known]


def refuse_strays(folder: Path, foreign: Sequence[str], whose: str) -> None:
    """What somebody has put into a folder would be lost with what is made anew there.

    Raises:
        ArtifactError: there is something; ``whose`` says what it is no part of, and why that matters.
    """
    if foreign:
        raise ArtifactError(f"{folder / foreign[0]} is not part of {whose}: move it away first")


def sha256_of_each(paths: Sequence[Path]) -> list[str]:
    """Hash files, several at a time; their hashes come in the order of ``paths``.

    Raises:
        ArtifactError: A file cannot be read.
    """
    return list(_each(sha256_of, paths))


def _each(check: Callable[[Item], Found], items: Sequence[Item]) -> Generator[Found, None, None]:
    """What ``check`` finds of each file, in order. Hashing leaves Python's lock to others, so a thread a core does it.

    Closing it ends the threads: what has not begun then is left out.
    """
    threads = min(available_cores(), len(items))
    if threads <= 1:
        yield from map(check, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="hash") as pool:
        yield from pool.map(check, items)


def _what_is_wrong(folder: Path, name: str, entry: Mapping[str, Any]) -> str:
    """Why a file of a committed step is not the one that was committed; empty where it is."""
    path = folder / name
    if is_behind_link(folder, name):
        return LINK
    if not path.is_file():
        return _MISSING
    if path.stat().st_size != entry["bytes"]:
        return f"{path.stat().st_size:,} bytes where {entry['bytes']:,} were committed"
    return "" if sha256_of(path) == entry["sha256"] else "changed since it was committed"


def _lies_below(name: str) -> bool:
    """Whether a file's name leads to a place below its folder."""
    return bool(name) and "\0" not in name and not any(part in ("", "..", ".") for part in name.split("/"))
