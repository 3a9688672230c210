"""Folders of small images that the data stage's tests run it on."""

import io
import json
from pathlib import Path
from typing import Any

import nstudent
import numpy as np
import pytest
from nstudent.data.dataset import Dataset
from nstudent.errors import DataError
from nstudent.progress import Silence
from nstudent.storage.artifact import Artifact
from PIL import Image

SIZE = 8


def png(colour: int) -> bytes:
    """A small image like no other of another number."""
    pixels = np.full((SIZE, SIZE, 3), 40, dtype=np.uint8)
    pixels[0, 0] = colour % 256, colour // 256, 99
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def plant(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def classes(each: int = 6, start: int = 0, prefix: str = "") -> dict[str, bytes]:
    """``each`` images of three terminal labels, one of which ends at the coarse level."""
    names = [f"{prefix}{path}/{i}.png" for path in ("pet/cat", "pet/dog", "stone") for i in range(each)]
    return {name: png(start + i) for i, name in enumerate(names)}


def divided() -> dict[str, bytes]:
    """A source with splits of its own."""
    return (
        classes(each=4, start=0, prefix="train/")
        | classes(each=2, start=100, prefix="validation/")
        | classes(each=2, start=200, prefix="test/")
        | {f"unlabelled/{i}.png": png(300 + i) for i in range(6)}
    )


class Said(Silence):
    """Progress that keeps what is said."""

    def __init__(self) -> None:
        self.lines = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Bench:
    """A source folder, and the stage run on it."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "root"
        self.tmp_path = tmp_path

    def run(self, run: str = "run", rounds: int = 1, **options: Any) -> Artifact:
        data = {"source": "folder", "root": str(self.root), "levels": ["coarse", "fine"], "image_size": SIZE}
        data |= {"labelled": None} | options
        words = [f"data.{key}={json.dumps(value)}" for key, value in data.items()]
        config = nstudent.load_config(overrides=[*words, f"rounds={rounds}"])
        return Artifact(nstudent.run_stage(config, "data", self.tmp_path / run))

    def refused(self, **options: Any) -> str:
        with pytest.raises(DataError) as caught:
            self.run(**options)
        return str(caught.value)


def left_out(artifact: Artifact) -> dict[str, str]:
    return {entry["name"]: entry["reason"] for entry in artifact.json("left_out.json")}


def status_by_name(artifact: Artifact) -> dict[str, int]:
    dataset = Dataset(artifact)
    return {dataset.name(i): int(dataset.status[i]) for i in range(len(dataset))}
