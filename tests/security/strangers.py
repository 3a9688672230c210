"""A run folder whose owner lies, and an object that shows that somebody ran code from a file."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nstudent.storage.artifact import MANIFEST
from nstudent.storage.files import sha256_of

STEP = "01-teacher"


class Canary:
    """An object whose unpickling makes a folder: there, somebody ran code from a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)

    @property
    def sang(self) -> bool:
        return self.path.exists()


class Stranger:
    """Owns a run folder, and gives every file in it the hash it has: hashes are no defence against its owner."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.step = run / STEP

    def seal(self) -> None:
        manifest = json.loads((self.step / MANIFEST).read_text())
        for name in manifest["files"]:
            path = self.step / name
            manifest["files"][name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        (self.step / MANIFEST).write_text(json.dumps(manifest))

    def describe(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change ``model.json``."""
        model = json.loads((self.step / "model.json").read_text())
        change(model)
        (self.step / "model.json").write_text(json.dumps(model))
        self.seal()

    def weigh(self, content: bytes) -> None:
        """Replace the weights."""
        (self.step / "member-0.safetensors").write_bytes(content)
        self.seal()
